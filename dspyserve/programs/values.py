"""Python values as JSON: predictions, pydantic models, DSPy's own types, enums, dates, sets, bytes."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import enum
import math
import re
import uuid
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

import dspy
import pydantic
from pydantic_core import to_jsonable_python

from dspyserve.programs import dspy_types

MAX_DEPTH: Final = 64
"""Deeper values come out as their type's name."""

_ATOMS: Final = frozenset({str, int, bool, type(None)})


def outputs_of(result: Any) -> dict[str, Any]:
    """What a program returned, as the object of its output fields. A bare value becomes the field `output`."""
    if isinstance(result, dspy.Example):
        return {str(name): to_json(value) for name, value in result.items()}
    if isinstance(result, Mapping):
        return {str(name): to_json(value) for name, value in result.items()}
    return {"output": to_json(result)}


def to_json(value: Any, depth: int = 0, above: tuple[int, ...] = ()) -> Any:
    """A new structure of dicts, lists, strings, numbers, booleans and None that says what `value` says.

    NaN and infinities, which JSON lacks, become strings. An object of an unknown class becomes its `str`, and a value
    within itself its type's name: a tree whose nodes know their parents would have paths without number. `above` are
    the ids of the values that hold this one.
    """
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind is float:
        return value if math.isfinite(value) else str(value)
    if depth > MAX_DEPTH or id(value) in above:
        return f"<{kind.__name__}>"
    above = (*above, id(value))
    # What there is most of, before the questions that take time.
    if kind is dict:
        return {key if type(key) is str else _key(key): to_json(item, depth + 1, above) for key, item in value.items()}
    if kind is list:
        return [to_json(item, depth + 1, above) for item in value]
    if kind is dspy.Prediction:
        return {str(name): to_json(item, depth + 1, above) for name, item in value.items()}
    if isinstance(value, Mapping):
        return {_key(key): to_json(item, depth + 1, above) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset | deque):
        return [to_json(item, depth + 1, above) for item in _ordered(value)]
    return _object_to_json(value, depth, above)


def _object_to_json(value: Any, depth: int, above: tuple[int, ...]) -> Any:
    if isinstance(value, enum.Enum):
        return to_json(value.value, depth + 1, above)
    if isinstance(value, dspy.Example):
        return {str(name): to_json(item, depth + 1, above) for name, item in value.items()}
    if isinstance(value, dspy.Tool):
        return {"name": value.name, "desc": value.desc, "args": to_json(value.args, depth + 1, above)}
    if isinstance(value, pydantic.BaseModel):
        return to_json(dspy_types.plain(value), depth + 1, above)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {part.name: to_json(getattr(value, part.name), depth + 1, above) for part in dataclasses.fields(value)}
    return _scalar_to_json(value)


def _scalar_to_json(value: Any) -> Any:
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return to_jsonable_python(value)
    if isinstance(value, bytes | bytearray):
        # The alphabet of `format: base64url`, as the schema says.
        return base64.urlsafe_b64encode(value).decode("ascii")
    if isinstance(value, re.Pattern):
        return value.pattern
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, bool | int):
        return int(value)
    if isinstance(value, decimal.Decimal | uuid.UUID | str):
        return str(value)
    if isinstance(value, type):
        return value.__name__
    return str(value)


def _key(key: Any) -> str:
    if isinstance(key, str) and not isinstance(key, enum.Enum):
        return str(key)
    if isinstance(key, bool):
        return str(key).lower()
    plain = to_json(key)
    return plain if isinstance(plain, str) else str(plain)


def _ordered(value: Any) -> list[Any]:
    if isinstance(value, set | frozenset):
        # A set has no order of its own, and equal answers should read equally.
        return sorted(value, key=repr)
    return list(value)
