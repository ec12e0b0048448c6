"""What a prompt may ask of the provider: ``@@name=value@@`` anywhere in its last user message.

A directive travels wherever the text goes: a program of two steps obeys it in the second step as well when the first
step's echo is an input of the second. The first occurrence of a name counts.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

_DIRECTIVE = re.compile(r"@@(\w+)=(.*?)@@", re.DOTALL)


class DirectiveError(ValueError):
    """A directive nobody knows, or whose value cannot be read: most likely a mistake in a test."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Directives:
    """How to answer one request; the defaults answer it properly and at once."""

    delay: float | None = None
    """Seconds before the answer; the server's own latency when None."""
    token_delay: float | None = None
    """Seconds after each chunk of a stream; the server's own when None."""
    status: int | None = None
    """HTTP status of an error answer, in OpenAI's shape."""
    error: str | None = None
    """``context_length``: the error OpenAI sends for a prompt that does not fit the model. ``echo``: one that repeats
    the key and the prompt, as some providers do."""
    retry_after: str | None = None
    """Value of the Retry-After header of an error answer."""
    fail_times: int | None = None
    """How many requests with this ``id`` fail (with 503 unless another failure is asked for) before one succeeds."""
    fail_after: int | None = None
    """How many requests with this ``id`` succeed before all others fail."""
    id: str = ""
    """Names the requests that ``fail_times`` and ``fail_after`` count."""
    garbage: bool = False
    """Answer with a completion that no adapter can parse."""
    invalid_json: bool = False
    """Answer 200 with a body (or an event) that is not JSON."""
    hang: bool = False
    """Never answer."""
    reset: bool = False
    """Close the connection without an answer."""
    cut: int | None = None
    """Close the connection after so many content chunks of a stream."""
    stall: int | None = None
    """Send nothing more after so many content chunks of a stream, and keep the connection."""
    error_after: int | None = None
    """Send an error, of ``error_status``, as an event of the stream after so many content chunks, and end it."""
    error_status: int = 429
    """What ``error_after`` fails with; the event has no HTTP status of its own, only the code that goes with it."""
    garbage_after: int | None = None
    """Send an event that is not JSON after so many content chunks of a stream, and end it."""
    undone: bool = False
    """Close the connection after the usage of a stream, before its ``[DONE]``."""
    fields: int | None = None
    """How many of the fields are written: an answer that breaks off between two of them."""
    answer: str | None = None
    """The exact text of every string field."""
    words: int | None = None
    """How many words every string field has."""
    reasoning_content: str | None = None
    """The model's thinking, sent beside the content as reasoning models do."""
    finish: str = "stop"
    """``finish_reason`` of every choice."""
    chunk: int | None = None
    """Characters per chunk of a stream; words when None."""
    cached: int | None = None
    """``prompt_tokens_details.cached_tokens`` of the usage."""

    @property
    def fails(self) -> bool:
        """Whether the answer is a failure of some kind, that of ``fail_times`` aside."""
        return self != self.healed()

    def healed(self) -> "Directives":
        """The same without any failure, as a provider that works again."""
        return replace(self, **_HEALTHY)


_HEALTHY: dict[str, Any] = {
    "status": None,
    "error": None,
    "garbage": False,
    "invalid_json": False,
    "hang": False,
    "reset": False,
    "cut": None,
    "stall": None,
    "error_after": None,
    "garbage_after": None,
    "undone": False,
    "fields": None,
}
_NONE = Directives()


def read_directives(text: str) -> Directives:
    """The directives in a text; DirectiveError for one that is not known or not readable."""
    if "@@" not in text:
        return _NONE
    found: dict[str, Any] = {}
    for name, value in _DIRECTIVE.findall(text):
        found.setdefault(name, _read(name, value))
    return Directives(**found)


def _read(name: str, value: str) -> Any:
    reader = _READERS.get(name)
    if reader is None:
        raise DirectiveError(f"unknown directive: {name}")
    try:
        return reader(value)
    except ValueError as exc:
        raise DirectiveError(f"directive {name} cannot be {value!r}") from exc


def _flag(value: str) -> bool:
    return bool(int(value))


_READERS: dict[str, Callable[[str], Any]] = {
    "delay": float,
    "token_delay": float,
    "status": int,
    "error": str,
    "retry_after": str,
    "fail_times": int,
    "fail_after": int,
    "id": str,
    "garbage": _flag,
    "invalid_json": _flag,
    "hang": _flag,
    "reset": _flag,
    "cut": int,
    "stall": int,
    "error_after": int,
    "error_status": int,
    "garbage_after": int,
    "undone": _flag,
    "fields": int,
    "answer": str,
    "words": int,
    "reasoning_content": str,
    "finish": str,
    "chunk": int,
    "cached": int,
}
