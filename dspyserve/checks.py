"""System checks: what is wrong with the settings or the registered programs, before the first request."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any, Final, get_type_hints

from django.apps import AppConfig
from django.core import checks
from django.db import DatabaseError

from dspyserve.conf import KEYS, DspyserveSettings, given, parse_rate
from dspyserve.models import Program
from dspyserve.programs.registry import registry

_POSITIVE: Final = frozenset(
    {
        "POOL_SIZE",
        "MAX_CONCURRENCY",
        "TIMEOUT",
        "MAX_TIMEOUT",
        "MAX_BODY",
        "MAX_INPUT_DEPTH",
        "SSE_KEEPALIVE",
        "STREAM_LIMIT",
        "WEBSOCKET_HEARTBEAT",
        "WEBSOCKET_IDLE",
        "WEBSOCKET_MAX_RUNS",
        "LM_CONNECTIONS",
        "BATCH_SIZE",
        "TRACE_BATCH",
    }
)
"""Keys whose zero turns nothing off: programs would wait for a thread for ever, heartbeats would flood sockets."""


@checks.register("dspyserve")
def check_settings(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[checks.CheckMessage]:
    """Unknown keys of `DSPYSERVE`, values of the wrong type, and rates that cannot be read."""
    return [*_unknown_keys(), *_wrong_types(), *_wrong_rates(), *_missing_redis()]


@checks.register("dspyserve")
def check_registrations(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[checks.CheckMessage]:
    """Two programs of one name."""
    return [
        checks.Error(
            f"Two programs are registered as {duplicate.name!r}: {_origin(duplicate.name)} and {duplicate.origin}.",
            hint="Give one of them another name.",
            id="dspyserve.E003",
        )
        for duplicate in registry.duplicates
    ]


@checks.register("dspyserve", deploy=True)
def check_open_programs(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[checks.CheckMessage]:
    """Every program that anybody may run."""
    try:
        names = sorted(
            Program.objects.filter(access=Program.Access.PUBLIC, is_enabled=True).values_list("name", flat=True)
        )
    except DatabaseError:
        # Checks also run before the first migration.
        return []
    return [
        checks.Warning(
            f"Everybody may run the program {name!r}, without credentials.",
            hint="Set its access to authenticated or restricted, unless it is meant to be open.",
            obj=name,
            id="dspyserve.W001",
        )
        for name in names
    ]


def _origin(name: str) -> str:
    registration = registry.get(name)
    return registration.origin if registration else "?"


def _unknown_keys() -> Iterator[checks.CheckMessage]:
    for key in given():
        if key not in KEYS:
            close = difflib.get_close_matches(str(key).upper(), KEYS, n=1)
            hint = f"Did you mean {close[0]}?" if close else f"The keys are {', '.join(sorted(KEYS))}."
            yield checks.Error(f"DSPYSERVE has an unknown key {key!r}.", hint=hint, id="dspyserve.E001")


def _wrong_types() -> Iterator[checks.CheckMessage]:
    hints = get_type_hints(DspyserveSettings)
    for field in fields(DspyserveSettings):
        key = field.name.upper()
        if key not in given():
            continue
        if wanted := _fault(given()[key], hints[field.name]):
            yield checks.Error(f"DSPYSERVE[{key!r}] must be {wanted}.", id="dspyserve.E002")
        elif key in _POSITIVE and not given()[key]:
            yield checks.Error(f"DSPYSERVE[{key!r}] must be above 0.", id="dspyserve.E002")


def _wrong_rates() -> Iterator[checks.CheckMessage]:
    for key in ("RATE_LIMIT_KEY", "RATE_LIMIT_USER", "RATE_LIMIT_ANONYMOUS"):
        try:
            parse_rate(str(given().get(key, "")))
        except ValueError as error:
            yield checks.Error(f"DSPYSERVE[{key!r}]: {error}.", id="dspyserve.E004")


def _missing_redis() -> Iterator[checks.CheckMessage]:
    if given().get("REDIS_URL") and importlib.util.find_spec("redis") is None:
        yield checks.Error(
            "DSPYSERVE['REDIS_URL'] needs the package redis.",
            hint="pip install 'dspyserve[redis]'",
            id="dspyserve.E005",
        )


def _fault(value: Any, hint: Any) -> str | None:
    if hint is int:
        return None if type(value) is int and value >= 0 else "a whole number, not negative"
    if hint is float:
        return None if type(value) in (int, float) and value >= 0 else "a number of seconds, not negative"
    if hint is str:
        return None if isinstance(value, str) else "a string"
    is_list = isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
    return None if is_list else "a list of strings"
