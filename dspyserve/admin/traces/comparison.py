"""What differs between two traces: facts as numbers and percentages, texts word by word, spans by what they took."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.utils.translation import gettext as _

from dspyserve.admin import wording
from dspyserve.admin.plain_text import visible
from dspyserve.admin.traces.field_texts import FieldText, field_texts
from dspyserve.admin.traces.raw import as_text
from dspyserve.admin.traces.span_tree import MAX_DEPTH, Row
from dspyserve.admin.traces.text_diff import Piece, Work, difference
from dspyserve.admin.traces.tree_diff import Pair
from dspyserve.models import Span, Trace


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
    """One field of both traces; `state` is `same`, `changed`, `removed` (only the first has it) or `added`."""

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
    ours, theirs = _by_name(one), _by_name(other)
    values = [dict(value) if isinstance(value, Mapping) else {"": value} for value in (one, other)]
    found = []
    for name in dict.fromkeys([*ours, *theirs]):
        mine, yours = ours.get(name), theirs.get(name)
        if mine is None or yours is None:
            found.append(FieldPair(name, "added" if mine is None else "removed", mine, yours))
        elif as_text(values[0].get(name)) == as_text(values[1].get(name)):
            found.append(FieldPair(name, "same", mine, yours))
        else:
            found.append(FieldPair(name, "changed", mine, yours, tuple(difference(mine.text, yours.text, work))))
    return found


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


def _by_name(value: Any) -> dict[str, FieldText]:
    return {field.name: field for field in field_texts(value)}
