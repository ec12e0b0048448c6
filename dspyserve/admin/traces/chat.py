"""The messages of an LM call as a chat: who said what, in fields; calls of tools, media and examples told apart."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from django.utils.translation import gettext as _

from dspyserve.admin.plain_text import Cut, visible
from dspyserve.admin.traces.folding import Piece, folded, names_in, objective_in
from dspyserve.admin.traces.json_tree import Budget, Node, tree
from dspyserve.admin.traces.media import Media, media_of
from dspyserve.admin.traces.payloads import UNREADABLE, Payload
from dspyserve.encoding import decode
from dspyserve.errors import MalformedBody

MAX_MESSAGES: Final = 100
"""Of more, the first and the last are shown."""
MAX_PARTS: Final = 100
"""Of one message."""
_TITLE: Final = 120

ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function", "answer")


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a message; `kind` says which of the others is there: node, media, or calls' name and node."""

    kind: str
    name: str = ""
    node: Node | None = None
    media: Media | None = None


@dataclass(slots=True)
class Message:
    """One message. `title` says in a line what a closed one is about; `address` is where all of it is."""

    role: str
    label: str
    parts: list[Part] = field(default_factory=list)
    title: str = ""
    address: str = ""
    rest: int = 0

    @property
    def is_closed(self) -> bool:
        """Whether it is closed at first: instructions are long, and the same in every call."""
        return self.role in ("system", "developer")


@dataclass(slots=True)
class Chat:
    """A prompt and its answers: instructions, then `examples` (demos and earlier turns), then what was asked now."""

    opening: list[Message] = field(default_factory=list)
    examples: list[Message] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    answers: list[Message] = field(default_factory=list)
    left_out: int = 0


def chat(payload: Payload, budget: Budget) -> Chat | None:
    """The chat of an LM call; None where the payload is not that of one."""
    if payload.messages in (None, UNREADABLE):
        return None
    entries = payload.messages if isinstance(payload.messages, list) else [payload.messages]
    names = names_in("\n".join(_plain(entry) for entry in entries[:1]))
    reader = _Reader(names, budget)
    # What matters most comes first, so that what there is room for goes to it.
    answers = [
        reader.message(answer, address, "answer", _("Answer"))
        for answer, address in _answers(payload)
        if answer is not None
    ]
    found = Chat(answers=answers)
    start, end = _examples(entries)
    kept, found.left_out = _kept(entries)
    read = {number: reader.entry(entries[number], f"messages.{number}") for number in reversed(kept)}
    for number in kept:
        place = found.opening if number < start else found.examples if number < end else found.messages
        place.append(read[number])
    return found


