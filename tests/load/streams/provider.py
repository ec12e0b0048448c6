"""A lean provider: OpenAI's chat completions as streams, for ChatAdapter, at the pace that a prompt asks for.

Every word is the provider's monotonic clock in microseconds when it was sent. Started as
`python -m tests.load.streams.provider PORT`; the prompt says `1000 tokens at 20/s after 50 ms`, where 0/s is as fast
as the reader reads, still one chunk at a time.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from tests.load.raw_http import ServerConnection, serve

_TICK = 0.001  # seconds; how finely the chunks of paced streams are spread
_PACE = re.compile(rb"(\d+) tokens at (\d+)/s after (\d+) ms")
_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_REFUSAL = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"
_BEFORE = (
    b'data: {"id":"chatcmpl-benchmark","object":"chat.completion.chunk","created":1767225600,'
    b'"model":"gpt-4o-mini-2024-07-18","service_tier":"default","system_fingerprint":"fp_0",'
)
_TEXT = (
    _BEFORE + b'"choices":[{"index":0,"delta":{"content":"%b"},"logprobs":null,"finish_reason":null}],"usage":null}\n\n'
)
_FINISH = _BEFORE + b'"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null}\n\n'
_USAGE = (
    _BEFORE
    + b'"choices":[],"usage":{"prompt_tokens":100,"completion_tokens":%d,"total_tokens":%d}}\n\ndata: [DONE]\n\n'
)


@dataclass(frozen=True, slots=True)
class Pace:
    """What a prompt asks for: `rate` in tokens per second, 0 for as fast as it goes; `latency` in seconds."""

    tokens: int
    rate: int
    latency: float


def pace_of(body: bytes) -> Pace | None:
    """The pace that a request's body names."""
    found = _PACE.search(body)
    return Pace(int(found[1]), int(found[2]), int(found[3]) / 1000) if found else None


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Stream:
    """One answer on its way."""

    def __init__(self, connection: Connection, pace: Pace) -> None:
        self.pace = pace
        self._connection = connection
        self._sent = 0

    def send(self) -> bool:
        """Send the next chunk; False when there is none, or nobody who reads."""
        if self._connection.transport.is_closing():
            return False
        if self._sent == self.pace.tokens:
            self._end()
            return False
        lead = b" " if self._sent else b"[[ ## answer ## ]]\\n"
        self._sent += 1
        self._connection.transport.write(_chunk(_TEXT % (lead + b"%d" % (time.monotonic_ns() // 1000))))
        return True

    def send_all(self) -> None:
        """Send a chunk in every round of the loop, until the end; wait while the reader does not read."""
        if self._connection.is_full:
            self._connection.on_room = self.send_all
        elif self.send():
            self._connection.loop.call_soon(self.send_all)

    def _end(self) -> None:
        count = self.pace.tokens
        closing = (
            _chunk(_TEXT % rb"\n\n[[ ## completed ## ]]") + _chunk(_FINISH) + _chunk(_USAGE % (count, count + 100))
        )
        self._connection.transport.write(closing + b"0\r\n\r\n")


class Pump:
    """Sends the chunks of all paced streams, with one timer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: defaultdict[int, list[Stream]] = defaultdict(list)
        self._tick = round(loop.time() / _TICK)
        self._beat()

    def start(self, stream: Stream) -> None:
        """Send the first chunk now and the others at the stream's pace."""
        if not stream.pace.rate:
            stream.send_all()
        elif stream.send():
            self._plan(stream)

    def _plan(self, stream: Stream) -> None:
        self._due[self._tick + round(1 / stream.pace.rate / _TICK)].append(stream)

    def _beat(self) -> None:
        now = round(self._loop.time() / _TICK)
        while self._tick < now:
            self._tick += 1
            for stream in self._due.pop(self._tick, ()):
                if stream.send():
                    self._plan(stream)
        self._loop.call_at((self._tick + 1) * _TICK, self._beat)


class Connection(ServerConnection):
    """One client, which sends one request after the other."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pump: Pump) -> None:
        super().__init__()
        self.loop = loop
        self.is_full = False
        self.on_room = lambda: None
        self._pump = pump

    def answer(self, body: bytes) -> None:
        """Begin the stream after its latency."""
        pace = pace_of(body)
        if pace is None:
            self.transport.write(_REFUSAL)
            return
        self.transport.write(_HEAD)
        self.loop.call_later(pace.latency, self._pump.start, Stream(self, pace))

    def pause_writing(self) -> None:
        """The client does not read."""
        self.is_full = True

    def resume_writing(self) -> None:
        """The client reads again."""
        self.is_full = False
        on_room, self.on_room = self.on_room, lambda: None
        on_room()


def connections() -> Callable[[], Connection]:
    """What answers the clients, all with one pump."""
    loop = asyncio.get_running_loop()
    pump = Pump(loop)
    return lambda: Connection(loop, pump)


if __name__ == "__main__":
    serve(connections)
