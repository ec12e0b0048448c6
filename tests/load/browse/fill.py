"""Copies of the mould by the million, made where they lie, in the order of time, as a writer would have stored them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from django.core.management import call_command
from django.db import connection, models, transaction

from dspyserve.models import Feedback, Span, SpanPayload, Trace
from tests.load.browse.mould import Mould
from tests.load.report import progress

DAYS: Final = 30
"""Over which the traces are spread, up to now."""
_BLOCK: Final = 20_000
_MODELS: Final = (Trace, Span, SpanPayload)


def fill(count: int, mould: Mould) -> None:
    """Store `count` traces, in whole copies of the mould. The tables must be empty."""
    size = len(mould.traces)
    copies = count // size
    _lay_out(mould)
    with _without_indexes():
        per_block = max(1, _BLOCK // size)
        for first in range(0, copies, per_block):
            last = min(first + per_block, copies) - 1
            with transaction.atomic():
                _copy(Copies(size, copies, len(mould.spans)), first, last)
            progress(f"{(last + 1) * size:,} traces")
    progress("indexes are made")
    _settle()
    call_command("rebuild_rollups", stdout=sys.stderr)


class Copies:
    """How the columns of a copy come from those of the mould, in the database's own SQL.

    `n.i` is the number of the copy, `t.j` that of the trace in the mould, `t.k` that of the span.
    """

    def __init__(self, size: int, copies: int, spans: int) -> None:
        step = DAYS * 86_400_000 // (size * copies)
        start = int(time.time() * 1_000) - step * size * copies
        self._number = f"(n.i * {size} + t.j)"
        self._began = f"({start} + {self._number} * {step})"
        self._span = f"(n.i * {spans} + t.k)"
        self._spans = spans

    def trace(self) -> dict[str, str]:
        """Columns of a trace that are not those of the mould."""
        return {
            "id": self._id(),
            "started_at": self._moment(self._began),
            "ended_at": self._moment(f"({self._began} + t.duration_ms)"),
            "session_id": "CASE WHEN t.session_id = '' THEN '' ELSE t.session_id || '-' || n.i END",
        }

    def span(self) -> dict[str, str]:
        """Columns of a span."""
        parent = _hex(f"(n.i * {self._spans} + t.parent_k)", 16)
        return {
            "id": self._span,
            "trace_id": self._id(),
            "span_id": _hex(self._span, 16),
            "parent_id": f"CASE WHEN t.parent_k IS NULL THEN '' ELSE {parent} END",
            "started_at": self._moment(f"({self._began} + t.offset_ms)"),
        }

    def payload(self) -> dict[str, str]:
        """Columns of a payload."""
        return {"span_id": self._span}

    def feedback(self) -> dict[str, str]:
        """All columns of an opinion, which one trace in fifty has."""
        now = self._moment(self._began)
        texts = dict.fromkeys(("span_id", "label", "comment"), "''")
        return {
            **texts,
            "trace_id": self._id(),
            "name": "'helpful'",
            "author": "'user:1'",
            "score": "CASE WHEN t.j % 3 = 0 THEN 0.0 ELSE 1.0 END",
            "created_at": now,
            "updated_at": now,
        }

    def _id(self) -> str:
        """Of the shape of a UUIDv7: the milliseconds first."""
        ids = [_hex(self._began, 12), "'7'", _hex(f"({self._number} % 4096)", 3), "'8'"]
        text = " || ".join([*ids, _hex(f"({self._number} * 1000003)", 15)])
        return text if connection.vendor == "sqlite" else f"({text})::uuid"

    def _moment(self, milliseconds: str) -> str:
        if connection.vendor == "sqlite":
            return f"strftime('%Y-%m-%d %H:%M:%f000', {milliseconds} / 1000.0, 'unixepoch')"
        return f"to_timestamp({milliseconds} / 1000.0)"


def _hex(number: str, digits: int) -> str:
    if connection.vendor == "sqlite":
        return f"printf('%0{digits}x', {number})"
    return f"lpad(to_hex(({number})::bigint), {digits}, '0')"


def _copy(copies: Copies, first: int, last: int) -> None:
    _insert(Trace, "mould_trace", copies.trace(), first, last)
    _insert(Span, "mould_span", copies.span(), first, last)
    _insert(SpanPayload, "mould_payload", copies.payload(), first, last)
    _insert(Feedback, "mould_trace", copies.feedback(), first, last, only=list(copies.feedback()), every=50)


def _insert(
    model: type[models.Model],
    source: str,
    changed: Mapping[str, str],
    first: int,
    last: int,
    only: list[str] | None = None,
    every: int = 1,
) -> None:
    columns = only or [field.column for field in model._meta.concrete_fields]
    names = ", ".join(f'"{column}"' for column in columns)
    values = ", ".join(changed.get(column, f't."{column}"') for column in columns)
    numbers = f"WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {last})"
    select = f"SELECT {values} FROM n CROSS JOIN {source} t WHERE t.j % {every} = 0"
    # SQLite takes the loops as they stand; PostgreSQL is told.
    order = "" if connection.vendor == "sqlite" else " ORDER BY n.i, t.place"
    _execute(f"{numbers} INSERT INTO {model._meta.db_table} ({names}) {select}{order}")


def _lay_out(mould: Mould) -> None:
    """The mould as three tables of this connection, in which every row knows its place."""
    Trace.objects.bulk_create(mould.traces)
    Span.objects.bulk_create(mould.spans)
    SpanPayload.objects.bulk_create(mould.payloads)
    for model, name, key in ((Trace, "trace", "id"), (Span, "span", "id"), (SpanPayload, "payload", "span_id")):
        place = f"ROW_NUMBER() OVER (ORDER BY {key})"
        rows = f"SELECT m.*, {place} AS place, {place} - 1 AS j, {place} AS k FROM {model._meta.db_table} m"
        _execute(f"CREATE TEMPORARY TABLE mould_{name} AS {rows} ORDER BY {key}")
        _execute(f"CREATE INDEX mould_{name}_k ON mould_{name} (k)")
    for column in ("offset_ms", "parent_k"):
        _execute(f"ALTER TABLE mould_span ADD COLUMN {column} bigint")
    update = "UPDATE mould_span SET j = %s, offset_ms = %s, parent_k = %s WHERE k = %s"
    with connection.cursor() as cursor:
        cursor.executemany(update, [(*place, key) for key, place in enumerate(mould.places, start=1)])
        cursor.executemany(
            "UPDATE mould_payload SET j = %s WHERE k = %s",
            [(number, key) for key, (number, *_) in enumerate(mould.places, start=1)],
        )
    for model in reversed(_MODELS):
        _execute(f"DELETE FROM {model._meta.db_table}")


@contextmanager
def _without_indexes() -> Iterator[None]:
    """Indexes are made once, at the end; until then nothing waits for the disk."""
    fast = "PRAGMA synchronous=OFF" if connection.vendor == "sqlite" else "SET synchronous_commit = off"
    _execute(fast)
    with connection.schema_editor() as editor:
        for model in _MODELS:
            for index in model._meta.indexes:
                editor.remove_index(model, index)
    yield
    with connection.schema_editor() as editor:
        for model in _MODELS:
            for index in model._meta.indexes:
                editor.add_index(model, index)


def _settle() -> None:
    """What a database does by and by: PostgreSQL vacuums and counts, SQLite moves its log into the file."""
    if connection.vendor == "sqlite":
        _execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        return
    for model in (*_MODELS, Feedback):
        _execute(f"VACUUM ANALYZE {model._meta.db_table}")
    spans = Span._meta.db_table
    _execute(f"SELECT setval(pg_get_serial_sequence('{spans}', 'id'), (SELECT max(id) FROM {spans}))")


def _execute(statement: str, values: Any = None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
