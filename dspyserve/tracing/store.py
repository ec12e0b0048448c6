"""Rows into the database: those of many traces in one transaction, and mostly in one statement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from django.db import (
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
    connections,
    router,
    transaction,
)
from uuid_utils.compat import uuid7

from dspyserve.models import Span, SpanPayload, Trace, TraceRollup
from dspyserve.tracing import insert_postgresql, insert_sqlite
from dspyserve.tracing.figures import moment
from dspyserve.tracing.insert import ROLLUP_KEY, ROLLUP_VALUES, Batch
from dspyserve.tracing.rows import TraceRows
from dspyserve.tracing.tally import Tally

DATABASE_AWAY = (OperationalError, InterfaceError, InternalError, ProgrammingError)
"""Errors that say something of the database (gone, locked, full, not migrated), not of the rows."""

BY_STATEMENT: Final[dict[str, Callable[[str, Batch], None]]] = {
    "sqlite": insert_sqlite.insert,
    "postgresql": insert_postgresql.insert,
}
"""For the databases whose SQL we write: plain rows, without a model instance and a compiled query for each of them."""


def database() -> str:
    """The alias of the database that traces are written to."""
    return router.db_for_write(Trace)


def insert(batch: Sequence[TraceRows], tally: Tally | None = None) -> None:
    """Insert all traces of `batch` and add them to the rollups of `tally`, or of nobody else; or do nothing.

    Raises:
        django.db.Error: as the database says; also ValueError and the like, for a value that no column takes.
    """
    alias = database()
    insert_rows = BY_STATEMENT.get(connections[alias].vendor, _insert_by_model)
    with (tally or Tally()).adding(batch) as rollups:
        traces = [rows.trace for rows in batch]
        spans = [({"trace_id": rows.trace["id"], **row}, payload) for rows in batch for row, payload in _spans(rows)]
        insert_rows(alias, Batch(traces, spans, rollups))


def _insert_by_model(alias: str, batch: Batch) -> None:
    """The same on any database, and slower: `bulk_create` takes several times as long to put a statement together as a
    database takes to execute it.
    """
    spans = [(Span(**row), payload) for row, payload in batch.spans]
    with transaction.atomic(using=alias):
        Trace.objects.using(alias).bulk_create([Trace(**row) for row in batch.traces])
        # The ids come back with the insert, on SQLite and on PostgreSQL.
        Span.objects.using(alias).bulk_create([span for span, _ in spans])
        SpanPayload.objects.using(alias).bulk_create(
            [SpanPayload(span_id=span.pk, **payload) for span, payload in spans if payload is not None]
        )
        TraceRollup.objects.using(alias).bulk_create(
            [TraceRollup(**row) for row in batch.rollups],
            update_conflicts=True,
            unique_fields=ROLLUP_KEY,
            update_fields=ROLLUP_VALUES,
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
    if new := [rows for rows in batch if rows.trace["id"] not in known]:
        insert(new, tally)


def _spans(rows: TraceRows) -> zip[tuple[dict[str, object], dict[str, object] | None]]:
    return zip(rows.spans, rows.payloads, strict=True)
