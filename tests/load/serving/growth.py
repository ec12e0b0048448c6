"""What a trace and a span cost while more and more traces are stored."""

from __future__ import annotations

import sqlite3
import statistics
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Final

from tests.load import deployment
from tests.load.processes import Process
from tests.load.report import heading, note, progress, spread, table
from tests.load.serving import contenders
from tests.load.serving.contenders import Contender
from tests.load.serving.plan import Plan
from tests.load.serving.readings import Case, Series, rounds
from tests.load.serving.servers import SETTINGS, Servers

_FEW, _MANY = 10, 100
_PROGRAMS: Final = {"predict": 0, f"spans_{_FEW}": _FEW, f"spans_{_MANY}": _MANY}
"""The spans that traces of the measured programs have; those of the first are not counted."""


async def growth(servers: Servers, plan: Plan) -> None:
    """Measure and print."""
    sizes = (2_000,) if plan.quick else (0, 10_000, 100_000, 1_000_000)
    heading("What storing a trace costs while more are stored: SQLite, 50 ms, 16 at a time")
    started = {size: _start(servers, size) for size in sizes}
    for process in started.values():
        process.wait()
    compared: list[Contender] = [contenders.ours(started[sizes[0]], "off", "no traces are stored")]
    compared += [contenders.ours(process, "full", f"{size:,} stored before") for size, process in started.items()]
    pace = plan.pace if plan.quick else replace(plan.pace, seconds=4.0)
    found = {name: await rounds(compared, Case(name), pace, servers.provider) for name in _PROGRAMS}
    _check_spans(servers, sizes)
    servers.stop(*(_name(size) for size in sizes))
    heads = ["traces", *(f"CPU per request, {name}, ms" for name in _PROGRAMS)]
    table([*heads, "a trace costs, ms", "a span costs, µs"], [_row(number, found) for number in range(len(compared))])
    note(
        "What a trace costs is the CPU per request of the Predict that is more than without traces; what a span costs"
        f" is told by programs of {_FEW} and of {_MANY} spans, likewise. Target: constant."
    )


def _name(size: int) -> str:
    return f"growth-{size}"


def _start(servers: Servers, size: int) -> Process:
    directory = servers.directory / _name(size)
    directory.mkdir()
    database = servers.database(directory)
    if size:
        progress(f"growth: {size:,} traces are stored")
        environment = deployment.environment_of(SETTINGS, directory, database)
        deployment.run(environment, "-m", "tests.load.serving.filling", str(size))
    return servers.start_ours(_name(size), database)


def _check_spans(servers: Servers, sizes: Sequence[int]) -> None:
    """The traces of the programs are there, with the spans that they should have."""
    query = "SELECT DISTINCT span_count FROM dspyserve_trace WHERE program_name = ?"
    for size in sizes:
        with closing(sqlite3.connect(servers.directory / _name(size) / "db.sqlite3")) as connection:
            for program, count in _PROGRAMS.items():
                stored = connection.execute(query, [f"{program}-full"]).fetchall()
                if not stored or (count and stored != [(count,)]):
                    raise RuntimeError(f"traces of {program} should have {count} spans, and have {stored}")


def _row(number: int, found: dict[str, list[Series]]) -> tuple[str, ...]:
    """Of the server of this number; what traces cost is the difference to the first."""
    series = [each[number] for each in found.values()]
    costs = [_differences(each[number], each[0]) for each in found.values()]
    spans = [(many - few) / (_MANY - _FEW) for few, many in zip(costs[1], costs[2], strict=True)]
    return (
        series[0].name,
        *(spread(each.cpu, 1e3, digits=2) for each in series),
        *(("–", "–") if number == 0 else (spread(costs[0], 1e3, digits=2), spread(spans, 1e6, digits=0))),
    )


def _differences(one: Series, other: Series) -> list[float]:
    return [mine - statistics.median(other.cpu) for mine in one.cpu]
