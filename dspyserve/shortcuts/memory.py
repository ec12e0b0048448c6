"""What is remembered of DSPy's work, by what it depends on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

MANY: Final = 1_000
"""The most that is remembered of a kind; mostly there are some dozens."""


def remembered(known: dict[Any, Any], key: Any, find: Callable[[], Any]) -> Any:
    """What is known by `key`, or else found, and known from now on."""
    found = recall(known, key)
    if found is None:
        found = find()
        remember(known, key, found)
    return found


def recall(known: dict[Any, Any], key: Any) -> Any:
    """None where nothing is remembered, or nothing can be: settings such as headers cannot be looked up."""
    try:
        return known.get(key)
    except TypeError:
        return None


def remember(known: dict[Any, Any], key: Any, found: Any) -> None:
    """Remember `found`, unless `key` is None or cannot be looked up, or there is too much already."""
    if key is not None and len(known) < MANY:
        with suppress(TypeError):
            known[key] = found
