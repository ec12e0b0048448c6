"""The vocabulary of a run: what happens in it, told as events, and the record that it leaves behind.

`execution` writes events, the doors send them on, and `tracing` makes rows of them. None of the three knows the others.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

RUN_START: Final = "run_start"
RUN_END: Final = "run_end"
RUN_ERROR: Final = "run_error"
RUN_CANCELLED: Final = "run_cancelled"
TOKEN: Final = "token"  # noqa: S105 - a piece of text, not a secret
FIELD: Final = "field"
FIELD_RESET: Final = "field_reset"
STATUS: Final = "status"

REASONING_CONTENT: Final = "reasoning_content"
"""The name under which a model's own thinking streams where no field of the predictor takes it: the providers' word."""

RECORDER_KEY: Final = "dspyserve_recorder"
"""Where DSPy's settings carry the recorder of a run: they reach `dspy.Parallel`'s threads, a ContextVar would not."""

TERMINAL: Final = frozenset({RUN_END, RUN_ERROR, RUN_CANCELLED})

PAYLOAD_KEYS: Final = frozenset({"inputs", "outputs", "messages", "parameters", "completion", "error", "signature"})
"""What an event of a span carries beyond its shape. Only callers who may see payloads get these."""

_PUBLIC_TYPES: Final = frozenset({RUN_START, TOKEN, FIELD, FIELD_RESET, STATUS}) | TERMINAL


class Constant(dict[str, Any]):
    """An object of JSON that is the program's own, which no run changes and many runs tell of."""

    __slots__ = ("cleaned",)

    cleaned: Any
    """What became of it in traces, once something has."""


@dataclass(slots=True, kw_only=True)
class Event:
    """One thing that happened in a run. Many readers share it, so nobody may change it.

    It is not frozen, because a frozen one takes four times as long to make, and every call of a run makes two. `seq`
    counts from 1 without gaps within the run; `at` is in seconds since the epoch; `data` holds what the type of
    the event carries beside the identities.
    """

    type: str
    seq: int
    trace_id: str
    at: float
    span_id: str | None = None
    parent_id: str | None = None
    name: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_terminal(self) -> bool:
        """Whether nothing can follow this event."""
        return self.type in TERMINAL

    def as_dict(self, *, payloads: bool = False) -> dict[str, Any]:
        """The event as clients get it; with `payloads` also the inputs and outputs of inner spans."""
        message: dict[str, Any] = {"type": self.type, "seq": self.seq, "trace_id": self.trace_id, "at": self.at}
        if self.span_id is not None:
            message["span_id"] = self.span_id
        if self.parent_id is not None:
            message["parent_id"] = self.parent_id
        if self.name is not None:
            message["name"] = self.name
        message.update(self.data if payloads else self.without_payloads().data)
        return message

    def without_payloads(self) -> Event:
        """The event as callers may see it who may not see the inputs and outputs of inner spans."""
        if self.type in _PUBLIC_TYPES or PAYLOAD_KEYS.isdisjoint(self.data):
            return self
        return replace(self, data={key: value for key, value in self.data.items() if key not in PAYLOAD_KEYS})


@dataclass(slots=True, kw_only=True)
class Failure:
    """How a run went wrong: `type` is the exception's class, `message` its text (for the trace only), `code` ours."""

    type: str
    message: str
    code: str
    traceback: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asked for a run, through which door, and what they want remembered with it.

    `owner` is the name of whoever may read its stream again, such as `key:3`; nobody may where it is empty.
    `trace_id` is the W3C trace id (32 hex digits) that the caller wants the trace to have, `parent_span_id` the span
    (16 hex digits) that called; where the id is taken, the trace gets one of its own and remembers it as its link.
    `replay_of` is the id of the trace that is run again.
    """

    transport: str = "python"
    owner: str = ""
    user_id: Any = None
    api_key_id: int | None = None
    batch_id: str = ""
    trace_id: str = ""
    parent_span_id: str = ""
    session_id: str = ""
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    request_id: str = ""
    replay_of: str = ""


@dataclass(slots=True, kw_only=True)
class RunRecord:
    """Everything that one execution leaves behind; a trace is built from this and from nothing else.

    Times are seconds since the epoch. `linked_trace_id` is the id that the caller wanted and that another trace has.
    `streamed` is what went out of text fields, by span id and name, of an execution that did not succeed. `status` is
    one of `dspyserve.models.Trace.Status`; `cost` is in US dollars and None where it is not known.
    """

    trace_id: uuid.UUID
    linked_trace_id: str
    program_id: int | None
    program_name: str
    version_id: int | None
    version_number: int | None
    model: str
    trace_level: str
    caller: Caller
    started_at: float
    ended_at: float
    status: str
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any] | None
    failure: Failure | None
    events: list[Event]
    first_token_at: float | None
    streamed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
