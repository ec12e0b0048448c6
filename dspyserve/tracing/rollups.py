"""The figures of a time window, read from rollups: one query, whatever the number of traces."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from django.utils import timezone

from dspyserve.models import TraceRollup
from dspyserve.tracing.compaction import HOURS_KEPT
from dspyserve.tracing.figures import Figures, day_of, hour_of

MAX_HOURS: Final = datetime.timedelta(days=8)
"""The longest window that is read by the hour; longer ones are read by the day."""
STEPS: Final = {
    TraceRollup.Period.HOUR: datetime.timedelta(hours=1),
    TraceRollup.Period.DAY: datetime.timedelta(days=1),
}
_CHUNK: Final = 2_000


@dataclass(frozen=True, slots=True)
class Window:
    """From `since` up to, and without, `until`, in whole hours or days of UTC."""

    since: datetime.datetime
    until: datetime.datetime
    period: TraceRollup.Period

    @classmethod
    def around(cls, since: datetime.datetime, until: datetime.datetime) -> Window:
        """The hours, or for a long time and for one long past the days, that any of it belongs to; one at least."""
        length = until - since
        # The window before is to be read by the hour too.
        are_hours_kept = since - length > timezone.now() - HOURS_KEPT
        period = TraceRollup.Period.HOUR if length <= MAX_HOURS and are_hours_kept else TraceRollup.Period.DAY
        first, last = _floor(since, period), _floor(until, period)
        return cls(first, last if first < last == until else last + STEPS[period], period)

    @property
    def step(self) -> datetime.timedelta:
        """An hour or a day."""
        return STEPS[self.period]

    @property
    def before(self) -> Window:
        """The window of the same length that ends where this one begins."""
        return Window(self.since - (self.until - self.since), self.since, self.period)

    def starts(self, step: datetime.timedelta) -> Iterator[datetime.datetime]:
        """The beginnings of its parts of this length."""
        start = self.since
        while start < self.until:
            yield start
            start += step


@dataclass(slots=True)
class Report:
    """The figures of a window."""

    window: Window
    before: Figures = field(default_factory=Figures)
    """Those of the window before."""
    by_start: dict[datetime.datetime, Figures] = field(default_factory=dict)
    by_names: dict[tuple[str, str], Figures] = field(default_factory=dict)
    """By program and model."""
    programs: set[str] = field(default_factory=set)
    """All that occur, whatever is asked for."""
    models: set[str] = field(default_factory=set)

    @property
    def total(self) -> Figures:
        """Everything."""
        total = Figures()
        for figures in self.by_names.values():
            total.add(figures)
        return total

    @property
    def by_program(self) -> dict[str, Figures]:
        """On all models."""
        return self._by_name(0)

    @property
    def by_model(self) -> dict[str, Figures]:
        """Of all programs."""
        return self._by_name(1)

    def _by_name(self, place: int) -> dict[str, Figures]:
        found: dict[str, Figures] = {}
        for names, figures in self.by_names.items():
            found.setdefault(names[place], Figures()).add(figures)
        return found

    def series(self, step: datetime.timedelta) -> list[tuple[datetime.datetime, Figures]]:
        """The figures of parts of this length, empty ones included."""
        parts = {start: Figures() for start in self.window.starts(step)}
        for start, figures in self.by_start.items():
            parts[start - (start - self.window.since) % step].add(figures)
        return list(parts.items())


def read(window: Window, *, program: str | None = None, model: str | None = None) -> Report:
    """The figures of `window`, of one program and on one model where they are given."""
    report = Report(window)
    for row in _rows(window):
        report.programs.add(row.program_name)
        report.models.add(row.model)
        if program not in (None, row.program_name) or model not in (None, row.model):
            continue
        figures = Figures.of_row(row)
        if row.start < window.since:
            report.before.add(figures)
        else:
            report.by_start.setdefault(row.start, Figures()).add(figures)
            report.by_names.setdefault((row.program_name, row.model), Figures()).add(figures)
    return report


def of_program(name: str, windows: Sequence[Window]) -> list[Figures]:
    """The figures of one program in each of `windows`, which are of the same period: one query, of its rows alone."""
    first, last = min(window.since for window in windows), max(window.until for window in windows)
    found = TraceRollup.objects.filter(period=windows[0].period, start__gte=first, start__lt=last, program_name=name)
    sums = [Figures() for _ in windows]
    for row in found.order_by().iterator(_CHUNK):
        for window, figures in zip(windows, sums, strict=True):
            if window.since <= row.start < window.until:
                figures.add(Figures.of_row(row))
    return sums


def _rows(window: Window) -> Iterable[TraceRollup]:
    found = TraceRollup.objects.filter(period=window.period, start__gte=window.before.since, start__lt=window.until)
    return found.order_by().iterator(_CHUNK)


def _floor(time: datetime.datetime, period: TraceRollup.Period) -> datetime.datetime:
    return day_of(time) if period == TraceRollup.Period.DAY else hour_of(time)
