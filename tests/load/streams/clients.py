"""The load: streams opened and read over raw connections, with as little work per token as it takes to time each."""

from __future__ import annotations

import asyncio
import re
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.load.raw_http import ClientConnection

_DELTA = re.compile(rb'"(?:delta|content)": ?"([^"]*)"')
_STAMP = re.compile(rb"\d{6,}")
_FAILURES = (b'"type":"run_error"', b'"type":"run_cancelled"', b'"type":"error"', b"HTTP/1.1 4", b"HTTP/1.1 5")


class StreamFailed(Exception):
    """A stream that did not come to its proper end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where streams come from: `request` makes the bytes that ask a question, `end` stands in the last event."""

    name: str
    port: int
    request: Callable[[str], bytes]
    end: bytes
    upgrade: bytes = b""
    """The handshake of a WebSocket, which is over before the question is asked."""


@dataclass(slots=True)
class Reading:
    """What was read of one stream. Times are seconds of the monotonic clock."""

    started: float = 0.0
    first: float = 0.0
    """When the first piece of the answer was there."""
    first_lag: float = 0.0
    """How long that was after the provider sent it."""
    ended: float = 0.0
    tokens: int = 0
    last_stamp: int = 0
    lags: array[float] = field(default_factory=lambda: array("d"))
    """How long after they were sent the tokens came that were awaited (`lags_since`)."""
    lags_since: float = float("inf")

    def take(self, stamps: list[bytes]) -> None:
        """Tokens arrived; each says when the provider sent it.

        Raises:
            StreamFailed: they are not in their order.
        """
        now = time.monotonic()
        sent = [int(stamp) for stamp in stamps]
        if not self.first:
            self.first, self.first_lag = now, now - sent[0] / 1e6
        if sent[0] < self.last_stamp:
            raise StreamFailed("tokens are not in their order")
        self.last_stamp = sent[-1]
        self.tokens += len(sent)
        if now >= self.lags_since:
            self.lags.extend(now - stamp / 1e6 for stamp in sent)


class Client(ClientConnection):
    """One connection for one stream."""

    def __init__(self, target: Target, reading: Reading) -> None:
        super().__init__()
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._target = target
        self._reading = reading
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        super().connection_made(transport)
        self.open()

    def open(self) -> None:
        """What has to be before the question can be asked."""
        self.ready.set_result(None)

    def ask(self, question: str) -> None:
        """Send the question; the time counts from here."""
        self._reading.started = time.monotonic()
        self.transport.write(self._target.request(question))

    def data_received(self, data: bytes) -> None:
        """Read on."""
        self.feed(data)

    def feed(self, data: bytes) -> None:
        """Take the answer's bytes."""
        data = self._rest + data
        position, stamps = 0, []
        for match in _DELTA.finditer(data):
            position = match.end()
            stamps += _STAMP.findall(match[1])
        self._rest = data[position:]
        try:
            if stamps:
                self._reading.take(stamps)
        except StreamFailed as error:
            self.finish(error)
        if self._target.end in self._rest:
            self._reading.ended = time.monotonic()
            self.finish()
        elif any(failure in self._rest for failure in _FAILURES):
            self.finish(StreamFailed(self._rest[-500:].decode(errors="replace")))

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed, properly where the stream is over."""
        self.finish(StreamFailed(f"closed too early after {self._rest[-300:]!r}"))

    def finish(self, error: Exception | None = None) -> None:
        """Be done, also where the question could not be asked yet."""
        super().finish(error)
        if not self.ready.done():
            self.ready.set_result(None)


class WebSocketClient(Client):
    """The same over a WebSocket: no extensions, and frames that are never split, as the servers send them."""

    _frames = b""
    _is_open = False

    def open(self) -> None:
        """Shake hands."""
        self.transport.write(self._target.upgrade)

    def data_received(self, data: bytes) -> None:
        """Take the frames that are whole."""
        self._frames += data
        if not self._is_open:
            head, separator, self._frames = self._frames.partition(b"\r\n\r\n")
            if not separator:
                self._frames = head
                return
            self._is_open = True
            self.ready.set_result(None)
        position = 0
        texts = []
        while (frame := _frame(self._frames, position)) is not None:
            code, start, position = frame
            if code == 9:
                self.transport.write(masked(self._frames[start:position], code=10))
            else:
                texts.append(self._frames[start:position])
        self._frames = self._frames[position:]
        if texts:
            self.feed(b"".join(texts))


def _frame(data: bytes, position: int) -> tuple[int, int, int] | None:
    """Code, start and end of the frame's content at `position`; None where it is not whole."""
    if len(data) < position + 2:
        return None
    size, start = data[position + 1], position + 2
    if size >= 126:
        width = 2 if size == 126 else 8
        size = int.from_bytes(data[start : start + width], "big")
        start += width
    return (data[position] & 15, start, start + size) if len(data) >= start + size else None


def masked(text: bytes, code: int = 1) -> bytes:
    """A client's frame, with the mask of zeros."""
    size = len(text)
    length = bytes([0x80 | size]) if size < 126 else bytes([0xFE]) + size.to_bytes(2, "big")
    return bytes([0x80 | code]) + length + b"\0\0\0\0" + text


def upgrade(port: int, path: str) -> bytes:
    """The request that opens a WebSocket."""
    return (
        f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        "sec-websocket-key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nsec-websocket-version: 13\r\n"
        "sec-websocket-protocol: dspyserve.v1\r\n\r\n"
    ).encode()
