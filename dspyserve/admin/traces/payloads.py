"""Payloads as a person reads them: named fields, chats with the adapters' markers folded. All of it plain text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dspyserve.models import SpanPayload

_MARKER = re.compile(r"^\[\[ ## (\w+) ## \]\][ \t]*\n?", re.MULTILINE)
_CLOSING = "completed"


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of text; `name` is that of the field, empty for text outside of any."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat."""

    role: str
    parts: list[Part]


@dataclass(frozen=True, slots=True)
class Section:
    """A heading of the span's details and what stands below it."""

    title: str
    parts: list[Part]


def messages(payload: SpanPayload) -> list[Message]:
    """The prompt of an LM call, and its answers as the last messages."""
    given = [_message(entry) for entry in payload.messages or []]
    if payload.messages is not None:
        answers = payload.outputs if isinstance(payload.outputs, list) else [payload.outputs]
        given += [Message("answer", folded(_text(answer))) for answer in answers if answer is not None]
    return given


def sections(payload: SpanPayload) -> list[Section]:
    """Everything of a span that is no chat."""
    found = [Section("Inputs", fields(payload.inputs))]
    if payload.messages is None:
        found.append(Section("Outputs", fields(payload.outputs)))
    attributes = dict(payload.attributes or {})
    error = {name: attributes.pop(name) for name in ("error", "traceback") if name in attributes}
    found += [Section("Error", fields(error)), Section("Attributes", fields(attributes))]
    return [section for section in found if section.parts]


def fields(value: Any) -> list[Part]:
    """An object as its fields, anything else as one piece."""
    if value is None or value == {}:
        return []
    if isinstance(value, Mapping):
        return [Part(str(name), _text(item)) for name, item in value.items()]
    return [Part("", _text(value))]


def folded(text: str) -> list[Part]:
    """`text` with the sections that an adapter marked as named parts."""
    pieces = _MARKER.split(text)
    parts = [Part("", pieces[0].strip())] if pieces[0].strip() else []
    for name, body in zip(pieces[1::2], pieces[2::2], strict=True):
        if name != _CLOSING or body.strip():
            parts.append(Part("" if name == _CLOSING else name, body.strip()))
    return parts


def _message(entry: Any) -> Message:
    if not isinstance(entry, Mapping):
        return Message("", [Part("", _text(entry))])
    content = entry.get("content")
    extra = {name: value for name, value in entry.items() if name not in ("role", "content") and value}
    role, text = str(entry.get("role", "")), _content(content)
    # The system's message explains the markers: folded, it would show the placeholders behind them.
    parts = [Part("", text)] if role == "system" else folded(text)
    return Message(role, parts + fields(extra))


def _content(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(_content_part(part) for part in content)
    return _text(content) if content is not None else ""


def _content_part(part: Any) -> str:
    is_text = isinstance(part, Mapping) and part.get("type") == "text"
    return _text(part.get("text", "")) if is_text else _text(part)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping) and set(value) == {"text"} and isinstance(value["text"], str):
        return value["text"]
    return json.dumps(value, indent=2, ensure_ascii=False)
