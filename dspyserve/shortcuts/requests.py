"""Requests of texts alone, which is what most are: made without looking for everything else that one may hold."""

from __future__ import annotations

from collections.abc import Mapping
from functools import wraps
from typing import Any, Final

from dspy.clients import execution
from dspy.lm15 import Config, Message, Request, TextPart

from dspyserve.shortcuts.memory import recall, remember

_SPEAKERS: Final = frozenset({"user", "assistant"})
_NAMES: Final = frozenset({"role", "content"})


def make_plain_requests_directly() -> None:
    """Read the settings of a request once for a model, and its messages without the questions that texts answer."""
    stock = execution.request_from_openai_chat
    known: dict[Any, tuple[Any, Config]] = {}
    _ = Request.__dataclass_fields__["config"], Message.__dataclass_fields__["parts"], TextPart.__dataclass_fields__

    @wraps(stock)
    def request_from_openai_chat(body: Mapping[str, Any], *, compat: Any = None) -> Any:
        rows = body.get("messages") if type(body) is dict else None
        if type(rows) is not list or not _are_plain(rows):
            return stock(body, compat=compat)
        # With the types, for 1 equals True.
        key = id(compat), *((name, type(value), value) for name, value in body.items() if name != "messages")
        found = recall(known, key)
        if found is None:
            request = stock(body, compat=compat)
            if not request.tools and request.config.extensions is None:
                # What is known by its id has to stay.
                remember(known, key, (compat, request.config))
            return request
        first = rows[0]
        system = first["content"] if first["role"] == "system" else None
        messages = [Message(row["role"], (TextPart(row["content"]),)) for row in (rows if system is None else rows[1:])]
        return Request(model=body["model"], messages=tuple(messages), system=system, config=found[1])

    execution.request_from_openai_chat = request_from_openai_chat


def _are_plain(rows: list[Any]) -> bool:
    """Whether these are messages of users and assistants, perhaps behind a system message, with a text each."""
    for number, row in enumerate(rows):
        if type(row) is not dict or row.keys() != _NAMES or type(row["content"]) is not str or not row["content"]:
            return False
        if row["role"] not in _SPEAKERS and (number or row["role"] != "system"):
            return False
    return bool(rows)


ALL = (make_plain_requests_directly,)
