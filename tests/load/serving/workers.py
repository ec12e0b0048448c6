"""One process and two, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import os
from typing import Final
from urllib.parse import urlsplit

from tests.load import deployment
from tests.load.databases import create, drop
from tests.load.processes import Process
from tests.load.report import heading, note, progress, table
from tests.load.serving import contenders
from tests.load.serving.contenders import Contender
from tests.load.serving.plan import Plan
from tests.load.serving.readings import Case, rounds
from tests.load.serving.servers import OURS, SETTINGS, Servers
from tests.load.serving.tables import READINGS, Comparison, Ratio, cells, print_ratios, ratios

_POSTGRESQL: Final = "postgres://postgres@127.0.0.1:5432/postgres"
"""Where PostgreSQL is looked for, unless DATABASE_URL names one."""
_COUNTS: Final = (1, 2)
_TARGETS: Final = (Ratio("requests/s", lambda series: series.speed, least=1.8), *ratios()[:1])


async def processes(servers: Servers, plan: Plan) -> None:
    """Measure and print."""
    case = Case(concurrency=plan.some((64,), 16)[0])
    heading(f"One process and two, a Predict, {case.latency_ms} ms, {case.concurrency} at a time, full traces")
    measured = {"SQLite": await _on_sqlite(servers, plan)}
    url = None if plan.quick else _made()
    try:
        if url is not None:
            deployment.deploy(SETTINGS, servers.directory, url, servers.address)
            measured["PostgreSQL"] = [await _start(servers, "PostgreSQL", url, count) for count in _COUNTS]
        flat = [contender for pair in measured.values() for contender in pair]
        found = iter(await rounds(flat, case, plan.pace, servers.provider))
    finally:
        servers.stop(*(name for name in servers.processes if name.startswith("workers")))
        if url is not None:
            drop(url)
    pairs = {database: (next(found), next(found)) for database in measured}
    table(["server", *READINGS], [(each.name, *cells(each)) for pair in pairs.values() for each in pair])
    print_ratios((Comparison(name, two, one, _TARGETS) for name, (one, two) in pairs.items()), judged=plan.judged)
    note("The load generator and the provider run on the same cores: two processes have what these leave them.")
    if url is None:
        note("PostgreSQL is left out: it could not be reached." if not plan.quick else "PostgreSQL is left out.")


def _made() -> str | None:
    """The address of a new database of PostgreSQL; None where the server cannot be reached."""
    import psycopg

    parts = urlsplit(os.environ.get("DATABASE_URL", _POSTGRESQL))
    if not parts.scheme.startswith("postgres"):
        parts = urlsplit(_POSTGRESQL)
    url = parts._replace(path=f"/dspyserve_benchmark_{os.getpid()}").geturl()
    try:
        create(url)
    except psycopg.Error as error:
        progress(f"PostgreSQL: {error}")
        return None
    return url


async def _on_sqlite(servers: Servers, plan: Plan) -> list[Contender]:
    """Two servers on two new files; to see that it works, one that is there already will do."""
    if plan.quick:
        one = contenders.ours(servers.processes[OURS], "full", "SQLite, 1 process")
    else:
        one = await _start(servers, "SQLite", "", 1)
    return [one, await _start(servers, "SQLite", "", 2)]


async def _start(servers: Servers, database: str, url: str, count: int) -> Contender:
    name = f"{database}, {count} process{'es' if count > 1 else ''}"
    # Without the option uvicorn serves in the process that was started.
    options = [f"--workers={count}"] if count > 1 else []
    process = servers.start_ours(f"workers-{database}-{count}", url, *options)
    process.wait()
    if count > 1:
        await _come_to_rest(process)
    return contenders.ours(process, "full", name)


async def _come_to_rest(process: Process) -> None:
    """Wait until it does nothing: one worker listens already while the other still starts."""
    before = -1.0
    while (now := process.cpu()) - before > 0.05:
        before = now
        await asyncio.sleep(0.5)
