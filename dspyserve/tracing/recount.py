"""Rollups made from the traces: after an import, or for traces that were stored before there were rollups.

Other processes may store traces meanwhile. What they add, they add to the traces and to rows of their own, so that the
difference of both stays the same: it is what the rows of the writer "" have to hold.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.db import connections, transaction

from dspyserve.models import Trace, TraceRollup
from dspyserve.tracing import store
from dspyserve.tracing.compaction import HOURS_KEPT, added_up, final_rows, replace
from dspyserve.tracing.figures import COLUMNS, Figures, Key, day_of, keys_of
from dspyserve.tracing.tally import open_since

_CHUNK: Final = 2_000
_HOUR: Final = datetime.timedelta(hours=1)
_DAY: Final = datetime.timedelta(days=1)

FigureTable = dict[Key, Figures]


def stored_days() -> tuple[datetime.datetime, datetime.datetime] | None:
    """The first and the last day, in UTC, of which traces are stored; None where there are none."""
    times = Trace.objects.using(store.database()).order_by("started_at", "pk").values_list("started_at", flat=True)
    first, last = times.first(), times.last()
    return (day_of(first), day_of(last)) if first and last else None


def recount(day: datetime.datetime, *, exactly: bool = False) -> int | None:
    """Make the rollups of the day, in UTC, from its traces: how many these are, or None where another process made
    rollups at the same time, and nothing was done.

    Traces that were deleted are not counted any more: where a figure would shrink, the former one stays, unless
    `exactly` this is wanted.
    """
    limit = open_since()
    counted: FigureTable = {}
    traces = 0
    for hour in range(24):
        traces += _count_hour(day + hour * _HOUR, limit, counted)
    rows = list(final_rows(limit).filter(start__gte=day, start__lt=day + _DAY))
    known = added_up(rows)
    made = {**({} if exactly else known), **{key: each for key, each in counted.items() if each.traces > 0}}
    if not exactly:
        made |= {key: each for key, each in known.items() if each.traces > made[key].traces}
    is_recent = day >= day_of(datetime.datetime.now(datetime.UTC) - HOURS_KEPT)
    kept = {key: each for key, each in made.items() if is_recent or key.period == TraceRollup.Period.DAY}
    return traces if replace(rows, kept) else None


def _count_hour(start: datetime.datetime, limit: str, counted: FigureTable) -> int:
    """Add to `counted` the traces of an hour that are in no row of a writer that may still write; how many there are
    in all.
    """
    found: FigureTable = {}
    number = 0
    with _snapshot() as alias:
        for trace in _traces(alias, start):
            number += 1
            for key in keys_of(trace):
                found.setdefault(key, Figures()).count(trace)
        open_rows = TraceRollup.objects.using(alias).filter(period=TraceRollup.Period.HOUR, start=start)
        for key, figures in added_up(open_rows.filter(writer__gte=limit)).items():
            for each in (key, key._replace(period=TraceRollup.Period.DAY, start=day_of(start))):
                found.setdefault(each, Figures()).add(figures, -1)
    for key, figures in found.items():
        counted.setdefault(key, Figures()).add(figures.not_negative())
    return number


@contextmanager
def _snapshot() -> Iterator[str]:
    """A transaction in which every query sees the same; the alias of its database."""
    alias = store.database()
    with transaction.atomic(using=alias):
        if connections[alias].vendor == "postgresql":
            with connections[alias].cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        yield alias


def _traces(alias: str, start: datetime.datetime) -> Iterator[dict[str, Any]]:
    found = Trace.objects.using(alias).filter(started_at__gte=start, started_at__lt=start + _HOUR).order_by()
    yield from found.values(*COLUMNS).iterator(_CHUNK)
