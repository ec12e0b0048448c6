"""Rows into the database: those of many traces in one transaction, and mostly in one statement."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

from django.db import (
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
    connections,
    router,
)
from uuid_utils.compat import uuid7

from dspyserve.models import Trace
from dspyserve.tracing import insert_by_model, insert_postgresql, insert_sqlite
from dspyserve.tracing.figures import moment
from dspyserve.tracing.insert import Spans, Way
from dspyserve.tracing.rows import TraceRows
from dspyserve.tracing.tally import Tally

DATABASE_AWAY = (OperationalError, InterfaceError, InternalError, ProgrammingError)
"""Errors that say something of the database (gone, locked, full, not migrated), not of the rows."""

BY_STATEMENT: Final[dict[str, Way]] = {"sqlite": insert_sqlite, "postgresql": insert_postgresql}
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
    way = _way(alias)
    with (tally or Tally()).adding(batch) as rollups:
        prepared = [rows.prepared or way.prepare(alias, rows.trace, _spans(rows)) for rows in batch]
        way.insert(alias, prepared, rollups)


def prepare(rows: TraceRows) -> None:
    """Make what the database takes of `rows` here and now, where they have just been made: in the thread that inserts
    them, they would have to come into its processor's cache first. Raises as `insert` does.
    """
    alias = database()
    rows.prepared = _way(alias).prepare(alias, rows.trace, _spans(rows))


def _way(alias: str) -> Way:
    return BY_STATEMENT.get(_vendor(alias), insert_by_model)


@cache
def _vendor(alias: str) -> str:
    # Django makes a connection for each thread and each task that asks for one, if only for its vendor.
    return connections[alias].vendor


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
            rows.prepared = None
    if new := [rows for rows in batch if rows.trace["id"] not in known]:
        insert(new, tally)


def _spans(rows: TraceRows) -> Spans:
    trace_id = rows.trace["id"]
    return [({"trace_id": trace_id, **row}, payload) for row, payload in zip(rows.spans, rows.payloads, strict=True)]
