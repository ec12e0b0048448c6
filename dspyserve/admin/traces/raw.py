"""Values as text, to be copied and saved: a string is itself, anything else is JSON, however deep it nests."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import orjson


def as_text(value: Any) -> str:
    """`value`, which is JSON, as a person wants it on the clipboard."""
    if isinstance(value, str):
        return value
    try:
        return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    except (orjson.JSONEncodeError, RecursionError):
        # Deeper than orjson goes, an integer beyond 64 bits, or a lone surrogate.
        return "".join(_pieces(value))


def _pieces(value: Any) -> Iterator[str]:
    """Without recursion: the stack holds values that are still to come, and texts that go out as they are."""
    stack: list[tuple[bool, Any]] = [(False, value)]
    while stack:
        is_text, item = stack.pop()
        if is_text:
            yield item
        elif isinstance(item, Mapping):
            stack += _reversed("{", [((json.dumps(str(key)) + ": "), child) for key, child in item.items()], "}")
        elif isinstance(item, list):
            stack += _reversed("[", [("", child) for child in item], "]")
        else:
            yield json.dumps(item)


def _reversed(opening: str, items: list[tuple[str, Any]], closing: str) -> list[tuple[bool, Any]]:
    pieces: list[tuple[bool, Any]] = [(True, opening)]
    for number, (key, child) in enumerate(items):
        pieces += [(True, (", " if number else "") + key), (False, child)]
    return [*pieces, (True, closing)][::-1]