class _Reader:
    """Reads messages as long as there is room."""

    def __init__(self, names: frozenset[str], budget: Budget) -> None:
        self._names = names
        self._budget = budget

    def entry(self, entry: Any, address: str) -> Message:
        """A message as it was sent."""
        role = str(entry.get("role", "")) if isinstance(entry, Mapping) else ""
        found = self.message(entry, address, role if role in ROLES else "", visible(role[:40]) or _("Message"))
        if found.is_closed:
            text = _plain(entry)
            found.title = visible(" ".join((objective_in(text) or text)[: 4 * _TITLE].split())[:_TITLE])
        return found

    def message(self, entry: Any, address: str, role: str, label: str) -> Message:
        """A message, or an answer, which may be text alone."""
        found = Message(role, label, address=address)
        parts = list(itertools.islice(self._parts(entry, address, role), MAX_PARTS + 1))
        found.parts, found.rest = parts[:MAX_PARTS], len(parts) - len(parts[:MAX_PARTS])
        return found

    def _parts(self, entry: Any, address: str, role: str) -> Iterator[Part]:
        if not isinstance(entry, Mapping):
            yield from self._content(entry, address, role)
            return
        for position, (name, value) in enumerate(entry.items()):
            place = f"{address}.{position}"
            if name == "role" or value in (None, "", [], {}):
                continue
            if name in ("content", "text"):
                yield from self._content(value, place, role)
            elif name == "tool_calls" and isinstance(value, list):
                yield from (self._call(call, f"{place}.{number}") for number, call in enumerate(value))
            elif name in ("reasoning_content", "reasoning") and isinstance(value, str):
                yield Part("thinking", _("Reasoning"), tree(value, place, budget=self._budget))
            else:
                yield Part("field", visible(str(name)[:200]), tree(value, place, budget=self._budget))

    def _content(self, content: Any, address: str, role: str) -> Iterator[Part]:
        if isinstance(content, str):
            yield from self._text(content, address, role)
        elif isinstance(content, list):
            for number, part in enumerate(content):
                yield from self._block(part, f"{address}.{number}", role)
        else:
            yield Part("text", node=tree(content, address, budget=self._budget))

    def _block(self, part: Any, address: str, role: str) -> Iterator[Part]:
        if isinstance(part, str):
            yield from self._text(part, address, role)
        elif not isinstance(part, Mapping):
            yield Part("text", node=tree(part, address, budget=self._budget))
        elif isinstance(part.get("text"), str):
            yield from self._text(part["text"], f"{address}.{list(part).index('text')}", role)
        elif (medium := media_of(part)) is not None:
            yield Part("media", media=medium)
        elif part.get("type") in ("tool_use", "function_call"):
            yield self._call(part, address)
        else:
            yield Part("text", node=tree(part, address, budget=self._budget))

    def _text(self, text: str, address: str, role: str) -> Iterator[Part]:
        # The system's message explains the markers: folded, it would show the placeholders behind them.
        pieces = [Piece("", text)] if role in ("system", "developer") else folded(text, self._names)
        is_whole = len(pieces) == 1 and not pieces[0].name
        for piece in pieces:
            kind = "demand" if piece.is_demand else "field" if piece.name else "text"
            node = tree(piece.value, address if is_whole else "", budget=self._budget)
            yield Part(kind, visible(piece.name), node)

    def _call(self, call: Any, address: str) -> Part:
        """A call in OpenAI's form, `function` with `arguments` in JSON, or in DSPy's, `name` with `args`."""
        if not isinstance(call, Mapping):
            return Part("call", node=tree(call, address, budget=self._budget))
        inner = call.get("function")
        function: Mapping[str, Any] = inner if isinstance(inner, Mapping) else call
        arguments: Any = next((function[name] for name in ("arguments", "args", "input") if name in function), {})
        if isinstance(arguments, str):
            arguments = _read(arguments)
        node = tree(arguments, "", budget=self._budget)
        node.text = node.text or (Cut("{}") if not node.count else None)
        return Part("call", visible(str(function.get("name", ""))[:200]), node)


def _answers(payload: Payload) -> Iterator[tuple[Any, str]]:
    if payload.outputs is UNREADABLE:
        return
    if isinstance(payload.outputs, list):
        yield from ((answer, f"outputs.{number}") for number, answer in enumerate(payload.outputs))
    else:
        yield payload.outputs, "outputs"


def _examples(entries: list[Any]) -> tuple[int, int]:
    """Where the pairs of user and assistant begin and end that stand before what is asked now."""
    roles = [str(entry.get("role", "")) if isinstance(entry, Mapping) else "" for entry in entries]
    start = next((number for number, role in enumerate(roles) if role not in ("system", "developer")), len(roles))
    end = start
    while roles[end : end + 3] == ["user", "assistant", "user"] and not entries[end + 1].get("tool_calls"):
        end += 2
    return start, end


def _kept(entries: list[Any]) -> tuple[list[int], int]:
    numbers = list(range(len(entries)))
    if len(numbers) <= MAX_MESSAGES:
        return numbers, 0
    half = MAX_MESSAGES // 2
    return numbers[:half] + numbers[-half:], len(numbers) - 2 * half


def _plain(entry: Any) -> str:
    content = entry.get("content") if isinstance(entry, Mapping) else entry
    if isinstance(content, list):
        texts = (part.get("text") for part in content if isinstance(part, Mapping))
        return "\n".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def _read(arguments: str) -> Any:
    try:
        return decode(arguments)
    except MalformedBody:
        return arguments
