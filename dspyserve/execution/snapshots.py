"""Copies of what callbacks are shown. DSPy hands out live references, which the program may change a moment later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dspyserve.programs.values import to_json

_IMMUTABLE: Final = frozenset({str, int, float, bool, type(None)})


def snapshot(value: Any) -> Any:
    """`value` as plain data, of its own. Strings are shared, because they cannot change."""
    kind = type(value)
    if kind in _IMMUTABLE:
        return value
    if kind is dict and all(type(item) in _IMMUTABLE for item in value.values()):
        return dict(value)
    try:
        return to_json(value)
    except Exception as error:  # noqa: BLE001 - a foreign __str__ or property may raise anything
        return _unreadable(value, error)


def message_of(error: BaseException) -> str:
    """The text of `error`, which a program may have made."""
    try:
        return str(error)
    except Exception as trouble:  # noqa: BLE001 - as above
        return _unreadable(error, trouble)


def arguments(inputs: Mapping[str, Any]) -> Any:
    """The call of a module or tool as one object: its keyword arguments, and `args` where there are positional ones."""
    named = dict(inputs.get("kwargs") or {})
    if inputs.get("args"):
        named["args"] = inputs["args"]
    return snapshot(named)


def _unreadable(value: Any, error: Exception) -> str:
    return f"<{type(value).__name__}: {type(error).__name__} while it was read>"
