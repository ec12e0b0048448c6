"""The spans of a trace as rows of one table: a tree, with the bars of a waterfall."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from django.utils.translation import gettext as _

from dspyserve.admin import wording
from dspyserve.admin.plain_text import visible
from dspyserve.admin.traces.timing import Interval, critical_path, self_time
from dspyserve.models import Span, Trace

WIDTH = 1000
"""Of the waterfall, in the units of its bars."""
MAX_DEPTH = 12
"""Deeper spans are indented no further."""
MAX_SPANS = 2000
"""More are not shown, and the page says so."""
_LEAST: Final = 3.0
"""The width of the shortest bar."""


@dataclass(slots=True)
class Row:
    """One span at its place, below the row of the number `parent`.

    `x`, `width` and `tick` (its first token) are those of its bar, out of `WIDTH`. Tokens and cost are those of the
    span and of all below it.
    """

    span: Span
    depth: int
    parent: int | None = None
    is_orphan: bool = False
    is_critical: bool = False
    has_children: bool = False
    x: float = 0.0
    width: float = 0.0
    tick: float | None = None
    self_ms: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: float | None = None
    lm_calls: int = 0

    @property
    def name(self) -> str:
        """The span's, as it may be shown."""
        return visible(self.span.name)

    @property
    def error_type(self) -> str:
        """The span's, as it may be shown."""
        return visible(self.span.error_type)

    @property
    def indent(self) -> int:
        """The class of indentation."""
        return min(self.depth, MAX_DEPTH)

    @property
    def level(self) -> int:
        """The depth, counted from 1 as readers of screens do."""
        return self.depth + 1

    @property
    def is_deep(self) -> bool:
        """Whether the indentation no longer tells the depth."""
        return self.depth > MAX_DEPTH

    @property
    def duration(self) -> str:
        """As people read it."""
        return wording.duration(self.span.duration_ms)

    @property
    def self_time(self) -> str:
        """The time that no child accounts for; blank for a span without children, whose time is all its own."""
        return wording.duration(self.self_ms) if self.has_children and self.self_ms is not None else ""

    @property
    def tokens(self) -> str:
        """As people read them; blank where no language model was called."""
        return self._sum(wording.tokens(self.input_tokens, self.output_tokens))

    @property
    def price(self) -> str:
        """As people read it; blank where no language model was called."""
        return self._sum(wording.cost(self.cost))

    @property
    def hint(self) -> str:
        """The bar in words."""
        told = [self.duration]
        if self.self_time:
            told.append(_("%s of its own") % self.self_time)
        if self.span.first_token_ms is not None:
            told.append(_("first token after %s") % wording.duration(self.span.first_token_ms))
        if self.is_critical:
            told.append(_("on the critical path"))
        return " · ".join(told)

    def _sum(self, text: str) -> str:
        if not self.lm_calls:
            return ""
        return text if self.span.kind == "lm" or text == "–" else f"∑ {text}"


@dataclass(frozen=True, slots=True)
class Picture:
    """All rows, how long all of it took, and the times at the marks of the waterfall's scale."""

    rows: list[Row]
    total_ms: float
    scale: list[str]

    @property
    def errors(self) -> int:
        """How many of the rows failed."""
        return sum(row.span.status == Span.Status.ERROR for row in self.rows)


def picture(trace: Trace, spans: Iterable[Span]) -> Picture:
    """All spans, parents before their children, in the order of their starts.

    A span whose parent is missing stands at the root, marked, and never disappears; nor does one in a circle.
    """
    rows = _walk(list(spans))
    below: list[list[int]] = [[] for _row in rows]
    for index, row in enumerate(rows):
        if row.parent is not None:
            below[row.parent].append(index)
    intervals, total = _intervals(trace, rows)
    for index, row in enumerate(rows):
        _draw(row, intervals[index], total)
        row.has_children = bool(below[index])
        row.self_ms = self_time(intervals[index], (intervals[child] for child in below[index]))
    _mark_path(rows, intervals, below)
    _sum_up(rows)
    return Picture(rows, total, ["0", *(wording.duration(total * part / 4) for part in range(1, 5))])


def _walk(ordered: list[Span]) -> list[Row]:
    known = {span.span_id for span in ordered}
    children: dict[str, list[Span]] = defaultdict(list)
    for span in ordered:
        children[span.parent_id if span.parent_id in known else ""].append(span)
    rows: list[Row] = []
    seen: set[int] = set()
    # What hangs in a circle is reached from no root: every span is a start of last resort.
    for start in [*children[""], *ordered]:
        pending: list[tuple[Span, int, int | None]] = [(start, 0, None)]
        while pending:
            span, depth, parent = pending.pop()
            if span.sequence not in seen:
                seen.add(span.sequence)
                # The parent of the run itself is that of whoever called, elsewhere.
                is_orphan = bool(span.parent_id) and span.parent_id not in known and span.kind != "run"
                pending.extend((child, depth + 1, len(rows)) for child in reversed(children[span.span_id]))
                rows.append(Row(span, depth, parent, is_orphan=is_orphan))
    return rows


def _intervals(trace: Trace, rows: list[Row]) -> tuple[list[Interval], float]:
    """When each row began and ended, and how long all of it took; what has not ended lasts until the end."""
    starts = [max((row.span.started_at - trace.started_at).total_seconds() * 1000, 0.0) for row in rows]
    ends = [start + (row.span.duration_ms or 0.0) for start, row in zip(starts, rows, strict=True)]
    total = max([trace.duration_ms or 0.0, 0.001, *ends])
    is_open = [row.span.duration_ms is None for row in rows]
    return [Interval(start, total if is_open[i] else ends[i]) for i, start in enumerate(starts)], total


def _draw(row: Row, interval: Interval, total: float) -> None:
    row.x = round(min(interval.start / total * WIDTH, WIDTH - _LEAST), 2)
    row.width = round(min(max(interval.length / total * WIDTH, _LEAST), WIDTH - row.x), 2)
    if row.span.first_token_ms is not None:
        row.tick = round(min((interval.start + row.span.first_token_ms) / total * WIDTH, WIDTH), 2)


def _mark_path(rows: list[Row], intervals: list[Interval], below: list[list[int]]) -> None:
    path = critical_path(intervals, below, 0) if rows else set()
    # Where everything waits for everything there is nothing to tell.
    if len(path) < len(rows):
        for index in path:
            rows[index].is_critical = True


def _sum_up(rows: list[Row]) -> None:
    """Children stand behind their parents: from the last to the first, every sum is whole when it is added."""
    for row in reversed(rows):
        span = row.span
        if span.kind == "lm":
            row.cost = span.cost if not row.lm_calls else _both(row.cost, span.cost)
            row.lm_calls += 1
            row.input_tokens = _added(row.input_tokens, span.input_tokens)
            row.output_tokens = _added(row.output_tokens, span.output_tokens)
        if row.parent is not None and row.lm_calls:
            parent = rows[row.parent]
            parent.cost = row.cost if not parent.lm_calls else _both(parent.cost, row.cost)
            parent.lm_calls += row.lm_calls
            parent.input_tokens = _added(parent.input_tokens, row.input_tokens)
            parent.output_tokens = _added(parent.output_tokens, row.output_tokens)


def _added(one: int | None, other: int | None) -> int | None:
    return one if other is None else other if one is None else one + other


def _both(one: float | None, other: float | None) -> float | None:
    """A sum with something unknown in it is unknown, as that of the trace."""
    return None if one is None or other is None else one + other
