"""One HTTP request and its answer, over a raw ASGI connection."""

import asyncio
from collections.abc import Iterable
from typing import Any

from uvicorn._types import ASGIReceiveCallable, ASGISendCallable

_JSON = (b"content-type", b"application/json")
_EVENT_STREAM = ((b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache"))


class ClientLeft(Exception):
    """The client closed the connection before it had its whole answer."""


class Exchange:
    """Reads the body, waits while the client stays, and answers."""

    def __init__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        self._receive = receive
        self._send = send
        self._leaving: asyncio.Task[None] | None = None

    async def body(self) -> bytes:
        """The whole request body; to be called once, before anything else."""
        parts = []
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            parts.append(message["body"])
            if not message["more_body"]:
                return b"".join(parts)

    async def pause(self, seconds: float) -> None:
        """Let seconds pass (0 lets other tasks run); ClientLeft as soon as the client is gone."""
        leaving = self._watch()
        if seconds > 0:
            await asyncio.wait((leaving,), timeout=seconds)
        else:
            await asyncio.sleep(0)
        if leaving.done():
            raise ClientLeft

    async def until_client_leaves(self) -> None:
        """Wait for the end of the connection."""
        await self._watch()

    async def answer(self, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Send a JSON answer in one piece."""
        length = (b"content-length", b"%d" % len(body))
        await self._send({"type": "http.response.start", "status": status, "headers": [_JSON, length, *headers]})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def start_events(self, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Begin a stream of server-sent events."""
        await self._send({"type": "http.response.start", "status": 200, "headers": [*_EVENT_STREAM, *headers]})

    async def event(self, data: bytes) -> None:
        """Send one event."""
        await self._send({"type": "http.response.body", "body": b"data: %b\n\n" % data, "more_body": True})

    async def end_events(self) -> None:
        """End the stream as it should end."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def drop(self) -> None:
        """Close the connection with the answer unfinished, after what was sent has left."""
        _transport(self._send).close()
        await self.until_client_leaves()

    def close(self) -> None:
        """Stop watching the client, and forget the task: its exception refers to it."""
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None

    def _watch(self) -> asyncio.Task[None]:
        if self._leaving is None:
            self._leaving = asyncio.get_running_loop().create_task(self._see_client_leave())
        return self._leaving

    async def _see_client_leave(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


def _transport(send: Any) -> asyncio.Transport:
    """The connection beneath uvicorn's `send`: ASGI has no word for closing a connection without an answer."""
    return send.__self__.transport
