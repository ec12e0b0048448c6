"""What traces add up to."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from dspyserve.models import Trace, TraceRollup
from dspyserve.tracing import histogram
from dspyserve.tracing.histogram import Histogram

FAILURES: Final = frozenset({Trace.Status.FAILED, Trace.Status.TIMED_OUT, Trace.Status.ABANDONED})
"""Who cancels, changed their mind: nothing failed."""

COLUMNS: Final = (
    "program_name",
    "model",
    "status",
    "started_at",
    "duration_ms",
    "first_token_ms",
    "input_tokens",
    "output_tokens",
    "cost",
)
"""The columns of a trace that its figures are made from."""


_NUMBERS: Final = ("traces", "failures", "input_tokens", "output_tokens", "cost", "unpriced")


class Key(NamedTuple):
    """What figures are of: one program on one model in one period, which begins at `start`."""

    period: str
    start: datetime.datetime
    program_name: str
    model: str


@dataclass(slots=True)
class Figures:
    """The figures of some traces. They can be added to others, and taken away again."""

    traces: int = 0
    failures: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    """US dollars, as far as known: `unpriced` traces cost something that nobody knows."""
    unpriced: int = 0
    durations: Histogram = field(default_factory=dict)
    first_tokens: Histogram = field(default_factory=dict)

    @classmethod
    def of_row(cls, row: TraceRollup) -> Figures:
        """Those that are stored in `row`, whose histograms it shares."""
        return cls(**{name: getattr(row, name) for name in cls.__slots__})

    def count(self, trace: Mapping[str, Any]) -> None:
        """Add one trace, given by its columns."""
        self.traces += 1
        self.failures += trace["status"] in FAILURES
        self.input_tokens += trace.get("input_tokens") or 0
        self.output_tokens += trace.get("output_tokens") or 0
        self.cost += trace.get("cost") or 0.0
        self.unpriced += trace.get("cost") is None
        histogram.add(self.durations, trace.get("duration_ms"))
        histogram.add(self.first_tokens, trace.get("first_token_ms"))

    def add(self, other: Figures, times: int = 1) -> None:
        """Add `other`, or with `times` -1 take it away."""
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + times * getattr(other, name))
        histogram.merge(self.durations, other.durations, times)
        histogram.merge(self.first_tokens, other.first_tokens, times)

    @property
    def known_cost(self) -> float | None:
        """US dollars, of all traces or of some; None where nobody knows of any."""
        return None if self.traces and self.unpriced == self.traces else self.cost

    def not_negative(self) -> Figures:
        """The same where a number is positive, otherwise zero."""
        figures = Figures(**{name: max(getattr(self, name), 0) for name in _NUMBERS})
        figures.durations = {key: count for key, count in self.durations.items() if count > 0}
        figures.first_tokens = {key: count for key, count in self.first_tokens.items() if count > 0}
        return figures

    def copy(self) -> Figures:
        """The same, independent of this."""
        return replace(self, durations=dict(self.durations), first_tokens=dict(self.first_tokens))


def keys_of(trace: Mapping[str, Any]) -> Iterator[Key]:
    """The hour and the day, in UTC, in which the trace with these columns began."""
    start = hour_of(moment(trace["started_at"]))
    program_name, model = trace["program_name"], trace.get("model") or ""
    yield Key(TraceRollup.Period.HOUR, start, program_name, model)
    yield Key(TraceRollup.Period.DAY, day_of(start), program_name, model)


def moment(value: datetime.datetime | str) -> datetime.datetime:
    """The time that `value` is: text, where the columns have been on disk."""
    return value if isinstance(value, datetime.datetime) else datetime.datetime.fromisoformat(value)


def hour_of(time: datetime.datetime) -> datetime.datetime:
    """The beginning of its hour, in UTC."""
    return time.astimezone(datetime.UTC).replace(minute=0, second=0, microsecond=0)


def day_of(time: datetime.datetime) -> datetime.datetime:
    """The beginning of its day, in UTC."""
    return hour_of(time).replace(hour=0)


def key_of(row: TraceRollup) -> Key:
    """What the figures in `row` are of."""
    return Key(*(getattr(row, name) for name in Key._fields))


def columns_of(key: Key, figures: Figures, writer: str) -> dict[str, Any]:
    """The columns of the row in which `writer` stores `figures`."""
    return {**key._asdict(), "writer": writer, **{name: getattr(figures, name) for name in Figures.__slots__}}


def row_of(key: Key, figures: Figures, writer: str) -> TraceRollup:
    """That row, not saved yet."""
    return TraceRollup(**columns_of(key, figures, writer))
