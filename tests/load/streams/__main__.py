"""The command: starts the servers, measures, prints the report."""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path

import uvloop

from tests.load.limits import raise_file_limit
from tests.load.report import note, progress
from tests.load.streams.cpu import cpu
from tests.load.streams.first_token import first_token
from tests.load.streams.load import question, stream
from tests.load.streams.servers import Servers, servers
from tests.load.streams.thousand import thousand
from tests.load.streams.throughput import throughput

_MEASURES: dict[str, Callable[..., Awaitable[None]]] = {
    "first_token": first_token,
    "throughput": throughput,
    "thousand": thousand,
    "cpu": cpu,
}
_COMPARED = {"cpu", "first_token"}
_PACKAGES = ("dspy", "django", "uvicorn", "uvloop")


def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser(prog="python -m tests.load.streams", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short rounds, to see that it works")
    parser.add_argument("--only", action="append", choices=list(_MEASURES), help="may be given more than once")
    options = parser.parse_args()
    raise_file_limit()
    names = options.only or list(_MEASURES)
    with (
        tempfile.TemporaryDirectory(prefix="dspyserve-streams-") as directory,
        servers(Path(directory), with_fastapi=not _COMPARED.isdisjoint(names)) as started,
    ):
        try:
            uvloop.run(_measure(started, names, quick=options.quick))
        except BaseException:
            progress(f"ours: {started.ours.log()}")
            progress(f"FastAPI: {started.fastapi.log() if started.fastapi else '-'}")
            raise


async def _measure(started: Servers, names: list[str], *, quick: bool) -> None:
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    note(f"# Token streams\n\nPython {platform.python_version()}, {packages}, {os.cpu_count()} cores, SQLite, uvicorn.")
    await _warm_up(started)
    for name in names:
        await _MEASURES[name](started, quick=quick)


async def _warm_up(started: Servers) -> None:
    """Some streams from each, which also shows that all of them give the same answer, whole."""
    for name in ("bench_sync", "bench_async"):
        targets = [started.sse(name), started.websocket(name)]
        if started.fastapi is not None:
            targets.append(started.streamify(name))
        for target in targets:
            progress(f"warming up: {target.name}")
            for _ in range(3):
                await stream(target, 8, question(50), tokens=50)


if __name__ == "__main__":
    main()
