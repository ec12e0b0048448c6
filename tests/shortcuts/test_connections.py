"""Connections to providers: the same bytes and the same errors with fewer calls of the system."""

from __future__ import annotations

import asyncio
import inspect
import socket
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest

from dspyserve.shortcuts import connections, install


@pytest.fixture(autouse=True)
def _installed() -> None:
    install()


def vendored(name: str) -> Any:
    return import_module(f"dspy._vendor.lm15.transports.{name}")


REQUESTS = {
    "with a body": ("POST", b'{"model": "m"}'),
    "with an empty body": ("POST", b""),
    "without a body": ("GET", b""),
    "which seldom has a body": ("GET", b"x"),
}


def request(name: str) -> tuple[Any, Any]:
    """A request, and its address."""
    method, body = REQUESTS[name]
    made = vendored("_types").TransportRequest(method, "http://provider/v1/x?y=1", [("X-Header", "1")], body)
    return made, vendored("_url").parse_url(made.url)


class Pipe:
    """A writer, or a socket, that notes what it is given, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.pieces: list[bytes] = []
        self.timeouts: list[float] = []
        self._error = error

    def write(self, data: bytes) -> None:
        if self._error is not None:
            raise self._error
        self.pieces.append(data)

    async def drain(self) -> None:
        await asyncio.sleep(0)

    def settimeout(self, timeout: float) -> None:
        self.timeouts.append(timeout)

    sendall = write


def send_async(send: Any, pipe: Pipe, name: str) -> Any:
    given, address = request(name)

    async def run() -> Any:
        transport = vendored("_async").StdlibAsyncTransport()
        await send(transport, SimpleNamespace(writer=pipe), given, address, proxy=None, write_timeout=1.5)

    return asyncio.run(run())


def send_sync(send: Any, pipe: Pipe, name: str) -> Any:
    given, address = request(name)
    transport = vendored("_sync").StdlibTransport()
    return send(transport, SimpleNamespace(sock=pipe), given, address, proxy=None, write_timeout=1.5)


SENDING = [
    pytest.param(send_async, "_async", "StdlibAsyncTransport", id="async"),
    pytest.param(send_sync, "_sync", "StdlibTransport", id="sync"),
]


@pytest.mark.parametrize(("send", "module", "transport"), SENDING)
class TestSending:
    @pytest.mark.parametrize("name", REQUESTS)
    def test_the_same_bytes_in_one_piece(self, send: Any, module: str, transport: str, name: str) -> None:
        ours = getattr(vendored(module), transport)._send_request
        pipe, stock = Pipe(), Pipe()
        send(ours, pipe, name)
        send(inspect.unwrap(ours), stock, name)
        assert pipe.pieces == [b"".join(stock.pieces)]
        assert len(stock.pieces) == (2 if REQUESTS[name][1] else 1)
        assert pipe.timeouts == stock.timeouts

    @pytest.mark.parametrize(
        "error",
        [BrokenPipeError("gone"), ConnectionResetError("reset"), OSError("no"), ValueError("odd"), TimeoutError()],
    )
    def test_the_same_errors(self, send: Any, module: str, transport: str, error: Exception) -> None:
        ours = getattr(vendored(module), transport)._send_request
        told = []
        for each in (ours, inspect.unwrap(ours)):
            with pytest.raises(Exception) as raised:
                send(each, Pipe(error), "with a body")
            told.append((raised.type, str(raised.value)))
        assert told[0] == told[1]


class TestStale:
    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """What the system was asked for."""
        found: list[Any] = []
        select = vendored("_async").select
        ask = select.select
        monkeypatch.setattr(select, "select", lambda *args: found.append(args) or ask(*args))
        return found

    @staticmethod
    async def pair() -> tuple[Any, socket.socket]:
        """A connection as the transport keeps it, and its other end."""
        near, far = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=near)
        return vendored("_async")._AsyncConnection(("http", "provider", 80), reader, writer), far

    def test_the_system_is_asked_only_of_what_has_been_idle(
        self, asked: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = [1_000.0]

        async def run() -> list[int]:
            connection, far = await self.pair()
            counts = []
            for passed in (0.0, 0.1, 0.9, 1.1, 0.2):
                now[0] += passed
                assert not connection.is_stale()
                counts.append(len(asked))
            far.close()
            connection.close()
            return counts

        monkeypatch.setattr(connections, "time", SimpleNamespace(monotonic=lambda: now[0]))
        assert asyncio.run(run()) == [1, 1, 1, 2, 2]

    @pytest.mark.parametrize("what", ["closed by the provider", "unexpected bytes", "closed here", "broken"])
    def test_what_cannot_be_used_any_more_is_noticed_although_it_was_just_used(self, what: str) -> None:
        async def run() -> tuple[bool, bool]:
            connection, far = await self.pair()
            before = connection.is_stale()
            if what == "closed by the provider":
                far.close()
            elif what == "unexpected bytes":
                far.send(b"HTTP/1.1 408 Request Timeout")
            elif what == "closed here":
                connection.close()
            else:
                connection.reader.set_exception(ConnectionResetError())
                far.close()
            await asyncio.sleep(0.05)
            after = connection.is_stale()
            far.close()
            connection.close()
            return before, after

        assert asyncio.run(run()) == (False, True)
