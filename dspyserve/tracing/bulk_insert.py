"""Plain rows into a table, without a model instance and a compiled query for every one of them.

`bulk_create` takes several times as long to put a statement together as SQLite takes to execute it. Here it is put
together once, from the model's own columns, and stores the same. PostgreSQL gets all rows in one parameter,
as JSON: its driver takes longer for every parameter than its parser for a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property
from operator import itemgetter
from typing import Any, Final, NamedTuple

import orjson
from django.db import connections, models
from django.db.backends.base.base import BaseDatabaseWrapper

from dspyserve.tracing.column_values import Adapt, column_of

VENDORS: Final = frozenset({"sqlite", "postgresql"})
"""The databases whose SQL this is."""
MOST_ROWS: Final = 30
"""Rows of one statement on SQLite. Its driver keeps 128 prepared statements: one for each table and number of rows."""
_KINDS: Final = 1_000
"""Combinations of types in a row that are remembered; there are some dozens."""

Row = Mapping[str, Any]


class Found(NamedTuple):
    """A foreign key that rows do not tell by its value but by the columns `by` of the row that it points to."""

    attname: str
    by: tuple[str, ...]


class Replacing(NamedTuple):
    """A row that has the `unique` columns of a stored one puts its `columns` in place of the stored ones."""

    unique: tuple[str, ...]
    columns: tuple[str, ...]


def insert(
    alias: str,
    model: type[models.Model],
    rows: Sequence[Row],
    found: Found | None = None,
    replacing: Replacing | None = None,
) -> None:
    """Insert `rows`, values by the `attname` of their column, within a transaction. Missing ones get their default.

    Raises:
        django.db.Error: as the database says; also ValueError and the like, for a value that no column takes.
        TypeError: the model has no such column.
    """
    if not rows:
        return
    connection, table = connections[alias], _table(alias, model, found, replacing)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(table.of_json, [table.json(rows)])
        return
    for start in range(0, len(rows), table.most_rows):
        part = rows[start : start + table.most_rows]
        _execute_in_sqlite(connection, _statement(table, len(part)), table.parameters(part))


class _Statement(NamedTuple):
    django: str
    """With the placeholders that Django's cursor rewrites."""
    sqlite: str


def _execute_in_sqlite(connection: BaseDatabaseWrapper, statement: _Statement, params: list[Any]) -> None:
    """Execute `statement` as Django's cursor does, which looks for placeholders to rewrite for longer than SQLite takes
    to execute it. Where somebody listens to what is executed, it is used nevertheless.
    """
    if connection.queries_logged or connection.execute_wrappers:
        with connection.cursor() as cursor:
            cursor.execute(statement.django, params)
        return
    connection.validate_no_broken_transaction()
    with connection.wrap_database_errors:
        connection.connection.execute(statement.sqlite, params)


