"""The settings of dspyserve: one dict, `DSPYSERVE`, in Django's settings, typed, with defaults for every key."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from django.conf import settings as django_settings
from django.core.signals import setting_changed


@dataclass(frozen=True, slots=True, kw_only=True)
class DspyserveSettings:
    """Every key of `DSPYSERVE`, in lower case, with its default. Times are in seconds, sizes in bytes."""

    pool_size: int = 32
    """Threads per process that run synchronous programs."""
    pool_queue: int = 128
    """Executions per process that may wait for one of those threads; more are refused as overloaded."""
    max_concurrency: int = 64
    """Executions of one program at a time and process, where the program does not say."""
    max_queue: int = 128
    """Executions of one program that may wait, where the program does not say."""
    timeout: float = 120.0
    """The deadline of an execution, where neither the program nor the caller says."""
    max_timeout: float = 600.0
    """The longest deadline that a caller may ask for."""
    retry_after: float = 1.0
    """What an overloaded answer tells its client to wait."""
    shutdown_grace: float = 10.0
    """How long running executions may go on after the server was told to stop."""
    max_body: int = 1_000_000
    """The largest request body and WebSocket message. Daphne itself drops a socket at 1 MiB, without a word."""
    max_input_depth: int = 32
    """How deep an input may nest."""
    max_tags: int = 20
    """How many tags a caller may put on a trace."""
    max_metadata: int = 8_192
    """The largest metadata object, as JSON."""
    sse_keepalive: float = 15.0
    """A comment goes out on a silent event stream after this time."""
    stream_buffer: int = 1_000
    """Events that may wait for a slow reader before token events are merged."""
    stream_pace: float = 0.015
    """Tokens that follow one another within this time go out together."""
    stream_limit: int = 100_000
    """Events of one run that are kept for its readers: one that is further behind counts as gone."""
    stream_resume: float = 300.0
    """How long after its end a stream may be read again."""
    stream_memory: int = 67_108_864
    """What ended streams may take in memory; beyond it the oldest are let go."""
    redis_url: str = ""
    """Redis, through which streams may be read again from any process; in memory of one process without it."""
    websocket_path: str = "ws/programs"
    """Where on the site the sockets of programs are: `websocket_urlpatterns` and the pages of the admin go by it."""
    websocket_heartbeat: float = 15.0
    """A message goes out on a silent socket after this time."""
    websocket_idle: float = 60.0
    """A socket that sends no first message within this time is closed."""
    websocket_max_runs: int = 16
    """Executions at once on one socket."""
    refresh: float = 2.0
    """Programs and language models are read again from the database when what is known is older than this."""
    lm_connections: int = 1_000
    """Connections that one language model may have at a time; DSPy's own limit is 100."""
    api_key_env: tuple[str, ...] = ("*_API_KEY",)
    """Patterns of environment variable names that a language model's key may come from."""
    api_bases: tuple[str, ...] = ("https://*", "http://127.0.0.1:*", "http://localhost:*", "http://[[]::1]:*")
    """Patterns that the start of a language model's address, `scheme://host:port`, must match one of."""
    batch_size: int = 100
    """The most items of one batch."""
    rate_limit_key: str = ""
    """Requests that one API key may make, such as `600/min`; every item of a batch and every run on a socket counts."""
    rate_limit_user: str = ""
    """Requests that one signed-in user may make, likewise."""
    rate_limit_anonymous: str = ""
    """Requests that one address may make without credentials, likewise."""
    environment: str = ""
    """Where the process runs, such as `production`: kept with every trace, and a filter of the trace list."""
    callbacks: tuple[str, ...] = ()
    """Dotted paths of DSPy callbacks (instances, or classes without arguments) that every execution gets."""
    trace_commit_timeout: float = 2.0
    """How long an answer waits for its trace to be committed."""
    trace_batch: int = 200
    """The most traces that are committed together."""
    trace_queue: int = 67_108_864
    """Traces that wait in memory for the database; beyond it they go to disk."""
    trace_field_limit: int = 65_536
    """The largest text of one field of a trace; more is cut and the cut stated."""
    trace_limit: int = 8_388_608
    """The largest payload of one trace; more is cut and the cut stated."""
    trace_spool: str = ""
    """The directory for traces that could not be stored; by default `var/dspyserve-spool` under `BASE_DIR`."""
    trace_mask: str = ""
    """Dotted path of a function `(key, value) -> value` that every payload value passes before it is stored."""

    retention_days: int = 0
    """How many days `prune_traces` keeps traces where it is not told otherwise; 0 keeps them for ever."""
    retention_count: int = 0
    """How many traces `prune_traces` keeps, the newest, where it is not told otherwise; 0 keeps them all."""

    @property
    def spool_directory(self) -> Path:
        """Where traces wait that the database did not take before the process ended."""
        if self.trace_spool:
            return Path(self.trace_spool)
        base = getattr(django_settings, "BASE_DIR", None)
        return (Path(base) / "var" if base else Path(tempfile.gettempdir())) / "dspyserve-spool"


KEYS: dict[str, str] = {field.name.upper(): field.name for field in fields(DspyserveSettings)}
"""The keys as they are written in `DSPYSERVE`, and the attributes that hold them."""


def given() -> dict[str, Any]:
    """The dict as the project wrote it."""
    return dict(getattr(django_settings, "DSPYSERVE", {}) or {})


@cache
def settings() -> DspyserveSettings:
    """The settings in force. Unknown keys are reported by the system checks and ignored here."""
    known = {KEYS[key]: value for key, value in given().items() if key in KEYS}
    for name, value in known.items():
        if isinstance(value, list):
            known[name] = tuple(value)
    return DspyserveSettings(**known)


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_RATE = re.compile(r"(\d+)/(s|sec|second|m|min|minute|h|hour|d|day)")


def parse_rate(rate: str) -> tuple[int, int] | None:
    """`600/min` as requests and seconds; None for an empty string, which limits nothing.

    Raises:
        ValueError: it cannot be read.
    """
    if not rate:
        return None
    match = _RATE.fullmatch(rate)
    if match is None or int(match[1]) == 0:
        raise ValueError(f"{rate!r} is no rate such as 600/min (per s, min, h or day)")
    return int(match[1]), _UNITS[match[2][0]]


def _forget(*, setting: str, **_: Any) -> None:
    if setting == "DSPYSERVE":
        settings.cache_clear()


setting_changed.connect(_forget)
