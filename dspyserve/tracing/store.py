"""Rows into the database: many traces in one transaction, a few statements for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

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
from dspyserve.tracing import bulk_insert
from dspyserve.tracing.bulk_insert import Found, Replacing
from dspyserve.tracing.figures import Figures, Key, moment
from dspyserve.tracing.rows import TraceRows
from dspyserve.tracing.tally import Tally

DATABASE_AWAY = (OperationalError, InterfaceError, InternalError, ProgrammingError)
"""Errors that say something of the database (gone, locked, full, not migrated), not of the rows."""

_SPAN: Final = Found("span_id", by=("trace_id", "sequence"))
_ROLLUP: Final = Replacing(unique=(*Key._fields, "writer"), columns=(*Figures.__slots__,))

Row = Mapping[str, Any]


def database() -> str:
    """The alias of the database that traces are written to."""
    return router.db_for_write(Trace)


def insert(batch: Sequence[TraceRows], tally: Tally | None = None) -> None:
    """Insert all traces of `batch` and add them to the rollups of `tally`, or of nobody else; or do nothing.

    Raises:
        django.db.Error: as the database says; also ValueError and the like, for a value that no column takes.
    """
    alias = database()
    insert_rows = _insert_by_statement if connections[alias].vendor in bulk_insert.VENDORS else _insert_by_model
    with (tally or Tally()).adding(batch) as rollups, transaction.atomic(using=alias):
        insert_rows(alias, batch, rollups)


def _insert_by_statement(alias: str, batch: Sequence[TraceRows], rollups: Sequence[Row]) -> None:
    spans = [(rows.trace["id"], row, payload) for rows in batch for row, payload in _spans(rows)]
    payloads = [
        {"trace_id": trace_id, "sequence": row["sequence"], **payload}
        for trace_id, row, payload in spans
        if payload is not None
    ]
    bulk_insert.insert(alias, Trace, [rows.trace for rows in batch])
    bulk_insert.insert(alias, Span, [{"trace_id": trace_id, **row} for trace_id, row, _ in spans])
    bulk_insert.insert(alias, SpanPayload, payloads, found=_SPAN)
    bulk_insert.insert(alias, TraceRollup, rollups, replacing=_ROLLUP)


def _insert_by_model(alias: str, batch: Sequence[TraceRows], rollups: Sequence[Row]) -> None:
    """The same on any database, and slower."""
    spans = [(Span(trace_id=rows.trace["id"], **row), payload) for rows in batch for row, payload in _spans(rows)]
    Trace.objects.using(alias).bulk_create([Trace(**rows.trace) for rows in batch])
    # The ids come back with the insert, on SQLite and on PostgreSQL.
    Span.objects.using(alias).bulk_create([span for span, _ in spans])
    SpanPayload.objects.using(alias).bulk_create(
        [SpanPayload(span_id=span.pk, **payload) for span, payload in spans if payload is not None]
    )
    TraceRollup.objects.using(alias).bulk_create(
        [TraceRollup(**row) for row in rollups],
        update_conflicts=True,
        unique_fields=_ROLLUP.unique,
        update_fields=_ROLLUP.columns,
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
