"""What of a stream is in Redis, under which keys: a Redis Stream of its events, a hash about it, a lease per process.

An entry of the Redis Stream holds events in a row, and its id is the number of the last one. So whoever appends what
is there already is refused, and whoever knows the event of number n reads on after the id n.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from dspyserve.conf import settings
from dspyserve.encoding import decode, encode
from dspyserve.events import TOKEN, Event

if TYPE_CHECKING:
    from redis import Redis

LEASE: Final = 10
"""Seconds after the last sign of life of a process until its executions count as lost."""

_APPEND: Final = """
if redis.call('HEXISTS', KEYS[2], 'lost') == 1 then return 0 end
local added = redis.pcall('XADD', KEYS[1], ARGV[1] .. '-0', 'events', ARGV[2])
if type(added) == 'table' and added.err and not string.find(added.err, 'equal or smaller') then return added end
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[3])
return 1
"""
"""Append an entry, unless somebody found the execution lost; one that is there already is passed over."""


@dataclass(frozen=True, slots=True)
class About:
    """What is known of a stream: its owner, and the process that runs it."""

    owner: str
    process: str


@cache
def connection(url: str) -> Redis:
    """The client of this process; threads share it."""
    from redis import Redis  # noqa: PLC0415 - an optional dependency

    return Redis.from_url(url, socket_connect_timeout=2, socket_timeout=5)


def stream_key(trace_id: str) -> str:
    """Where its events are. The braces keep the keys of one stream on one node of a cluster."""
    return f"dspyserve:stream:{{{trace_id}}}"


def about_key(trace_id: str) -> str:
    """Where that is which is known about it."""
    return f"{stream_key(trace_id)}:about"


def lease_key(process: str) -> str:
    """What is there while a process lives."""
    return f"dspyserve:process:{process}"


def announce(client: Any, trace_id: str, about: About) -> None:
    """Tell that there is such a stream: two commands. It is forgotten should its process never tell of an event."""
    client.hset(about_key(trace_id), mapping=asdict(about))
    client.expire(about_key(trace_id), math.ceil(settings().stream_resume + settings().max_timeout))


def append(client: Any, script: Any, trace_id: str, events: list[Event]) -> None:
    """Add `events`. The stream stays while the execution may, and `STREAM_RESUME` seconds after its end."""
    seconds = settings().stream_resume + (0 if events[-1].is_terminal else settings().max_timeout)
    keys = [stream_key(trace_id), about_key(trace_id)]
    script(keys=keys, args=[events[-1].seq, pack(events), math.ceil(seconds)], client=client)


def appending(client: Redis) -> Any:
    """The script that `append` needs."""
    return client.register_script(_APPEND)


def read_about(client: Redis, trace_id: str) -> About | None:
    """What is known about a stream; None where there is none."""
    found = {key.decode(): value.decode() for key, value in _mapping(client.hgetall(about_key(trace_id))).items()}
    return About(found["owner"], found["process"]) if {"owner", "process"} <= found.keys() else None


def pack(events: Iterable[Event]) -> bytes:
    """Events in a row as JSON; what tokens of one field have in common is told once."""
    packed: list[dict[str, Any]] = []
    for event in events:
        if event.type != TOKEN:
            packed.append(event.as_dict(payloads=True))
            continue
        last = packed[-1] if packed else {}
        field = (event.span_id, event.data["field"])
        if "deltas" in last and (last["span_id"], last["field"]) == field:
            last["deltas"].append(event.data["delta"])
            last["moments"].append(event.at)
        else:
            message = event.as_dict()
            packed.append({**message, "deltas": [message.pop("delta")], "moments": [message["at"]]})
    return encode(packed)


def unpack(text: bytes) -> list[Event]:
    """What `pack` was given."""
    events: list[Event] = []
    for message in decode(text):
        deltas, moments = message.pop("deltas", None), message.pop("moments", ())
        if deltas is None:
            events.append(_event(message))
            continue
        message.pop("delta", None)
        for offset, (delta, at) in enumerate(zip(deltas, moments, strict=True)):
            events.append(_event({**message, "seq": message["seq"] + offset, "at": at, "delta": delta}))
    return events


_IDENTITIES: Final = ("type", "seq", "trace_id", "at", "span_id", "parent_id", "name")


def _event(message: Mapping[str, Any]) -> Event:
    identities: dict[str, Any] = {name: message[name] for name in _IDENTITIES if name in message}
    return Event(**identities, data={name: value for name, value in message.items() if name not in _IDENTITIES})


def _mapping(found: Any) -> dict[bytes, bytes]:
    return dict(found)
