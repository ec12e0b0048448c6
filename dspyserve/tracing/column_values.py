"""Values as a database takes them for a column: the same that Django's fields make of them, without asking those.

A field is asked only for what is not usual in its column, such as a time that was read from disk as text.
"""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Callable
from types import NoneType
from typing import Any, Final, NamedTuple

import orjson
from django.db import connections, models

_HEX: Final = re.compile("[0-9a-f]{32}")
_STRICT: Final = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
"""What the standard library takes for JSON, and no more."""
_TEXTS: Final = (models.CharField, models.TextField)
_INTEGERS: Final = (
    models.AutoField,
    models.BigAutoField,
    models.IntegerField,
    models.PositiveIntegerField,
    models.PositiveBigIntegerField,
)

Adapt = Callable[[Any], Any]


class Column(NamedTuple):
    """A column that values are written to."""

    usual: frozenset[type]
    """Types whose values the database takes as they are."""
    adapt: Adapt
    """For values of other types."""


def column_of(field: Any, alias: str) -> Column:
    """The column of `field` in the database `alias`: SQLite, whose driver gets the values, or PostgreSQL, which gets
    them within JSON.
    """
    target, ask = _target(field), _asking(field, alias)
    usual, adapt = _of_kind(target, alias, ask)
    return Column(frozenset(usual), adapt)


def _target(field: Any) -> Any:
    while field.is_relation:
        field = field.target_field
    return field


def _asking(field: Any, alias: str) -> Adapt:
    def ask(value: Any) -> Any:
        adapted = field.get_db_prep_save(value, connections[alias])
        return adapted.isoformat() if isinstance(adapted, datetime.datetime) else adapted

    return ask


def _of_kind(field: Any, alias: str, ask: Adapt) -> tuple[set[type], Adapt]:
    # Exactly these classes: what is derived from them may have its own way.
    kind, connection = type(field), connections[alias]
    is_sqlite = connection.vendor == "sqlite"
    if kind in _TEXTS:
        return {str, NoneType}, lambda value: str.__str__(value) if isinstance(value, str) else ask(value)
    if kind in _INTEGERS:
        return {int, NoneType}, ask
    if kind is models.BooleanField:
        return {bool, NoneType}, ask
    if kind is models.FloatField:
        return ({float, NoneType}, ask) if is_sqlite else ({NoneType}, _float_in_json(ask))
    if kind is models.UUIDField:
        return {NoneType}, lambda value: value if type(value) is str and _HEX.fullmatch(value) else ask(value)
    if kind is models.DateTimeField:
        return {NoneType}, _time_in_sqlite(ask, connection) if is_sqlite else _time_in_json(ask)
    if kind is models.JSONField:
        return {NoneType}, _json_in_sqlite(field) if is_sqlite else _json_in_json(field)
    return set(), ask


def _float_in_json(ask: Adapt) -> Adapt:
    def adapt(value: Any) -> Any:
        if type(value) is not float:
            value = ask(value)
        # JSON has no numbers for what is not finite; PostgreSQL reads their names.
        return value if math.isfinite(value) else repr(value)

    return adapt


def _time_in_sqlite(ask: Adapt, connection: Any) -> Adapt:
    if connection.timezone is not datetime.UTC:
        return ask
    return lambda value: str(value.replace(tzinfo=None)) if _is_utc(value) else ask(value)


def _time_in_json(ask: Adapt) -> Adapt:
    return lambda value: value if _is_utc(value) else ask(value)


def _is_utc(value: Any) -> bool:
    return type(value) is datetime.datetime and value.tzinfo is datetime.UTC


def _json_in_sqlite(field: Any) -> Adapt:
    # SQLite keeps and compares the text, so that another encoder would be another value.
    return lambda value: json.dumps(value, cls=field.encoder)


def _json_in_json(field: Any) -> Adapt:
    def adapt(value: Any) -> orjson.Fragment:
        if field.encoder is not None:
            return orjson.Fragment(json.dumps(value, cls=field.encoder))
        try:
            text = orjson.dumps(value, option=_STRICT)
        except orjson.JSONEncodeError:
            # An integer beyond 64 bits, or something that PostgreSQL or the standard library have to refuse.
            return orjson.Fragment(json.dumps(value))
        # orjson writes null for a number that is none, which PostgreSQL has to refuse.
        return orjson.Fragment(json.dumps(value) if b"null" in text else text)

    return adapt
