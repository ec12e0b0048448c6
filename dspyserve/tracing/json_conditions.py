"""Questions to JSON columns that SQLite and PostgreSQL answer alike; Django has none that both understand."""

from __future__ import annotations

from typing import Any

from django.db.models import BooleanField, F, Func, Value


class HasElement(Func):
    """Whether the list in a JSON column holds this text."""

    output_field = BooleanField()

    def __init__(self, column: str, text: str) -> None:
        super().__init__(F(column), Value(text))

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> tuple[str, tuple[Any, ...]]:
        """SQLite reads the list as a table."""
        (column, text), params = _compiled(self, compiler)
        found = f"json_each.type = 'text' AND json_each.value = {text}"
        return f"EXISTS (SELECT 1 FROM json_each({column}) WHERE {found})", params  # noqa: S608 - compiled

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> tuple[str, tuple[Any, ...]]:
        """PostgreSQL has an operator for it."""
        (column, text), params = _compiled(self, compiler)
        return f"{column} @> to_jsonb(CAST({text} AS text))", params


class HasEntry(Func):
    """Whether the object in a JSON column has this value under this key; numbers and truths as they are written."""

    output_field = BooleanField()

    def __init__(self, column: str, key: str, value: str) -> None:
        super().__init__(F(column), Value(key), Value(value))

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> tuple[str, tuple[Any, ...]]:
        """A key that is missing is no entry, rather than an unknown one."""
        (column, key, value), params = _compiled(self, compiler)
        written = (
            "CASE WHEN json_each.type IN ('true', 'false') THEN json_each.type ELSE CAST(json_each.value AS TEXT) END"
        )
        found = f"json_each.key = {key} AND {written} = {value}"
        return f"EXISTS (SELECT 1 FROM json_each({column}) WHERE {found})", params  # noqa: S608 - compiled

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> tuple[str, tuple[Any, ...]]:
        """Likewise."""
        (column, key, value), params = _compiled(self, compiler)
        return f"COALESCE({column} ->> CAST({key} AS text) = {value}, FALSE)", params


def _compiled(function: Func, compiler: Any) -> tuple[list[str], tuple[Any, ...]]:
    pieces: list[str] = []
    params: list[Any] = []
    for expression in function.get_source_expressions():
        sql, values = compiler.compile(expression)
        pieces.append(sql)
        params += values
    return pieces, tuple(params)
