"""HTTP over raw connections, with as little work per message as a load generator and a provider can do."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections.abc import Callable
from typing import cast

import uvloop

from tests.load.limits import raise_file_limit

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Inbox:
    """Takes the bytes of a connection and gives its messages, one at a time: nobody sends before the answer is there.

    The length of a body must be stated; without, there is none.
    """

    def __init__(self) -> None:
        self._received = b""

    def take(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Head and body, once both are whole."""
        self._received = self._received + data if self._received else data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return None
        length = _LENGTH.search(head)
        if length and len(body) < int(length[1]):
            return None
        self._received = b""
        return head, body


class ServerConnection(asyncio.Protocol):
    """One client, which sends one request after the other."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._inbox = Inbox()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Answer the request once it is whole."""
        if (request := self._inbox.take(data)) is not None:
            self.answer(request[1])

    def answer(self, body: bytes) -> None:
        """Write the answer to a request with this body, now or later."""
        raise NotImplementedError


class ClientConnection(asyncio.Protocol):
    """One client's side. `done` when it has all that it asked for; its exception says what went wrong."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self.transport = cast(asyncio.Transport, transport)

    def finish(self, error: Exception | None = None) -> None:
        """Be done and close, unless that was before."""
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
        self.transport.close()


def serve(connections: Callable[[], Callable[[], asyncio.Protocol]]) -> None:
    """Serve on the port that the command line names until the process is told to stop.

    `connections` is called on the loop, and what it returns for every client.
    """
    parser = argparse.ArgumentParser(description=serve.__doc__)
    parser.add_argument("port", type=int)
    raise_file_limit()
    uvloop.run(_serve(connections, parser.parse_args().port))


async def _serve(connections: Callable[[], Callable[[], asyncio.Protocol]], port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(connections(), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


def post(port: int, path: str, body: object) -> bytes:
    """A POST of JSON."""
    data = json.dumps(body, separators=(",", ":")).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data
