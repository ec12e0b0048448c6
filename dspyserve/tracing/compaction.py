"""Many rows of rollups made few, while other processes go on writing theirs.

Rows of writers that write no more are final, and so are those of the writer "", which nobody is. Only final rows are
taken, and rows of the writer "" put in their place.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from dspyserve.models import TraceRollup
from dspyserve.tracing import store
from dspyserve.tracing.figures import Figures, Key, hour_of, key_of, row_of
from dspyserve.tracing.tally import open_since

HOURS_KEPT: Final = datetime.timedelta(days=31)
"""How long figures are kept by the hour; those by the day are kept for ever."""


def compact() -> tuple[int, int]:
    """Merge the rows of several writers, and let go of hours that are too old: how many rows went, and came instead.

    It may be run at any time, also twice at once.
    """
    limit, came = open_since(), 0
    # Hours that are let go of need not be merged before.
    went = _drop_old_hours(limit)
    unmerged = final_rows(limit).exclude(writer="").order_by()
    for period, start in list(unmerged.values_list("period", "start").distinct()):
        rows = list(final_rows(limit).filter(period=period, start=start))
        merged = added_up(rows)
        if replace(rows, merged):
            went, came = went + len(rows), came + len(merged)
    return went, came


def final_rows(limit: str) -> QuerySet[TraceRollup]:
    """The rows that nobody writes any more, where `limit` is the least id of a writer that may."""
    return TraceRollup.objects.using(store.database()).filter(writer__lt=limit)


def added_up(rows: Iterable[TraceRollup]) -> dict[Key, Figures]:
    """The figures of `rows` without their writers."""
    found: dict[Key, Figures] = {}
    for row in rows:
        found.setdefault(key_of(row), Figures()).add(Figures.of_row(row))
    return found


def replace(rows: Sequence[TraceRollup], figures: Mapping[Key, Figures]) -> bool:
    """Put `figures` in the place of `rows`, which are final. False where another process did something to them."""
    alias = store.database()
    try:
        with transaction.atomic(using=alias):
            if rows and _delete(TraceRollup.objects.using(alias).filter(pk__in=[row.pk for row in rows])) != len(rows):
                raise IntegrityError("another process has taken some of them")
            TraceRollup.objects.using(alias).bulk_create([row_of(key, each, "") for key, each in figures.items()])
    except IntegrityError:
        # Theirs is as good; nothing of this one is kept.
        return False
    return True


def _drop_old_hours(limit: str) -> int:
    oldest = hour_of(datetime.datetime.now(datetime.UTC) - HOURS_KEPT)
    return _delete(final_rows(limit).filter(period=TraceRollup.Period.HOUR, start__lt=oldest))


def _delete(rows: QuerySet[TraceRollup]) -> int:
    return int(rows._raw_delete(rows.db))  # type: ignore[attr-defined]
