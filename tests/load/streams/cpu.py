"""CPU of the server per token, against FastAPI with `dspy.streamify`, on the same work in turns."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.load.processes import Process
from tests.load.report import heading, note, progress, spread, table
from tests.load.streams.clients import Target
from tests.load.streams.load import question, stream
from tests.load.streams.servers import Servers

_STREAMS = 16
_TOKENS = 1_000
_PACED = 100  # tokens per second of each stream
_SETTLING = 0.5  # seconds after the last token, in which traces are stored
_TARGETS = {"bench_sync": "0.25", "bench_async": "0.6"}


@dataclass(slots=True)
class _Series:
    """What the rounds of one variant took."""

    target: Target
    server: Process
    cpu: list[float] = field(default_factory=list)
    """Seconds per token."""
    speed: list[float] = field(default_factory=list)
    """Tokens per second."""
    busy: list[float] = field(default_factory=list)
    """Share of a core."""


async def cpu(servers: Servers, *, quick: bool) -> None:
    """Measure and print, as fast as the provider can and at a pace."""
    await _measure(servers, "as fast as it goes", 0, rounds=2 if quick else 5)
    await _measure(servers, f"at {_PACED} tokens/s each", _PACED, rounds=1 if quick else 5)


async def _measure(servers: Servers, pace: str, rate: int, rounds: int) -> None:
    series = {
        name: (
            _Series(servers.sse(name), servers.ours),
            _Series(servers.streamify(name), _fastapi(servers)),
        )
        for name in _TARGETS
    }
    for number in range(rounds):
        for pair in series.values():
            for each in pair if number % 2 else reversed(pair):
                progress(f"cpu, {pace}, round {number + 1} of {rounds}: {each.target.name}")
                await _round(each, rate)
    heading(f"CPU of the server per token: {_STREAMS} streams of {_TOKENS} tokens, {pace}")
    table(
        ["server, program", "µs per token, median (least–most)", "tokens/s", "share of a core"],
        [_row(each) for pair in series.values() for each in pair],
    )
    _print_ratios(series)


async def _round(series: _Series, rate: int) -> None:
    before = series.server.cpu()
    readings = await stream(series.target, _STREAMS, question(_TOKENS, rate), tokens=_TOKENS)
    seconds = max(reading.ended for reading in readings) - min(reading.started for reading in readings)
    await asyncio.sleep(_SETTLING)
    used = series.server.cpu() - before
    tokens = _STREAMS * _TOKENS
    series.cpu.append(used / tokens)
    series.speed.append(tokens / seconds)
    series.busy.append(used / seconds)


def _row(series: _Series) -> Sequence[str]:
    return (series.target.name, spread(series.cpu, 1e6), spread(series.speed, digits=0), spread(series.busy, digits=2))


def _print_ratios(series: dict[str, tuple[_Series, _Series]]) -> None:
    rows = []
    for name, (ours, theirs) in series.items():
        ratios = [mine / other for mine, other in zip(ours.cpu, theirs.cpu, strict=True)]
        overall = statistics.median(ours.cpu) / statistics.median(theirs.cpu)
        rows.append((name.removeprefix("bench_"), f"{overall:.2f}", spread(ratios, digits=2), f"≤ {_TARGETS[name]}"))
    table(["program", "ratio of the medians", "ratios of the rounds", "target"], rows)
    note("Traces are stored in full by ours, and not at all by the other.")


def _fastapi(servers: Servers) -> Process:
    assert servers.fastapi is not None
    return servers.fastapi
