"""The rows of traces into PostgreSQL: rows of all tables in one statement, which is one way to the server and back.

All rows of a table are one parameter, as JSON: the driver takes longer for every parameter than PostgreSQL's parser for
a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache, cached_property
from typing import Any, NamedTuple

from django.db import connections

from dspyserve.models import Span, SpanPayload, Trace, TraceRollup
from dspyserve.tracing.columns import Columns, Row, into, written
from dspyserve.tracing.insert import Spans, replacing

_BY = ("trace_id", "sequence")
"""The columns by which a payload finds its span, whose number the database gives."""


class _Prepared(NamedTuple):
    """The rows of one trace as JSON, with commas between them."""

    trace: str
    spans: str
    payloads: str


def prepare(alias: str, trace: Row, spans: Spans) -> _Prepared:
    """As `Way.prepare`."""
    return _statement(alias).prepared(trace, spans)


def insert(alias: str, prepared: Sequence[_Prepared], rollups: Sequence[Row]) -> None:
    """As `Way.insert`."""
    statement = _statement(alias)
    with connections[alias].cursor() as cursor:
        cursor.execute(statement.sql, statement.parameters(prepared, rollups))


class _Statement:
    def __init__(self, alias: str) -> None:
        self._connection = connections[alias]
        self._quote = self._connection.ops.quote_name
        self._traces = Columns(alias, Trace, written(Trace))
        self._spans = Columns(alias, Span, written(Span))
        by = [self._spans.fields[name] for name in _BY]
        self._payloads = Columns(alias, SpanPayload, [*by, *written(SpanPayload, but="span_id")])
        self._rollups = Columns(alias, TraceRollup, written(TraceRollup))

    def prepared(self, trace: Row, spans: Spans) -> _Prepared:
        """The rows of one trace."""
        payloads = [(span, payload) for span, payload in spans if payload is not None]
        return _Prepared(
            self._traces.json([trace]),
            self._spans.json(span for span, _ in spans),
            self._payloads.json({**{name: span[name] for name in _BY}, **payload} for span, payload in payloads),
        )

    def parameters(self, prepared: Sequence[_Prepared], rollups: Sequence[Row]) -> list[str]:
        """Those of the statement."""
        return [
            _array(each.trace for each in prepared),
            _array(each.spans for each in prepared),
            _array(each.payloads for each in prepared),
            _array([self._rollups.json(rollups)]),
        ]

    @cached_property
    def sql(self) -> str:
        """The statement."""
        key = ", ".join(map(self._quote, _BY))
        payloads = [name for name in self._payloads.fields if name not in _BY]
        payload = into(SpanPayload, ["span_id", *payloads], self._quote)
        source = f"{self._given(self._payloads)} JOIN spans USING ({key})"
        steps = [
            f"traces AS ({self._insert(self._traces)})",
            f"spans AS ({self._insert(self._spans)} RETURNING id, {key})",
            f"payloads AS ({payload} SELECT spans.id, {self._values(payloads)} FROM {source})",  # noqa: S608 - names alone
        ]
        return f"WITH {', '.join(steps)} {self._insert(self._rollups)} {replacing(self._quote)}"

    def _insert(self, columns: Columns) -> str:
        values = self._values(columns.fields)
        start = into(columns.model, columns.fields, self._quote)
        return f"{start} SELECT {values} FROM {self._given(columns)}"  # noqa: S608 - names alone

    def _values(self, names: Iterable[str]) -> str:
        return ", ".join(f"given.{self._quote(name)}" for name in names)

    def _given(self, columns: Columns) -> str:
        types = ", ".join(f"{self._quote(name)} {self._type(field)}" for name, field in columns.fields.items())
        return f"json_to_recordset(%s::json) given ({types})"

    def _type(self, field: Any) -> str:
        # Without a length, to which texts would be cut instead of refused.
        db_type: str = field.db_type(self._connection)
        return db_type.partition("(")[0]


def _array(rows: Iterable[str]) -> str:
    """All of them, without those of traces that have none."""
    return f"[{','.join(filter(None, rows))}]"


@cache
def _statement(alias: str) -> _Statement:
    return _Statement(alias)
