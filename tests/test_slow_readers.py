"""Clients that read a byte a second hold up nobody: not the programs, not other clients, not the server's memory."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from asgiref.sync import sync_to_async
from websockets.asyncio.client import connect

from dspyserve.models import Trace
from tests.api.test_stream import check
from tests.server import Server

COUNT = 50
LONG = "@@words=2500@@"
SHORT = "@@words=20@@ @@token_delay=0.01@@"


class SlowReader:
    """A client of an event stream that reads a byte a second, until it is asked to hurry."""

    def __init__(self, port: int) -> None:
        self.received = bytearray()
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        self._socket.setblocking(False)
        self._port = port

    async def open(self) -> None:
        """Ask for the stream."""
        loop = asyncio.get_running_loop()
        body = json.dumps({"inputs": {"question": LONG}}).encode()
        head = (
            "POST /api/programs/echo/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        await loop.sock_connect(self._socket, ("127.0.0.1", self._port))
        await loop.sock_sendall(self._socket, head.encode() + body)

    async def read_slowly(self, hurry: asyncio.Event) -> None:
        """A byte a second."""
        loop = asyncio.get_running_loop()
        while not hurry.is_set():
            self.received += await loop.sock_recv(self._socket, 1)
            await asyncio.sleep(1)

    async def read_the_rest(self) -> list[dict[str, Any]]:
        """All events."""
        loop = asyncio.get_running_loop()
        while data := await asyncio.wait_for(loop.sock_recv(self._socket, 2**16), 30):
            self.received += data
        self._socket.close()
        return [json.loads(found) for found in re.findall(rb"data: ({.*})", self.received)]


async def fast(server: Server, client: httpx.AsyncClient) -> list[dict[str, Any]]:
    """A stream that is read as it comes."""
    body = {"inputs": {"question": SHORT}}
    response = await client.post(f"{server.url}/api/programs/echo/stream", json=body)
    return [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: ")]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
async def test_fifty_slow_readers_and_fifty_fast_ones(
    language_model: Any, start_server: Callable[..., Server], kind: str
) -> None:
    server = await sync_to_async(start_server)(kind, DSPYSERVE_TESTS_STREAM_BUFFER="50")
    await asyncio.to_thread(server.run, "echo", question="warm up")
    before = server.rss()
    slow = [SlowReader(server.port) for _ in range(COUNT)]
    hurry = asyncio.Event()
    for reader in slow:
        await reader.open()
    reading = [asyncio.create_task(reader.read_slowly(hurry)) for reader in slow]

    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=COUNT)) as client:
        for events in await asyncio.gather(*(fast(server, client) for _ in range(COUNT))):
            check(events)
            assert events[-1]["type"] == "run_end"
    assert max(len(reader.received) for reader in slow) < 500, "the slow ones are still at it"
    # Their programs are not: every execution ended and left its trace.
    for _ in range(600):
        if await Trace.objects.filter(status="succeeded").acount() == 1 + 2 * COUNT:
            break
        await asyncio.sleep(0.1)
    assert await Trace.objects.filter(status="succeeded").acount() == 1 + 2 * COUNT
    assert server.rss() - before < 150 * 2**20

    hurry.set()
    await asyncio.gather(*reading)
    for events in await asyncio.gather(*(reader.read_the_rest() for reader in slow)):
        covered = [seq for event in events for seq in range(event.get("first_seq", event["seq"]), event["seq"] + 1)]
        assert covered == list(range(1, len(covered) + 1)), "nothing is missing, nothing comes twice"
        assert events[-1]["type"] == "run_end"
        text = "".join(event["delta"] for event in events if event["type"] == "token")
        assert text == events[-1]["outputs"]["answer"]
        if kind == "uvicorn":  # Daphne takes whatever it is given, and keeps it
            assert any("first_seq" in event for event in events), "tokens that waited came together"


@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
async def test_a_slow_reader_of_a_socket(language_model: Any, start_server: Callable[..., Server], kind: str) -> None:
    server = await sync_to_async(start_server)(kind, DSPYSERVE_TESTS_STREAM_BUFFER="50")
    tight = socket.socket()
    tight.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    tight.connect(("127.0.0.1", server.port))
    async with connect(f"{server.websocket_url}/echo", sock=tight, max_queue=1, ping_interval=None) as found:
        await found.send(json.dumps({"type": "run", "id": "a", "inputs": {"question": LONG}}))
        await found.send(json.dumps({"type": "run", "id": "b", "inputs": {"question": SHORT}}))
        for _ in range(600):
            if await Trace.objects.filter(status="succeeded").acount() == 2:
                break
            await asyncio.sleep(0.05)
        assert await Trace.objects.filter(status="succeeded").acount() == 2, "nobody read, and both ended"
        events: dict[str, list[dict[str, Any]]] = {"a": [], "b": []}
        ends = 0
        while ends < 2:
            message = json.loads(await asyncio.wait_for(found.recv(), 30))
            events[message["id"]].append(message["event"])
            ends += message["event"]["type"] == "run_end"
    for own in events.values():
        covered = [seq for event in own for seq in range(event.get("first_seq", event["seq"]), event["seq"] + 1)]
        assert covered == list(range(1, len(covered) + 1))
        text = "".join(event["delta"] for event in own if event["type"] == "token")
        assert text == own[-1]["outputs"]["answer"]
    if kind == "uvicorn":
        assert any("first_seq" in event for event in events["a"])
