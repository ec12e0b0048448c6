"""The tables of the report: readings of servers, and ratios of two of them beside what they should be."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.load.report import spread, table
from tests.load.serving.readings import Series

READINGS: Final = ("requests/s", "p50, ms", "p99, ms", "CPU per request, ms", "RSS, MiB")
"""Heads of what `cells` says."""


def cells(series: Series) -> tuple[str, ...]:
    """Medians of the rounds, with least and most."""
    return (
        spread(series.speed, digits=0),
        spread(series.median, 1e3, digits=0 if statistics.median(series.median) > 1 else 1),
        spread(series.p99, 1e3, digits=0 if statistics.median(series.p99) > 1 else 1),
        spread(series.cpu, 1e3, digits=2),
        spread(series.rss, 2**-20, digits=0),
    )


@dataclass(frozen=True, slots=True)
class Ratio:
    """What is divided, ours by theirs, and where the quotient should be; None where nothing is asked for."""

    head: str
    reading: Callable[[Series], Sequence[float]]
    most: float | None = None
    least: float | None = None

    def target(self) -> str:
        """As people read it."""
        if self.most is not None:
            return f"≤ {self.most}"
        return f"≥ {self.least}" if self.least is not None else "–"

    def is_met(self, quotient: float) -> bool:
        """Whether the quotient is where it should be."""
        return (self.most is None or quotient <= self.most) and (self.least is None or quotient >= self.least)


def ratios(cpu: float | None = None, speed: float | None = None, p99: float | None = None) -> tuple[Ratio, ...]:
    """Of CPU, requests per second and p99, with the targets that are given."""
    return (
        Ratio("CPU per request", lambda series: series.cpu, most=cpu),
        Ratio("requests/s", lambda series: series.speed, least=speed),
        Ratio("p99", lambda series: series.p99, most=p99),
    )


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two servers that did the same in the same rounds."""

    case: str
    ours: Series
    theirs: Series
    ratios: Sequence[Ratio]


def print_ratios(comparisons: Iterable[Comparison], *, judged: bool) -> None:
    """The quotients of the medians, those of the rounds, and the targets, `judged` or not."""
    heads = ["case", "ours / theirs", "of", "ratio of the medians", "ratios of the rounds", "target"]
    rows = [
        (each.case, f"{each.ours.name} / {each.theirs.name}", *_quotient(each, ratio, judged=judged))
        for each in comparisons
        for ratio in each.ratios
    ]
    table(heads, rows)


def _quotient(comparison: Comparison, ratio: Ratio, *, judged: bool) -> tuple[str, ...]:
    ours, theirs = ratio.reading(comparison.ours), ratio.reading(comparison.theirs)
    quotient = statistics.median(ours) / statistics.median(theirs)
    each = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    target = ratio.target()
    if judged and target != "–":
        target += ", met" if ratio.is_met(round(quotient, 2)) else ", missed"
    return ratio.head, f"{quotient:.2f}", f"{min(each):.2f}–{max(each):.2f}", target
