"""JSON in and out, the same through every door."""

from __future__ import annotations

import datetime
import json
from typing import Any, NoReturn

import orjson

from dspyserve.errors import MalformedBody


def encode(value: Any) -> bytes:
    """`value`, which is JSON already but for exotic numbers and keys, as JSON."""
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS, default=str)
    except orjson.JSONEncodeError:
        # An integer beyond 64 bits: JSON allows it, orjson does not.
        return json.dumps(value, ensure_ascii=True, default=_plain).encode()


def _plain(value: Any) -> str:
    # As orjson writes it.
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else str(value)


def decode(data: bytes | str) -> Any:
    """The value that `data` is JSON of. Lone surrogates come through, for the validation to point at them.

    Raises:
        MalformedBody: `data` is not JSON, or nests too deep to be read.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        return _decode_surrogates(data, error)


def _decode_surrogates(data: bytes | str, first: Exception) -> Any:
    try:
        return json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise MalformedBody(f"The body is not valid JSON: {first}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
