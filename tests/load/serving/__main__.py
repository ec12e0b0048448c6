"""The command: starts the servers, measures, prints the report."""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import uvloop

from tests.load.limits import raise_file_limit
from tests.load.report import note, progress
from tests.load.serving.comparisons import concurrency, latency, levels, programs
from tests.load.serving.growth import growth
from tests.load.serving.plan import Plan
from tests.load.serving.servers import BARE, CLI, FASTAPI_ASYNCIFY, OURS, Servers, servers
from tests.load.serving.thousand import thousand
from tests.load.serving.workers import processes

_ALL = (OURS, FASTAPI_ASYNCIFY, CLI, BARE)
_PACKAGES = ("dspy", "django", "uvicorn", "uvloop")


@dataclass(frozen=True, slots=True)
class _Measure:
    run: Callable[[Servers, Plan], Awaitable[None]]
    needs: tuple[str, ...] = ()
    """What is started for it, and stays; some start more."""
    repeats: bool = False
    """Whether it says nothing new where rounds are short, and is left out unless it is asked for."""


_MEASURES = {
    "concurrency": _Measure(concurrency, _ALL),
    "latency": _Measure(latency, _ALL, repeats=True),
    "programs": _Measure(programs, _ALL),
    "levels": _Measure(levels, (OURS, BARE)),
    "processes": _Measure(processes, (OURS,)),
    "thousand": _Measure(thousand, (OURS,)),
    "growth": _Measure(growth),
}


def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser(prog="python -m tests.load.serving", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short rounds, to see that it works")
    parser.add_argument("--only", nargs="+", choices=list(_MEASURES), metavar="NAME", help=", ".join(_MEASURES))
    parser.add_argument("--rounds", type=int, metavar="N", help="5 by default")
    options = parser.parse_args()
    raise_file_limit()
    names = options.only or [name for name, each in _MEASURES.items() if not (options.quick and each.repeats)]
    with (
        tempfile.TemporaryDirectory(prefix="dspyserve-serving-") as directory,
        servers(Path(directory)) as started,
    ):
        try:
            uvloop.run(_measure(started, names, Plan(options.quick, options.rounds)))
        except BaseException:
            for name, process in started.processes.items():
                progress(f"{name}: {process.log()}")
            raise


async def _measure(started: Servers, names: list[str], plan: Plan) -> None:
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    note(f"# Requests\n\nPython {platform.python_version()}, {packages}, {os.cpu_count()} cores.")
    note(f"Rounds in turns: {plan.pace.rounds}, of {plan.pace.seconds} s each; medians (least–most).")
    started.start({need for name in names for need in _MEASURES[name].needs})
    for name in names:
        await _MEASURES[name].run(started, plan)


if __name__ == "__main__":
    main()
