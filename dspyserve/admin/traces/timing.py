"""Arithmetic of a waterfall: time that is a span's own, and the path that the whole run waited for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

_SLACK: Final = 0.05
"""The part of its length that a span may overlap its successor: clocks are not that exact."""


@dataclass(frozen=True, slots=True)
class Interval:
    """From `start` to `end`, in milliseconds from the start of the trace."""

    start: float
    end: float

    @property
    def length(self) -> float:
        """In milliseconds."""
        return self.end - self.start


def self_time(own: Interval, children: Iterable[Interval]) -> float:
    """How long none of `children` was running; those that ran side by side count once."""
    covered, reached = 0.0, own.start
    for child in sorted(children, key=lambda child: child.start):
        start, end = max(child.start, reached), min(child.end, own.end)
        if end > start:
            covered += end - start
            reached = end
    return max(own.length - covered, 0.0)


def critical_path(intervals: Sequence[Interval], children: Sequence[Sequence[int]], root: int) -> set[int]:
    """What `root` waited for: of all its children the last to end, before that the last to end before it began, ..."""
    found: set[int] = set()
    pending = [root]
    while pending:
        current = pending.pop()
        found.add(current)
        reached = intervals[current].end
        for child in sorted(children[current], key=lambda child: intervals[child].end, reverse=True):
            interval = intervals[child]
            end = min(interval.end, intervals[current].end)
            if interval.start < reached and end - reached <= _SLACK * interval.length:
                pending.append(child)
                reached = interval.start
    return found
