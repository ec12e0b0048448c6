"""What differs between two traces: facts as numbers and percentages, texts word by word, spans by what they took."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from django.utils.translation import gettext as _

from dspyserve.admin import wording
from dspyserve.admin.plain_text import visible
from dspyserve.admin.traces.field_texts import MAX_FIELDS, FieldText, by_name, field_text, left_out
from dspyserve.admin.traces.payloads import UNREADABLE
from dspyserve.admin.traces.raw import as_text
from dspyserve.admin.traces.span_tree import MAX_DEPTH, Row
from dspyserve.admin.traces.text_diff import Piece, Work, difference
from dspyserve.admin.traces.tree_diff import Pair
from dspyserve.models import Span, Trace

_MISSING: Final = object()
"""Says that a payload has no such field, which is not the same as null."""


@dataclass(frozen=True, slots=True)
class Change:
    """How a number differs: `text` says by how much, `direction` is `more`, `less` or nothing."""

    text: str = ""
    direction: str = ""

    @property
    def symbol(self) -> str:
        """Beside the number, so that colour says nothing alone."""
        return {"more": "▲", "less": "▼"}.get(self.direction, "")


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact of both traces."""

    name: str
    one: str
    other: str
    change: Change = Change()

    @property
    def differs(self) -> bool:
        """Whether it is not the same of both."""
        return self.one != self.other or bool(self.change.direction)


@dataclass(frozen=True, slots=True)
class FieldPair:
    """One field of both traces.

    `state` is `same`, `changed`, `removed` (only the first has it), `added`, or `unknown` where it is not compared.
    """

    name: str
    state: str
    one: FieldText | None
    other: FieldText | None
    pieces: tuple[Piece, ...] = ()

    @property
    def left(self) -> list[Piece]:
        """The first trace's text, with what the second one lacks marked."""
        return [piece for piece in self.pieces if piece.kind != "added"]

    @property
    def right(self) -> list[Piece]:
        """The second trace's text, with what the first one lacks marked."""
        return [piece for piece in self.pieces if piece.kind != "removed"]


@dataclass(frozen=True, slots=True)
class SpanRow:
    """One place of both trees with what it took in each."""

    pair: Pair

    @property
    def name(self) -> str:
        """The span's, as it may be shown."""
        return self.pair.row.name

    @property
    def indent(self) -> int:
        """The class of indentation."""
        return min(self.pair.depth, MAX_DEPTH)

    @property
    def state(self) -> str:
        """`both`, or which of the two alone has it: `removed` or `added`."""
        return "both" if self.pair.one and self.pair.other else "removed" if self.pair.one else "added"

    @property
    def failures(self) -> list[str]:
        """The sides on which it failed."""
        sides = (("A", self.pair.one), ("B", self.pair.other))
        return [side for side, row in sides if row is not None and row.span.status == Span.Status.ERROR]

    @property
    def measures(self) -> list[Fact]:
        """Duration, and the tokens and the cost of the span and of all below it."""
        one, other = self.pair.one, self.pair.other
        return [
            _measured(name, read(one) if one else None, read(other) if other else None, write)
            for name, read, write in _MEASURES
        ]


def facts(one: Trace, other: Trace) -> list[Fact]:
    """What is told of both."""
    return [*_texts(one, other), *_numbers(one, other)]


def fields(one: Any, other: Any, work: Work) -> list[FieldPair]:
    """The fields of two payloads, those of the first in its order and then what only the second has."""
    ours, theirs = by_name(one), by_name(other)
    names = list(dict.fromkeys([*ours, *theirs]))
    found = [_pair(name, ours.get(name, _MISSING), theirs.get(name, _MISSING), work) for name in names[:MAX_FIELDS]]
    if len(names) > MAX_FIELDS:
        more = left_out(len(names) - MAX_FIELDS)
        found.append(FieldPair(more.name, "unknown", more, more))
    return found


