"""Streams whose connections break, that are cancelled, left and read on elsewhere, while a process is killed.

`DSPYSERVE_TESTS_STREAMS` says how many streams.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from asgiref.sync import sync_to_async
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from dspyserve.events import TERMINAL
from tests.server import Server

STREAMS = int(os.environ.get("DSPYSERVE_TESTS_STREAMS", "80"))
AT_ONCE = 40
BROKEN = (httpx.HTTPError, OSError, WebSocketException, TimeoutError)

Event = dict[str, Any]


class Servers:
    """Two processes, one of which is killed now and then."""

    def __init__(self, start: Callable[..., Server]) -> None:
        self._start = start
        self.alive = [start("uvicorn", is_forked=False), start("uvicorn", is_forked=False)]
        self.kills = 0

    def any(self) -> Server:
        """One that lives, as far as is known."""
        return random.choice(self.alive)

    async def kill_one(self) -> None:
        """SIGKILL, and another takes its place."""
        killed = self.alive.pop(0)
        await asyncio.to_thread(killed.kill)
        self.kills += 1
        self.alive.append(await sync_to_async(self._start)("uvicorn", is_forked=False))


@dataclass
class Reader:
    """One client with one execution: what it got of it, and what it did."""

    servers: Servers
    client: httpx.AsyncClient
    program: str
    transport: str
    on_disconnect: str
    events: list[Event] = field(default_factory=list)
    resumes: int = 0
    has_cancelled: bool = False

    @property
    def after(self) -> int:
        return self.events[-1]["seq"] if self.events else 0

    @property
    def is_over(self) -> bool:
        return bool(self.events) and self.events[-1]["type"] in TERMINAL

    async def live(self) -> None:
        """Read, break off, cancel and come back, to the end."""
        while not self.events:
            try:
                await self._read(self._begin(self.servers.any()))
            except BROKEN:
                await asyncio.sleep(0.1)
        while not self.is_over:
            self.resumes += 1
            try:
                await self._read(self.resumed(self.servers.any(), self.after, self.transport))
            except BROKEN:
                await asyncio.sleep(0.1)

    async def _read(self, source: AsyncIterator[Event]) -> None:
        """Read until the end, or until something happens."""
        left = random.choice([3, 10, 25, 10_000])
        async with aclosing(source):  # type: ignore[type-var]
            async for event in source:
                first = event.get("first_seq", event["seq"])
                assert first == self.after + 1, (self, event)
                self.events.append(event)
                left -= 1
                if self.is_over:
                    return
                if not left and random.random() < 0.15 and not self.has_cancelled:
                    self.has_cancelled = True
                    await self._cancel()
                    left = 10_000
                if not left:
                    return

    async def _cancel(self) -> None:
        server = self.servers.any()
        address = f"{server.url}/api/streams/{self.events[0]['trace_id']}"
        try:
            answer = await self.client.delete(address, headers=self._token())
            assert answer.status_code == 202, answer.text
        except BROKEN:
            self.has_cancelled = False

    def _token(self) -> dict[str, str]:
        return {"X-Resume-Token": self.events[0]["resume_token"]}

    def _begin(self, server: Server) -> AsyncIterator[Event]:
        words = random.randint(5, 60)
        inputs = {"question": f"@@words={words}@@ @@token_delay=0.01@@ @@delay={random.random() / 4:.2f}@@"}
        options = {"on_disconnect": self.on_disconnect}
        if self.transport == "sse":
            address = f"{server.url}/api/programs/{self.program}/stream"
            return self._sse("POST", address, json={"inputs": inputs, **options})
        return self._socket(server, {"type": "run", "id": "a", "inputs": inputs, "options": options})

    def resumed(self, server: Server, after: int, transport: str) -> AsyncIterator[Event]:
        """The events that follow."""
        trace_id = self.events[0]["trace_id"]
        if transport == "sse":
            headers = {**self._token(), "Last-Event-ID": str(after)}
            return self._sse("GET", f"{server.url}/api/streams/{trace_id}", headers=headers)
        token = self.events[0]["resume_token"]
        message = {"type": "resume", "id": "a", "trace_id": trace_id, "after": after, "token": token}
        return self._socket(server, message)

    async def _sse(self, method: str, address: str, **options: Any) -> AsyncIterator[Event]:
        async with self.client.stream(method, address, **options) as response:
            if response.status_code in (429, 503):
                raise httpx.ReadError("busy")
            assert response.status_code == 200, (response.status_code, await response.aread(), self)
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    yield json.loads(line[6:])

    async def _socket(self, server: Server, message: dict[str, Any]) -> AsyncIterator[Event]:
        async with connect(f"{server.websocket_url}/{self.program}", open_timeout=30) as socket:
            await socket.send(json.dumps(message))
            async for text in socket:
                answer = json.loads(text)
                if answer["type"] == "error":
                    assert answer["problem"]["status"] in (429, 503), (answer, self)
                    raise OSError("busy")
                if answer["type"] == "event":
                    yield answer["event"]
                    if answer["event"]["type"] in TERMINAL:
                        return


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.redis
async def test_every_stream_ends_once_and_every_tail_is_the_same(
    language_model: Any, start_server: Callable[..., Server]
) -> None:
    servers = await sync_to_async(Servers)(start_server)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=60, limits=limits) as client:
        kinds = itertools.product(("echo", "threaded"), ("sse", "websocket"), ("continue", "continue", "cancel"))
        readers = [Reader(servers, client, *kind) for kind in itertools.islice(itertools.cycle(kinds), STREAMS)]
        places = asyncio.Semaphore(AT_ONCE)

        async def live(reader: Reader) -> None:
            async with places:
                await reader.live()

        living = [asyncio.create_task(live(reader)) for reader in readers]
        for share in (0.3, 0.7):
            while sum(task.done() for task in living) < share * STREAMS:
                await asyncio.sleep(0.05)
            await servers.kill_one()
        await asyncio.gather(*living)

        for reader in readers:
            check(reader)
        for reader in random.sample(readers, min(STREAMS, 60)):
            await check_tail(reader, servers)
    ends = Counter(_end(reader) for reader in readers)
    resumes = sum(reader.resumes for reader in readers)
    print(f"\n{STREAMS} streams, {resumes} resumes, {servers.kills} kills; ends: {dict(ends)}")
    assert ends["run_end"] > STREAMS / 4
    assert resumes > STREAMS / 2


def check(reader: Reader) -> None:
    """Exactly one end, nothing missing or twice, and texts that add up."""
    events = reader.events
    assert [event["type"] in TERMINAL for event in events] == [False] * (len(events) - 1) + [True]
    assert {event["trace_id"] for event in events} == {events[0]["trace_id"]}
    if events[-1]["type"] == "run_end":
        deltas = "".join(event["delta"] for event in events if event["type"] == "token")
        assert deltas.endswith(events[-1]["outputs"]["answer"])


async def check_tail(reader: Reader, servers: Servers) -> None:
    """From wherever and through whatever it is read again, it is the same."""
    for server, transport in itertools.product(servers.alive, ("sse", "websocket")):
        after = random.randint(0, reader.after - 1)
        tail = [event async for event in reader.resumed(server, after, transport)]
        if _end(reader) == "execution_lost":
            # What was published before the kill, and the end: of its own in every process, with the time of the loss.
            assert tail[-1]["problem"] == reader.events[-1]["problem"]
            known = {event["seq"]: event for event in reader.events[:-1]}
            assert [known[event["seq"]] for event in tail[:-1]] == tail[:-1]
        else:
            assert expanded(tail) == expanded(reader.events)[after:]


def expanded(events: list[Event]) -> list[Any]:
    """The events; a merged token cannot be taken apart, so these are compared by what they cover."""
    return [event for event in events for _ in range(event.get("first_seq", event["seq"]), event["seq"] + 1)]


def _end(reader: Reader) -> str:
    last = reader.events[-1]
    return str(last["problem"]["code"] if last["type"] == "run_error" else last["type"])
