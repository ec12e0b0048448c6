"""What a round of requests says of a server, and rounds of several servers in turns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.load.processes import Process
from tests.load.report import progress, quantile
from tests.load.serving.contenders import Contender
from tests.load.serving.load import Times


@dataclass(frozen=True, slots=True)
class Pace:
    """How long rounds take, and how many there are. Times are seconds."""

    seconds: float
    rounds: int
    settling: float = 0.5
    """After the last answer, in which is done what answers do not wait for; its CPU counts."""

    @property
    def warming(self) -> float:
        """Before the rounds, of each server: threads and connections are there then."""
        return min(self.seconds, 2.0) / 2


@dataclass(frozen=True, slots=True)
class Case:
    """What all servers are asked to do in a round."""

    program: str = "predict"
    concurrency: int = 16
    latency_ms: int = 50


@dataclass(slots=True)
class Series:
    """What the rounds of one server said."""

    name: str
    speed: list[float] = field(default_factory=list)
    """Requests per second."""
    median: list[float] = field(default_factory=list)
    """Of the latencies, in seconds."""
    p99: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """Seconds of the process and its children, per request."""
    rss: list[float] = field(default_factory=list)
    """Bytes, of the process and its children, after the round."""
    load: list[float] = field(default_factory=list)
    """Seconds of CPU of the load generator, per request."""
    provider: list[float] = field(default_factory=list)
    """Seconds of CPU of the provider, per request."""


async def rounds(contenders: Sequence[Contender], case: Case, pace: Pace, provider: Process) -> list[Series]:
    """Rounds in turns."""
    [found] = await rounds_of_all(lambda: contenders, [case], pace, provider)
    return found


async def rounds_of_all(
    contenders: Callable[[], Sequence[Contender]],
    cases: Sequence[Case],
    pace: Pace,
    provider: Process,
    renew: Callable[[], None] | None = None,
) -> list[list[Series]]:
    """Rounds in turns, each of all cases; `renew` starts other processes before the next round.

    One process of a server differs from the next, for as long as both run.
    """
    found = [[Series(contender.name) for contender in contenders()] for _ in cases]
    for number in range(pace.rounds):
        is_new = number == 0 or renew is not None
        if number and renew is not None:
            renew()
        running = contenders()
        for case, series in zip(cases, found, strict=True):
            if is_new:
                await _warm(running, case, pace)
            await _turn(running, series, case, pace, provider, number)
    return found


async def _warm(contenders: Sequence[Contender], case: Case, pace: Pace) -> None:
    """Let all do the work for a moment that does not count."""
    for contender in contenders:
        await contender.run(case.program, case.concurrency, pace.warming, case.latency_ms)


async def _turn(
    contenders: Sequence[Contender], found: Sequence[Series], case: Case, pace: Pace, provider: Process, number: int
) -> None:
    """One round of each, in the other order every second time."""
    pairs = list(zip(contenders, found, strict=True))
    for contender, series in pairs if number % 2 else reversed(pairs):
        await _round(contender, series, case, pace, provider)
        progress(
            f"{case.program}, {case.latency_ms} ms, {case.concurrency} at a time, round {number + 1} of"
            f" {pace.rounds}: {series.name}: {series.speed[-1]:.0f}/s, {series.cpu[-1] * 1e3:.2f} ms CPU"
        )


async def _round(contender: Contender, series: Series, case: Case, pace: Pace, provider: Process) -> None:
    before = contender.process.cpu(), provider.cpu(), time.process_time()
    times = await contender.run(case.program, case.concurrency, pace.seconds, case.latency_ms)
    loaded = time.process_time()
    await asyncio.sleep(pace.settling)
    count = len(times)
    series.cpu.append((contender.process.cpu() - before[0]) / count)
    series.provider.append((provider.cpu() - before[1]) / count)
    series.load.append((loaded - before[2]) / count)
    series.rss.append(contender.process.rss())
    series.speed.append(count / (max(end for _, end in times) - min(start for start, _ in times)))
    latencies = steady_latencies(times, case.concurrency)
    series.median.append(quantile(latencies, 0.5))
    series.p99.append(quantile(latencies, 0.99))


def steady_latencies(times: Times, concurrency: int) -> list[float]:
    """All but those of the first moment, in which every connection asks at once."""
    ordered = sorted(times)
    return [end - start for start, end in ordered[concurrency:] or ordered]
