"""Tokens per second through one process, from a provider that sends as fast as it can."""

from __future__ import annotations

from tests.load.report import heading, progress, spread, table
from tests.load.streams.clients import Target
from tests.load.streams.load import question, stream
from tests.load.streams.servers import Servers

_TOKENS = 1_000
_COUNTS = (1, 16)


async def throughput(servers: Servers, *, quick: bool) -> None:
    """Measure and print."""
    rounds = 1 if quick else 3
    targets = [
        servers.raw(),
        servers.sse("bench_sync"),
        servers.sse("bench_async"),
        servers.websocket("bench_sync"),
        servers.websocket("bench_async"),
    ]
    found: dict[tuple[str, int], list[float]] = {}
    for number in range(rounds):
        for count in _COUNTS:
            for target in targets:
                progress(f"throughput, round {number + 1} of {rounds}: {count} from {target.name}")
                found.setdefault((target.name, count), []).append(await _speed(target, count))
    heading(f"Tokens per second through one process, answers of {_TOKENS} tokens")
    rows = [(each.name, *(spread(found[each.name, count], digits=0) for count in _COUNTS)) for each in targets]
    table(["from", *(f"{count} at once" for count in _COUNTS)], rows)


async def _speed(target: Target, count: int) -> float:
    readings = await stream(target, count, question(_TOKENS), tokens=_TOKENS)
    seconds = max(reading.ended for reading in readings) - min(reading.started for reading in readings)
    return count * _TOKENS / seconds
