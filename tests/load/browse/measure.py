"""What a page costs: its time, and its queries, those of the session and the user included."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from django.db import connection
from django.test import Client

from tests.load.report import progress, table


@dataclass(slots=True)
class Visits:
    """Visits of one address. Times are seconds."""

    name: str
    status: int = 0
    size: int = 0
    queries: int = 0
    times: list[float] = field(default_factory=list)


class Counter:
    """Counts queries."""

    def __init__(self) -> None:
        self.queries = 0

    def __call__(self, execute: Callable[..., Any], *arguments: Any) -> Any:
        """Django's execute wrapper."""
        self.queries += 1
        return execute(*arguments)


def visit(client: Client, name: str, address: str, times: int) -> Visits:
    """Ask for the page once to warm up, and then so often."""
    progress(f"{name}: {address[:120]}")
    visits = Visits(name)
    for number in range(times + 1):
        counter = Counter()
        with connection.execute_wrapper(counter):
            begun = time.perf_counter()
            response = client.get(address)
            visits.size = sum(len(chunk) for chunk in _body(response))
            took = time.perf_counter() - begun
        visits.status, visits.queries = response.status_code, counter.queries
        if response.status_code >= 400:
            break
        if number:
            visits.times.append(took)
    return visits


def report(found: list[Visits]) -> None:
    """The table, with a line for what is not there."""
    heads = ("page", "median", "least–most", "queries", "size")
    table(heads, [_row(visits) for visits in found])


def _row(visits: Visits) -> tuple[str, ...]:
    if not visits.times:
        return visits.name, f"left out: it answers {visits.status}", "", "", ""
    times = visits.times
    return (
        visits.name,
        _time(statistics.median(times)),
        f"{_time(min(times))}–{_time(max(times))}",
        str(visits.queries),
        f"{visits.size / 1024:,.0f} KB",
    )


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:,.0f} ms" if seconds < 10 else f"{seconds:,.1f} s"


def _body(response: Any) -> Iterator[bytes]:
    if response.streaming:
        yield from response.streaming_content
    else:
        yield response.content
