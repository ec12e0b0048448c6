"""The command: makes the database, fills it, measures, prints the report."""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import django

from tests.load.databases import create
from tests.load.report import note, progress

MOULD = 1_000
"""Traces that are unlike each other; all others are copies of these."""


def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser(prog="python -m tests.load.browse", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20,000 traces, few visits: to see that it works")
    parser.add_argument("--traces", type=int, metavar="N", help="1,000,000 by default, in whole thousands")
    parser.add_argument("--visits", type=int, metavar="N", help="of every page; 7 by default")
    parser.add_argument(
        "--database",
        metavar="URL",
        help="sqlite:///FILE or postgres://…/NAME: made, and kept for the next time; by default a scratch file",
    )
    options = parser.parse_args()
    count = options.traces or (20_000 if options.quick else 1_000_000)
    with _database(options.database) as url:
        os.environ |= {"DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "tests.load.browse.settings"}
        django.setup()
        _prepare(count)
        _measure(options.visits or (2 if options.quick else 7))


@contextmanager
def _database(url: str | None) -> Iterator[str]:
    if url is not None:
        create(url)
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="dspyserve-browse-") as directory:
        yield f"sqlite:///{Path(directory) / 'db.sqlite3'}"


def _prepare(count: int) -> None:
    from django.core.management import call_command

    from dspyserve.models import Trace
    from tests.load.browse.fill import fill
    from tests.load.browse.mould import mould

    call_command("migrate", verbosity=0)
    if Trace.objects.exists():
        progress("the database is filled already")
        return
    begun = time.monotonic()
    fill(count, mould(MOULD))
    progress(f"filled in {time.monotonic() - begun:.0f} s")


def _measure(visits: int) -> None:
    from django.contrib.auth.models import User
    from django.test import Client

    from dspyserve.models import Span, Trace
    from tests.load.browse.addresses import addresses, exports
    from tests.load.browse.measure import report, visit

    user = User.objects.filter(username="ann").first() or User.objects.create_superuser("ann")
    client = Client(headers={"host": "localhost"}, raise_request_exception=False)
    client.force_login(user)
    found = [visit(client, name, address, visits) for name, address in addresses()]
    found += [visit(client, name, address, min(visits, 3)) for name, address in exports()]
    packages = f"Python {platform.python_version()}, Django {version('django')}, {os.cpu_count()} cores"
    note(f"# The trace browser\n\n{packages}, {_server()}.")
    stored = f"{Trace.objects.count():,} traces and {Span.objects.count():,} spans of 30 days"
    note(f"{stored}; {visits} visits of every page after one that is not counted.")
    report(found)


def _server() -> str:
    from django.db import connection

    if connection.vendor == "sqlite":
        return f"SQLite {connection.Database.sqlite_version}"
    return f"PostgreSQL {connection.pg_version // 10_000}"


if __name__ == "__main__":
    main()
