"""Rows into the database: many traces in one transaction, a few statements for all of them."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from django.db import InterfaceError, InternalError, OperationalError, ProgrammingError, router, transaction
from uuid_utils.compat import uuid7

from dspyserve.models import Span, SpanPayload, Trace
from dspyserve.tracing.rows import TraceRows

DATABASE_AWAY = (OperationalError, InterfaceError, InternalError, ProgrammingError)
"""Errors that say something of the database (gone, locked, full, not migrated), not of the rows."""


def database() -> str:
    """The alias of the database that traces are written to."""
    return router.db_for_write(Trace)


def insert(batch: Sequence[TraceRows]) -> None:
    """Insert all traces of `batch`, or none.

    Raises:
        django.db.Error: as the database says; also ValueError and the like, for a value that no column takes.
    """
    alias = database()
    spans = [(Span(trace_id=rows.trace["id"], **row), payload) for rows in batch for row, payload in _spans(rows)]
    with transaction.atomic(using=alias):
        Trace.objects.using(alias).bulk_create([Trace(**rows.trace) for rows in batch])
        # The ids come back with the insert, on SQLite and on PostgreSQL.
        Span.objects.using(alias).bulk_create([span for span, _ in spans])
        SpanPayload.objects.using(alias).bulk_create(
            [SpanPayload(span_id=span.pk, **payload) for span, payload in spans if payload is not None]
        )


def insert_new(batch: Sequence[TraceRows]) -> None:
    """Insert those of `batch` that are not stored yet.

    A trace that began at another time is another one, whose caller brought an id that is taken: it gets its own.
    """
    ids = [rows.trace["id"] for rows in batch]
    stored = Trace.objects.using(database()).filter(id__in=ids).values_list("id", "started_at")
    known = {found.hex: started_at for found, started_at in stored}
    for rows in batch:
        if known.get(rows.trace["id"], _started_at(rows)) != _started_at(rows):
            rows.trace |= {"id": uuid7().hex, "linked_trace_id": rows.trace["id"]}
    insert([rows for rows in batch if rows.trace["id"] not in known])


def _started_at(rows: TraceRows) -> datetime.datetime:
    started_at = rows.trace["started_at"]
    # As text, where the rows have been on disk.
    return started_at if isinstance(started_at, datetime.datetime) else datetime.datetime.fromisoformat(started_at)


def _spans(rows: TraceRows) -> zip[tuple[dict[str, object], dict[str, object] | None]]:
    return zip(rows.spans, rows.payloads, strict=True)
