"""The columns of a table, as statements name them, and the values of rows, as a database takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

import orjson
from django.db import models

from dspyserve.tracing.column_values import Adapt, column_of

_KINDS: Final = 1_000
"""Combinations of types in a row that are remembered; there are some dozens."""

Row = Mapping[str, Any]
"""Values by the `attname` of their column. Missing ones get their default."""


def written(model: type[models.Model], *, but: str = "") -> list[Any]:
    """The fields that rows tell, but for one: others are numbered or computed by the database."""
    fields = model._meta.concrete_fields
    is_told = [not isinstance(field, models.AutoField) and not getattr(field, "generated", False) for field in fields]
    return [field for field, told in zip(fields, is_told, strict=True) if told and field.attname != but]


def into(model: type[models.Model], names: Iterable[str], quote: Callable[[str], str]) -> str:
    """The beginning of a statement that inserts these columns, told by their `attname`."""
    return f"INSERT INTO {quote(model._meta.db_table)} ({', '.join(column_names(model, names, quote))})"


def column_names(model: type[models.Model], names: Iterable[str], quote: Callable[[str], str]) -> list[str]:
    """The quoted names of these columns in the database."""
    known: dict[str, Any] = {field.attname: field.column for field in model._meta.concrete_fields}
    return [quote(known[name]) for name in names]


class Columns:
    """Some columns of `model` in the database `alias`."""

    def __init__(self, alias: str, model: type[models.Model], fields: Sequence[Any]) -> None:
        self.fields = {field.attname: field for field in fields}
        self.model = model
        self._columns = [column_of(field, alias) for field in fields]
        self._defaults = {name: field.get_default for name, field in self.fields.items()}
        self._values = itemgetter(*self.fields)
        self._unusual: dict[tuple[type, ...], Sequence[tuple[int, Adapt]]] = {}

    def __len__(self) -> int:
        return len(self.fields)

    def adapted(self, row: Row) -> list[Any]:
        """The values of `row`, in the order of the columns.

        Raises:
            ValueError, and the like: for a value that no column takes.
            TypeError: the model has no such column.
        """
        values = list(self._values(row if row.keys() == self._defaults.keys() else self._completed(row)))
        kinds = tuple(map(type, values))
        unusual = self._unusual.get(kinds)
        if unusual is None:
            unusual = self._remember(kinds)
        for position, adapt in unusual:
            values[position] = adapt(values[position])
        return values

    def json(self, rows: Iterable[Row]) -> str:
        """The values of `rows` as objects with commas between them, encoded at once; raises as `adapted` does."""
        objects = [dict(zip(self.fields, self.adapted(row), strict=True)) for row in rows]
        return orjson.dumps(objects, default=str)[1:-1].decode()

    def _remember(self, kinds: tuple[type, ...]) -> Sequence[tuple[int, Adapt]]:
        """The columns to whose values of these types something has to be done: most rows have the same ones."""
        columns = enumerate(zip(kinds, self._columns, strict=True))
        found = tuple((position, column.adapt) for position, (kind, column) in columns if kind not in column.usual)
        if len(self._unusual) < _KINDS:
            self._unusual[kinds] = found
        return found

    def _completed(self, row: Row) -> Row:
        if unknown := row.keys() - self._defaults.keys():
            raise TypeError(f"{self.model.__name__} has no columns {sorted(unknown)}")
        return {name: row[name] if name in row else default() for name, default in self._defaults.items()}
