"""Rows into the database: many traces in one transaction, a few statements for all of them."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import InterfaceError, InternalError, OperationalError, ProgrammingError, router, transaction
from uuid_utils.compat import uuid7

from dspyserve.models import Span, SpanPayload, Trace, TraceRollup
from dspyserve.tracing.figures import Figures, Key, moment
from dspyserve.tracing.rows import TraceRows
from dspyserve.tracing.tally import Tally

DATABASE_AWAY = (OperationalError, InterfaceError, InternalError, ProgrammingError)
"""Errors that say something of the database (gone, locked, full, not migrated), not of the rows."""


def database() -> str:
    """The alias of the database that traces are written to."""
    return router.db_for_write(Trace)


def insert(batch: Sequence[TraceRows], tally: Tally | None = None) -> None:
    """Insert all traces of `batch` and add them to the rollups of `tally`, or of nobody else; or do nothing.

    Raises:
        django.db.Error: as the database says; also ValueError and the like, for a value that no column takes.
    """
    alias = database()
    spans = [(Span(trace_id=rows.trace["id"], **row), payload) for rows in batch for row, payload in _spans(rows)]
    with (tally or Tally()).adding(batch) as rollups, transaction.atomic(using=alias):
        Trace.objects.using(alias).bulk_create([Trace(**rows.trace) for rows in batch])
        # The ids come back with the insert, on SQLite and on PostgreSQL.
        Span.objects.using(alias).bulk_create([span for span, _ in spans])
        SpanPayload.objects.using(alias).bulk_create(
            [SpanPayload(span_id=span.pk, **payload) for span, payload in spans if payload is not None]
        )
        TraceRollup.objects.using(alias).bulk_create(
            rollups, update_conflicts=True, unique_fields=[*Key._fields, "writer"], update_fields=Figures.__slots__
        )


def insert_new(batch: Sequence[TraceRows], tally: Tally | None = None) -> None:
    """Insert those of `batch` that are not stored yet.

    A trace that began at another time is another one, whose caller brought an id that is taken: it gets its own.
    """
    ids = [rows.trace["id"] for rows in batch]
    stored = Trace.objects.using(database()).filter(id__in=ids).values_list("id", "started_at")
    known = {found.hex: started_at for found, started_at in stored}
    for rows in batch:
        started_at = moment(rows.trace["started_at"])
        if known.get(rows.trace["id"], started_at) != started_at:
            rows.trace |= {"id": uuid7().hex, "linked_trace_id": rows.trace["id"]}
    insert([rows for rows in batch if rows.trace["id"] not in known], tally)


def _spans(rows: TraceRows) -> zip[tuple[dict[str, object], dict[str, object] | None]]:
    return zip(rows.spans, rows.payloads, strict=True)
