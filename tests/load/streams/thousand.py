"""Many open streams in one server process: memory, CPU, and how late tokens arrive."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.load.processes import Process
from tests.load.report import heading, milliseconds, note, progress, quantile, table
from tests.load.streams.clients import Target
from tests.load.streams.load import Load, question
from tests.load.streams.servers import Servers

_RATE = 20
_MIB = 2**20


@dataclass(slots=True)
class _Watch:
    """What the server's process did while it was watched."""

    server: Process
    rss: int = 0
    """The most that was seen."""
    threads: int = 0
    times: list[tuple[float, float, float]] = field(default_factory=list)
    """The clock, the server's CPU time, the load generator's."""

    async def run(self) -> None:
        """Look four times a second, until cancelled."""
        while True:
            self.rss = max(self.rss, self.server.rss())
            self.threads = max(self.threads, self.server.threads())
            self.times.append((time.monotonic(), self.server.cpu(), time.process_time()))
            await asyncio.sleep(0.25)

    def share(self, start: float, end: float, column: int = 1) -> float:
        """Share of a core between two moments."""
        seen = [each for each in self.times if start <= each[0] <= end]
        return (seen[-1][column] - seen[0][column]) / (seen[-1][0] - seen[0][0]) if len(seen) > 1 else float("nan")


async def thousand(servers: Servers, *, quick: bool) -> None:
    """Measure and print."""
    sizes = (100,) if quick else (100, 250, 500, 1_000)
    seconds = 5 if quick else 20
    sse, websocket = servers.sse("bench_async"), servers.websocket("bench_async")
    raw = servers.raw()
    kinds = {raw.name: [raw], "half SSE, half WebSocket": [sse, websocket], "SSE": [sse], "WebSocket": [websocket]}
    heading(f"Open streams of {_RATE} tokens/s each in one process, {seconds} s with all of them open")
    rows = []
    for count in sizes:
        for name, targets in kinds.items():
            if count == sizes[-1] or len(targets) == 2:
                progress(f"thousand: {count}, {name}")
                rows.append((str(count), name, *await _row(servers, targets, count, seconds)))
                progress(" | ".join(rows[-1]))
    heads = ["streams", "from", "RSS before", "at its peak", "per stream", "CPU (of a core)", "threads"]
    table([*heads, "lag p50", "p99", "max", "CPU of the load"], rows)
    note(
        "The lag is from when the provider sent a token to when the client had it, while all streams were open. The"
        " program is native-async, and LM_CONNECTIONS lets it have as many connections as there are streams."
    )


async def _row(servers: Servers, targets: Sequence[Target], count: int, seconds: int) -> tuple[str, ...]:
    server = servers.ours if targets[0].port == servers.ours.port else servers.provider
    before = server.rss()
    arrival = count / 100
    tokens = int((arrival + seconds) * _RATE)
    watch = _Watch(server)
    load = Load(targets, count)
    start = time.monotonic() + arrival + 1
    for reading in load.readings:
        reading.lags_since = start
    watching = asyncio.create_task(watch.run())
    try:
        readings = await load.run(question(tokens, _RATE), spread=arrival, tokens=tokens)
    finally:
        watching.cancel()
    end = min(reading.ended for reading in readings)
    lags = array("d")
    for reading in readings:
        lags.extend(reading.lags)
    await asyncio.sleep(2)  # for the traces to be stored
    return (
        f"{before / _MIB:.0f} MiB",
        f"{watch.rss / _MIB:.0f} MiB",
        f"{(watch.rss - before) / count / 1024:.0f} KiB",
        f"{watch.share(start, end):.2f}",
        str(watch.threads),
        *(milliseconds(quantile(lags, share)) for share in (0.5, 0.99, 1)),
        f"{watch.share(start, end, 2):.2f}",
    )
