"""What DSPy works out anew for every call although it comes out the same: here it is remembered.

A call of a language model costs DSPy 3.4.1 some six thousand function calls: it reads the environment for proxies,
looks the model up twice in a list of thousands, selects a backend three times, writes the same system message, inspects
the same functions, and hops to a thread four times for work of microseconds. Each module here takes the place of some
functions of DSPy, for the whole process, and gives what they give. Where a DSPy is so different that one of them has no
place any more, that one is left out and DSPy does its own work; a test fails then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module

logger = logging.getLogger(__name__)

_PARTS = (
    "callbacks",
    "connections",
    "lookups",
    "prompts",
    "proxies",
    "requests",
    "signatures",
    "streams",
    "threads",
    "timeouts",
)


def shortcuts() -> list[Callable[[], None]]:
    """All of them."""
    return [shortcut for part in _PARTS for shortcut in _part(part)]


@cache
def install() -> tuple[str, ...]:
    """Take all of them, once per process. Gives the parts that this DSPy has no place for."""
    missing = []
    for part in _PARTS:
        try:
            for shortcut in _part(part):
                shortcut()
        except (AttributeError, ImportError) as error:
            missing.append(part)
            logger.warning("DSPy goes without the shortcuts of %s: %s", part, error)
    return tuple(missing)


def _part(name: str) -> Iterable[Callable[[], None]]:
    found: Iterable[Callable[[], None]] = import_module(f"{__name__}.{name}").ALL
    return found
