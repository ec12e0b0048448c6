"""A thousand executions at once in one process, of a native-async program that waits for its model.

In two ways: they come one after the other, at the pace at which they end, and all in the same moment.
"""

from __future__ import annotations

import asyncio
import statistics
from typing import Final

from tests.load.report import heading, milliseconds, note, progress, quantile, spread, table
from tests.load.serving import contenders
from tests.load.serving.load import at_once
from tests.load.serving.plan import Plan
from tests.load.serving.servers import OURS, Servers

_MOST_OVERHEAD: Final = 0.5  # seconds


async def thousand(servers: Servers, plan: Plan) -> None:
    """Measure and print."""
    count, latency_ms = (100, 1_000) if plan.quick else (1_000, 5_000)
    # The last comes before the first is answered: all of them are under way then.
    await _measure(servers, plan, count, latency_ms, 0.9 * latency_ms / 1000)
    await _measure(servers, plan, count, latency_ms, 0.0)


async def _measure(servers: Servers, plan: Plan, count: int, latency_ms: int, spread_over: float) -> None:
    process = servers.processes[OURS]
    target = contenders.ours(process, "full").target("native_async")
    await at_once(target, count, 0)
    came = f"came within {spread_over:.1f} s" if spread_over else "came in the same moment"
    heading(f"{count:,} executions at once of a native-async program of {latency_ms / 1000:.0f} s, which {came}")
    medians, p99s, cpu, rows = [], [], [], []
    for number in range(plan.pace.rounds):
        before = process.cpu()
        times = await at_once(target, count, latency_ms, spread_over)
        if max(start for start, _ in times) > min(end for _, end in times):
            raise RuntimeError("they were not all under way at once")
        await asyncio.sleep(plan.pace.settling)
        cpu.append((process.cpu() - before) / count)
        overheads = [end - start - latency_ms / 1000 for start, end in times]
        medians.append(quantile(overheads, 0.5))
        p99s.append(quantile(overheads, 0.99))
        rows.append((len(times), max(overheads), process.rss(), process.threads()))
        progress(f"thousand, round {number + 1} of {plan.pace.rounds}: p99 {milliseconds(p99s[-1])} more")
    heads = ["served", "overhead p50, ms", "p99, ms", "max, ms", "CPU per run, ms", "RSS, MiB", "threads"]
    served, most, rss, threads = zip(*rows, strict=True)
    table(
        heads,
        [
            (
                f"{min(served):,} of {count:,} in every round",
                *(spread(values, 1e3, digits=0) for values in (medians, p99s, most)),
                spread(cpu, 1e3, digits=2),
                spread(rss, 2**-20, digits=0),
                str(max(threads)),
            )
        ],
    )
    if plan.judged and spread_over:
        met = "met" if statistics.median(p99s) < _MOST_OVERHEAD else "missed"
        note(f"Target: all served, p99 of the overhead < {milliseconds(_MOST_OVERHEAD)}: {met}.")