def _pair(name: str, mine: Any, yours: Any, work: Work) -> FieldPair:
    one, other = (None if value is _MISSING else field_text(name, value) for value in (mine, yours))
    if one is None or other is None:
        known = one or other
        assert known is not None, "a field of neither"
        return FieldPair(known.name, "added" if one is None else "removed", one, other)
    if mine is UNREADABLE or yours is UNREADABLE:
        return FieldPair(one.name, "unknown", one, other)
    if as_text(mine) == as_text(yours):
        return FieldPair(one.name, "same", one, other)
    return FieldPair(one.name, "changed", one, other, tuple(difference(one.text, other.text, work)))


def change(one: float | None, other: float | None, write: Callable[[float], str]) -> Change:
    """From `one` to `other`, in the number's own unit and in percent; nothing where one of them is not known."""
    if one is None or other is None or one == other:
        return Change()
    by = other - one
    sign = "+" if by > 0 else "−"
    percent = f" ({sign}{_percent(abs(by) / abs(one))})" if one else ""
    return Change(f"{sign}{write(abs(by))}{percent}", "more" if by > 0 else "less")


def _percent(ratio: float) -> str:
    if ratio >= 10:
        return f"×{ratio + 1:.0f}"
    return f"{ratio * 100:.0f} %" if ratio >= 0.1 else f"{ratio * 100:.1f} %"


def _texts(one: Trace, other: Trace) -> Iterator[Fact]:
    readers: list[tuple[str, Callable[[Trace], Any]]] = [
        (_("Program"), lambda trace: trace.program_name),
        (_("Version"), lambda trace: f"v{trace.version_number}" if trace.version_number else ""),
        (_("Status"), lambda trace: trace.get_status_display()),
        (_("Error"), lambda trace: trace.error_type),
        (_("Model"), lambda trace: trace.model),
        (_("Environment"), lambda trace: trace.environment),
        (_("Caller"), lambda trace: trace.user or trace.api_key or ""),
        (_("Session"), lambda trace: trace.session_id),
        (_("Tags"), lambda trace: ", ".join(map(str, trace.tags))),
    ]
    for name, read in readers:
        left, right = (visible(str(read(trace))) or "–" for trace in (one, other))
        if (left, right) != ("–", "–"):
            yield Fact(name, left, right)


def _numbers(one: Trace, other: Trace) -> Iterator[Fact]:
    columns: list[tuple[str, str, Callable[[Any], str]]] = [
        (_("Duration"), "duration_ms", wording.duration),
        (_("First token"), "first_token_ms", wording.duration),
        (_("Input tokens"), "input_tokens", _count),
        (_("Output tokens"), "output_tokens", _count),
        (_("Cached tokens"), "cached_tokens", _count),
        (_("Cost"), "cost", wording.cost),
        (_("LM calls"), "lm_calls", _count),
        (_("Spans"), "span_count", _count),
        (_("Errors"), "error_count", _count),
    ]
    for name, column, write in columns:
        fact = _measured(name, getattr(one, column), getattr(other, column), write)
        if {fact.one, fact.other} != {"–"}:
            yield fact


def _measured(name: str, one: float | None, other: float | None, write: Callable[[Any], str]) -> Fact:
    left, right = write(one), write(other)
    # What reads the same is the same to a reader.
    return Fact(name, left, right, Change() if left == right else change(one, other, write))


def _count(number: float | None) -> str:
    return "–" if number is None else f"{number:.0f}"


def _tokens(row: Row) -> int | None:
    known = [count for count in (row.input_tokens, row.output_tokens) if count is not None]
    return sum(known) if known else None


_MEASURES: Final[list[tuple[str, Callable[[Row], float | None], Callable[[Any], str]]]] = [
    ("duration", lambda row: row.span.duration_ms, wording.duration),
    ("tokens", _tokens, _count),
    ("cost", lambda row: row.cost if row.lm_calls else None, wording.cost),
]
