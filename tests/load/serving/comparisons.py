"""Our server against the others, on the same work in turns."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from tests.load.report import heading, note, table
from tests.load.serving.contenders import Contender
from tests.load.serving.plan import Plan
from tests.load.serving.readings import Case, Series, rounds_of_all
from tests.load.serving.servers import Servers
from tests.load.serving.tables import READINGS, Comparison, Ratio, cells, print_ratios, ratios

_FULL, _OFF, _FASTAPI, _CLI, _BARE = range(5)
_AGAINST_BARE = (ratios(cpu=1.25)[0],)


async def concurrency(servers: Servers, plan: Plan) -> None:
    """One call of a model that takes 50 ms, at many concurrencies."""
    cases = [Case(concurrency=count) for count in plan.some((1, 16, 64, 256), 16)]
    await _compare(servers, plan, "A Predict, 50 ms", cases, _with_targets)


async def latency(servers: Servers, plan: Plan) -> None:
    """One call of a model that takes no time, and of one that takes long."""
    cases = [Case(latency_ms=0, concurrency=64), Case(latency_ms=500, concurrency=256)]
    await _compare(servers, plan, "A Predict, 0 and 500 ms", plan.some(cases, Case()), _without_targets)


async def programs(servers: Servers, plan: Plan) -> None:
    """Programs that only run synchronously, and that call the model three times and four times."""
    cases = [Case(name, count) for name in ("synchronous", "three_steps", "react") for count in plan.some((16, 64), 16)]
    await _compare(
        servers, plan, "A synchronous module, a program of three steps, and a ReAct, 50 ms", cases, _without_targets
    )


async def levels(servers: Servers, plan: Plan) -> None:
    """What traces cost."""
    heading("Traces full, of metadata, and off, against DSPy alone: a Predict, 50 ms")
    found = await _measure(
        servers,
        plan,
        lambda: [servers.ours("full"), servers.ours("metadata"), servers.ours("off"), servers.bare()],
        [Case(concurrency=count) for count in plan.some((16, 64), 16)],
    )
    print_ratios(
        [
            Comparison(_name(case), each, series[-1], _AGAINST_BARE if number == 2 else ratios()[:1])
            for case, series in found
            for number, each in enumerate(series[:-1])
        ],
        judged=plan.judged,
    )


_Targets = Callable[[Case, int], Sequence[Ratio]]


def _with_targets(case: Case, number: int) -> Sequence[Ratio]:
    """Requests per second have no target where one request is made at a time, for then all wait for the model."""
    if number == _FASTAPI:
        return ratios(cpu=0.9, speed=1.1 if case.concurrency > 1 else None, p99=1.0)
    return ratios(cpu=0.5, speed=1.8 if case.concurrency > 1 else None, p99=1.0)


def _without_targets(case: Case, number: int) -> Sequence[Ratio]:
    return ratios()


async def _compare(servers: Servers, plan: Plan, title: str, cases: Sequence[Case], targets: _Targets) -> None:
    heading(title)
    found = await _measure(
        servers,
        plan,
        lambda: [servers.ours("full"), servers.ours("off"), servers.fastapi(), servers.dspy_cli(), servers.bare()],
        cases,
    )
    compared = []
    for case, series in found:
        for number in (_FASTAPI, _CLI):
            compared.append(Comparison(_name(case), series[_FULL], series[number], targets(case, number)))
        against_bare = _AGAINST_BARE if targets is _with_targets else ratios()[:1]
        compared.append(Comparison(_name(case), series[_OFF], series[_BARE], against_bare))
    print_ratios(compared, judged=plan.judged)


async def _measure(
    servers: Servers, plan: Plan, contenders: Callable[[], Sequence[Contender]], cases: Sequence[Case]
) -> list[tuple[Case, list[Series]]]:
    measured = await rounds_of_all(
        contenders, cases, plan.pace, servers.provider, servers.renew if plan.renews else None
    )
    found = list(zip(cases, measured, strict=True))
    rows = [(_name(case), each.name, *cells(each)) for case, series in found for each in series]
    table(["case", "server", *READINGS], rows)
    _, last = found[-1]
    shares = [f"{statistics.median(getattr(last[0], name)) * 1e3:.2f} ms" for name in ("load", "provider")]
    note(f"On the same cores, per request of ours: the load generator {shares[0]}, the provider {shares[1]}.")
    return found


def _name(case: Case) -> str:
    return f"{case.program}, {case.latency_ms} ms, {case.concurrency} at a time"
