"""The time to the first token that the server adds to the provider's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tests.load.report import heading, milliseconds, note, progress, quantile, table
from tests.load.streams.clients import Reading, Target
from tests.load.streams.load import question, stream
from tests.load.streams.servers import Servers

_LATENCY_MS = 50
_RATE = 20
_TOKENS = 40
_OPEN = 50
_SECONDS = _TOKENS / _RATE + _LATENCY_MS / 1000  # of one stream
_Run = Callable[[Target], Awaitable[list[Reading]]]
_GOAL = "Target at 50 streams, steady: added < 10 ms."


async def first_token(servers: Servers, *, quick: bool) -> None:
    """Measure and print."""
    await _measure(servers, "one stream at a time", _alone, rounds=10 if quick else 80)
    steady = f"{_OPEN} open at a time, arriving evenly, {_OPEN / _SECONDS:.0f} per second"
    await _measure(servers, steady, _steady, rounds=1 if quick else 2)
    await _measure(servers, f"{_OPEN} asked in the same moment", _burst, rounds=2 if quick else 6)
    note(_GOAL)


async def _measure(servers: Servers, title: str, run: _Run, rounds: int) -> None:
    targets = [
        servers.raw(),
        servers.sse("bench_sync"),
        servers.sse("bench_async"),
        servers.websocket("bench_async"),
        servers.streamify("bench_sync"),
        servers.streamify("bench_async"),
    ]
    readings: dict[str, list[Reading]] = {target.name: [] for target in targets}
    for number in range(rounds):
        if number % 10 == 0 or rounds < 20:
            progress(f"first token, {title}: round {number + 1} of {rounds}")
        for target in targets:
            readings[target.name] += await run(target)
    heading(f"First token, {title}")
    raw = _waits(readings[targets[0].name])
    table(
        ["from", "streams", "median", "p99", "added, median", "added, p99", "of the median after the provider sent"],
        [_row(name, each, raw) for name, each in readings.items()],
    )


async def _alone(target: Target) -> list[Reading]:
    return await stream(target, 1, question(2, _RATE, _LATENCY_MS), tokens=2)


async def _burst(target: Target) -> list[Reading]:
    return await stream(target, _OPEN, question(10, _RATE, _LATENCY_MS), tokens=10)


async def _steady(target: Target) -> list[Reading]:
    """Four times as many as are open at a time; those that come while fewer are open do not count."""
    asked = question(_TOKENS, _RATE, _LATENCY_MS)
    return (await stream(target, 4 * _OPEN, asked, tokens=_TOKENS, spread=4 * _SECONDS))[_OPEN:]


def _waits(readings: list[Reading]) -> list[float]:
    return [reading.first - reading.started for reading in readings]


def _row(name: str, readings: list[Reading], raw: list[float]) -> tuple[str, ...]:
    waits = _waits(readings)
    quantiles = [quantile(waits, share) for share in (0.5, 0.99)]
    added = [value - quantile(raw, share) for value, share in zip(quantiles, (0.5, 0.99), strict=True)]
    lag = quantile([reading.first_lag for reading in readings], 0.5)
    return (name, str(len(readings)), *map(milliseconds, quantiles), *map(milliseconds, added), milliseconds(lag))
