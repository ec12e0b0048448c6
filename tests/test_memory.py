"""Thousands of requests leave the memory of the server as it was: as many as `DSPYSERVE_TESTS_REQUESTS` says."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import httpx
import pytest

from dspyserve.models import Trace
from tests.server import Server

CONNECTIONS = 16
FIRST, LAST = 2_000, int(os.environ.get("DSPYSERVE_TESTS_REQUESTS", "5000"))
ALLOWED = 1.10
"""How much larger than after the first requests the server may be after the last: the allocator's own unrest."""


@pytest.mark.slow
@pytest.mark.embedded
@pytest.mark.parametrize("program", ["qa"])
def test_memory_stays_flat(
    start_server: Callable[..., Server], program: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server = start_server(is_forked=False)
    asyncio.run(call(server, program, FIRST))
    first = server.rss()
    asyncio.run(call(server, program, LAST - FIRST))
    last = server.rss()
    with capsys.disabled():
        print(f"\nRSS at {FIRST:,} requests: {first / 2**20:.1f} MiB, at {LAST:,}: {last / 2**20:.1f} MiB")
    assert last <= first * ALLOWED
    assert Trace.objects.count() == LAST


async def call(server: Server, program: str, count: int) -> None:
    """Make `count` calls over `CONNECTIONS` connections."""
    numbers = iter(range(count))
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:

        async def worker() -> None:
            for number in numbers:
                body = {"inputs": {"question": f"What is {number}?"}}
                response = await client.post(f"/api/programs/{program}", json=body)
                assert response.status_code == 200, response.text

        await asyncio.gather(*(worker() for _ in range(CONNECTIONS)))
