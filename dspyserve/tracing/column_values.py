"""Values as a database takes them for a column: those that Django's fields make of them, without asking the fields.

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

from dspyserve.models import SpanPayload, TraceRollup

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
_NOT_COMPARED: Final = (SpanPayload, TraceRollup)
"""Models whose JSON is longer than all other, and is never compared as a whole."""
_EMPTY: Final[dict[type, str]] = {dict: "{}", list: "[]"}

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
    if field.model in _NOT_COMPARED and field.encoder is None:
        # Written in a tenth of the time.
        return lambda value: _compact(value).decode()

    def adapt(value: Any) -> str:
        # SQLite keeps and compares the text, so that another encoder would be another value.
        known = _EMPTY.get(type(value)) if not value else None
        return json.dumps(value, cls=field.encoder) if known is None else known

    return adapt


def _json_in_json(field: Any) -> Adapt:
    def adapt(value: Any) -> orjson.Fragment:
        return orjson.Fragment(_compact(value) if field.encoder is None else json.dumps(value, cls=field.encoder))

    return adapt


def _compact(value: Any) -> bytes:
    """JSON for a database that takes its spelling for no part of the value.

    Raises:
        TypeError: as `json.dumps`; where that makes no JSON either, what the database has to refuse is returned.
    """
    try:
        text = orjson.dumps(value, option=_STRICT)
    except orjson.JSONEncodeError:
        # An integer beyond 64 bits, or something that the database or the standard library have to refuse.
        return json.dumps(value).encode()
    # orjson writes null for a number that is none, which the database has to refuse.
    return json.dumps(value).encode() if b"null" in text else text