class _Table:
    """The columns that are written of a model's table, and the statements that write them."""

    def __init__(self, alias: str, model: type[models.Model], found: Found | None, replacing: Replacing | None) -> None:
        connection = connections[alias]
        self._quote = connection.ops.quote_name
        self._model, self._found, self._replacing = model, found, replacing
        self._written: list[Any] = [field for field in model._meta.concrete_fields if _is_written(field)]
        given = {field.attname: field for field in self._written}
        if found is not None:
            self._target: Any = given.pop(found.attname).remote_field.model
            given |= {name: self._target._meta.get_field(name) for name in found.by}
        # Without a length, to which PostgreSQL would cut texts instead of refusing them.
        self._types = {name: field.db_type(connection).partition("(")[0] for name, field in given.items()}
        self._columns = [column_of(field, alias) for field in given.values()]
        self._defaults = {name: field.get_default for name, field in given.items()}
        self._values = itemgetter(*given)
        self._unusual: dict[tuple[type, ...], Sequence[tuple[int, Adapt]]] = {}
        variables = connection.features.max_query_params
        self.most_rows = min(MOST_ROWS, variables // len(given)) if variables else MOST_ROWS
        """How many go into one statement of values."""

    def parameters(self, rows: Sequence[Row]) -> list[Any]:
        """The values of all rows, one after the other."""
        return [value for row in rows for value in self._adapted(row)]

    def json(self, rows: Sequence[Row]) -> str:
        """All rows, as one list of objects."""
        objects = [dict(zip(self._defaults, self._adapted(row), strict=True)) for row in rows]
        return orjson.dumps(objects, default=str).decode()

    def _adapted(self, row: Row) -> list[Any]:
        values = list(self._values(row if row.keys() == self._defaults.keys() else self._completed(row)))
        kinds = tuple(map(type, values))
        unusual = self._unusual.get(kinds)
        if unusual is None:
            unusual = self._remember(kinds)
        for position, adapt in unusual:
            values[position] = adapt(values[position])
        return values

    def _remember(self, kinds: tuple[type, ...]) -> Sequence[tuple[int, Adapt]]:
        """The columns to whose values of these types something has to be done: most rows have the same ones."""
        columns = enumerate(zip(kinds, self._columns, strict=True))
        found = tuple((position, column.adapt) for position, (kind, column) in columns if kind not in column.usual)
        if len(self._unusual) < _KINDS:
            self._unusual[kinds] = found
        return found

    def _completed(self, row: Row) -> Row:
        if unknown := row.keys() - self._defaults.keys():
            raise TypeError(f"{self._model.__name__} has no columns {sorted(unknown)}")
        return {name: row[name] if name in row else default() for name, default in self._defaults.items()}

    def of_values(self, rows: int) -> str:
        """The statement that takes the parameters of so many rows."""
        row = f"({','.join(['%s'] * len(self._types))})"
        values = f"VALUES {','.join([row] * rows)}"
        if self._found is None:
            return f"{self._insert_into} {values}{self._on_conflict}"
        return f"WITH given ({self._names(self._types)}) AS ({values}) {self._insert_into} {self._select} given"

    @cached_property
    def of_json(self) -> str:
        """The statement that takes all rows as JSON."""
        types = ", ".join(f"{self._quote(name)} {db_type}" for name, db_type in self._types.items())
        return f"{self._insert_into} {self._select} json_to_recordset(%s::json) given ({types}){self._on_conflict}"

    @property
    def _insert_into(self) -> str:
        columns = self._names(field.column for field in self._written)
        return f"INSERT INTO {self._quote(self._model._meta.db_table)} ({columns})"

    @property
    def _select(self) -> str:
        expressions = ", ".join(self._expression(field.attname) for field in self._written)
        return f"SELECT {expressions} FROM"

    def _expression(self, name: str) -> str:
        if self._found is None or name != self._found.attname:
            return f"given.{self._quote(name)}"
        target = self._target._meta
        columns = {name: self._quote(target.get_field(name).column) for name in self._found.by}
        same = " AND ".join(f"target.{column} = given.{self._quote(name)}" for name, column in columns.items())
        # Where there is none, it is NULL, which the column refuses.
        key, table = self._quote(target.pk.column), self._quote(target.db_table)
        return f"(SELECT target.{key} FROM {table} target WHERE {same})"  # noqa: S608 - names of the models alone

    @property
    def _on_conflict(self) -> str:
        if self._replacing is None:
            return ""
        column = {field.attname: self._quote(field.column) for field in self._written}
        unique = ", ".join(column[name] for name in self._replacing.unique)
        replaced = ", ".join(f"{column[name]} = EXCLUDED.{column[name]}" for name in self._replacing.columns)
        return f" ON CONFLICT ({unique}) DO UPDATE SET {replaced}"

    def _names(self, names: Iterable[str]) -> str:
        return ", ".join(map(self._quote, names))


def _is_written(field: Any) -> bool:
    """Whether rows tell this column: others are numbered or computed by the database."""
    return not isinstance(field, models.AutoField) and not getattr(field, "generated", False)


@cache
def _table(alias: str, model: type[models.Model], found: Found | None, replacing: Replacing | None) -> _Table:
    return _Table(alias, model, found, replacing)


@cache
def _statement(table: _Table, rows: int) -> _Statement:
    sql = table.of_values(rows)
    return _Statement(sql, sql.replace("%s", "?"))
