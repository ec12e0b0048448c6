"""The rows of traces into SQLite: rows of all tables in one statement.

Its driver gives other threads their turn several times in every statement, and then waits for its own turn again behind
whatever the event loop has to do: under load, four statements in a transaction take longer than one. One
statement inserts into one table only, or into a view: this one has rows of every kind, and triggers put them where they
belong. The view is the connection's own and nobody else sees it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any, Final
from weakref import WeakKeyDictionary

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from dspyserve.models import Span, SpanPayload, Trace, TraceRollup
from dspyserve.tracing.columns import Columns, Row, into, written
from dspyserve.tracing.insert import Spans, replacing

MOST_ROWS: Final = 60
"""Rows of one statement. The driver keeps 128 prepared statements: one for each number of rows."""
_VIEW: Final = "dspyserve_incoming"
_TRACE, _SPAN, _ROLLUP = range(3)

_with_view: WeakKeyDictionary[BaseDatabaseWrapper, Any] = WeakKeyDictionary()
"""The connections that have the view."""


def prepare(alias: str, trace: Row, spans: Spans) -> list[list[Any]]:
    """As `Way.prepare`: rows of the view."""
    return _view(alias).rows(trace, spans)


def insert(alias: str, prepared: Sequence[list[list[Any]]], rollups: Sequence[Row]) -> None:
    """As `Way.insert`."""
    connection, view = connections[alias], _view(alias)
    rows = [*chain.from_iterable(prepared), *map(view.rollup, rollups)]
    connection.ensure_connection()
    _make_view(connection, view)
    most = view.most_rows(connection)
    if len(rows) <= most:
        # A statement is a transaction by itself.
        _execute(connection, view, rows)
        return
    with transaction.atomic(using=alias):
        for start in range(0, len(rows), most):
            _execute(connection, view, rows[start : start + most])


def _make_view(connection: BaseDatabaseWrapper, view: _View) -> None:
    raw = connection.connection
    if _with_view.get(connection) is raw:
        return
    with connection.wrap_database_errors:
        for statement in view.definitions:
            raw.execute(statement)
    if not connection.in_atomic_block:
        # Otherwise it goes when the transaction is rolled back.
        _with_view[connection] = raw


def _execute(connection: BaseDatabaseWrapper, view: _View, rows: Sequence[list[Any]]) -> None:
    """Execute as Django's cursor does, which looks for placeholders to rewrite for longer than SQLite takes to execute.

    Where somebody listens to what is executed, it is used nevertheless.
    """
    params = list(chain.from_iterable(rows))
    if connection.queries_logged or connection.execute_wrappers:
        with connection.cursor() as cursor:
            cursor.execute(view.statement(len(rows), "%s"), params)
        return
    connection.validate_no_broken_transaction()
    with connection.wrap_database_errors:
        connection.connection.execute(view.statement(len(rows), "?"), params)


class _View:
    """The view of a database: the number of the kind, then as many values as the widest row has."""

    def __init__(self, alias: str) -> None:
        self._quote = connections[alias].ops.quote_name
        self._traces = Columns(alias, Trace, written(Trace))
        self._spans = Columns(alias, Span, written(Span))
        self._payloads = Columns(alias, SpanPayload, written(SpanPayload, but="span_id"))
        self._rollups = Columns(alias, TraceRollup, written(TraceRollup))
        self._width = max(len(self._traces), len(self._spans) + 1 + len(self._payloads), len(self._rollups))
        self._no_payload = [None] * (1 + len(self._payloads))

    def rows(self, trace: Row, spans: Spans) -> list[list[Any]]:
        """What is inserted into the view for a trace."""
        found = [self._row(_TRACE, self._traces.adapted(trace))]
        for span, payload in spans:
            found.append(self._row(_SPAN, self._spans.adapted(span) + self._payload(payload)))
        return found

    def rollup(self, row: Row) -> list[Any]:
        """What is inserted into the view for a rollup."""
        return self._row(_ROLLUP, self._rollups.adapted(row))

    def _payload(self, payload: Row | None) -> list[Any]:
        return self._no_payload if payload is None else [1, *self._payloads.adapted(payload)]

    def _row(self, kind: int, values: list[Any]) -> list[Any]:
        return [kind, *values, *([None] * (self._width - len(values)))]

    def most_rows(self, connection: BaseDatabaseWrapper) -> int:
        """How many go into one statement."""
        variables: int = connection.connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
        return min(MOST_ROWS, variables // (1 + self._width))

    @cache  # noqa: B019 - there are as many as databases
    def statement(self, rows: int, placeholder: str) -> str:
        """What inserts so many rows."""
        row = f"({','.join([placeholder] * (1 + self._width))})"
        return f"INSERT INTO {_VIEW} VALUES {','.join([row] * rows)}"  # noqa: S608 - nothing but placeholders

    @property
    def definitions(self) -> Iterator[str]:
        """Of the view and its triggers."""
        values = ", ".join(f"NULL AS v{number}" for number in range(self._width))
        yield f"CREATE TEMP VIEW IF NOT EXISTS {_VIEW} AS SELECT NULL AS kind, {values}"
        spans = len(self._spans)
        payload = into(SpanPayload, ["span_id", *self._payloads.fields], self._quote)
        given = ", ".join(_given(self._payloads, spans + 1))
        yield self._trigger(_TRACE, self._insert(self._traces))
        yield self._trigger(
            _SPAN,
            self._insert(self._spans),
            f"{payload} SELECT last_insert_rowid(), {given} WHERE NEW.v{spans}",
        )
        yield self._trigger(_ROLLUP, f"{self._insert(self._rollups)} {replacing(self._quote)}")

    def _trigger(self, kind: int, *statements: str) -> str:
        """What puts rows of a kind where they belong."""
        when = f"INSTEAD OF INSERT ON {_VIEW} WHEN NEW.kind = {kind}"
        return f"CREATE TEMP TRIGGER IF NOT EXISTS {_VIEW}_{kind} {when} BEGIN {'; '.join(statements)}; END"

    def _insert(self, columns: Columns) -> str:
        return f"{into(columns.model, columns.fields, self._quote)} VALUES ({', '.join(_given(columns))})"


def _given(columns: Columns, start: int = 0) -> list[str]:
    return [f"NEW.v{start + number}" for number in range(len(columns))]


@cache
def _view(alias: str) -> _View:
    return _View(alias)
