"""The spans of a trace as rows of one table: a tree, with the bars of a waterfall."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dspyserve.admin import wording
from dspyserve.models import Span, Trace

WIDTH = 1000
"""Of the waterfall, in the units of its bars."""
MAX_DEPTH = 12
"""Deeper spans are indented no further."""
MAX_SPANS = 2000
"""More are not shown, and the page says so."""


@dataclass(frozen=True, slots=True)
class Row:
    """One span at its place; `x` and `width` are those of its bar, out of `WIDTH`."""

    span: Span
    depth: int
    is_orphan: bool
    x: float
    width: float

    @property
    def indent(self) -> int:
        """The class of indentation."""
        return min(self.depth, MAX_DEPTH)

    @property
    def duration(self) -> str:
        """As people read it."""
        return wording.duration(self.span.duration_ms)

    @property
    def tokens(self) -> str:
        """As people read them."""
        return wording.tokens(self.span.input_tokens, self.span.output_tokens)

    @property
    def cost(self) -> str:
        """As people read it; blank for a span that has none of its own."""
        return wording.cost(self.span.cost) if self.span.kind == "lm" else ""


def rows(trace: Trace, spans: Iterable[Span]) -> list[Row]:
    """All spans, parents before their children, in the order of their starts.

    A span whose parent is missing stands at the root, marked, and never disappears; nor does one in a circle.
    """
    ordered = list(spans)
    known = {span.span_id for span in ordered}
    children: dict[str, list[Span]] = defaultdict(list)
    for span in ordered:
        children[span.parent_id if span.parent_id in known else ""].append(span)
    start, total = trace.started_at, max(trace.duration_ms or 0.0, 0.001)
    found: list[Row] = []
    for span, depth in _walk(ordered, children):
        offset = (span.started_at - start).total_seconds() * 1000
        x = min(max(offset / total, 0.0), 1.0) * WIDTH
        length = span.duration_ms if span.duration_ms is not None else max(total - offset, 0.0)
        width = min(max(length / total * WIDTH, 2.0), WIDTH - x + 2.0)
        is_orphan = bool(span.parent_id) and span.parent_id not in known
        found.append(Row(span, depth, is_orphan, round(x, 2), round(width, 2)))
    return found


def _walk(ordered: list[Span], children: dict[str, list[Span]]) -> Iterator[tuple[Span, int]]:
    seen: set[str] = set()
    # What hangs in a circle is reached from no root: every span is a start of last resort.
    for start in [*children[""], *ordered]:
        pending = [(start, 0)]
        while pending:
            span, depth = pending.pop()
            if span.span_id in seen:
                continue
            seen.add(span.span_id)
            yield span, depth
            pending.extend((child, depth + 1) for child in reversed(children[span.span_id]))
