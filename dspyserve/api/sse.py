"""The events of a run as server-sent events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from functools import partial

from django.http import StreamingHttpResponse

from dspyserve.api.streaming import StreamedBody, unbuffered
from dspyserve.conf import settings
from dspyserve.encoding import encode
from dspyserve.errors import RequestError
from dspyserve.events import RUN_ERROR, Event
from dspyserve.problems import problem
from dspyserve.runs import RunStream

KEEPALIVE = b": keep-alive\n\n"
_SOON = 0.05
"""Seconds until the next look, where a comment is due and not out yet."""


class EventSource:
    """The frames of the response, with comments in between while nothing happens."""

    def __init__(self, stream: RunStream, frame: Callable[[Event], bytes]) -> None:
        """`frame` is what goes out for an event, maybe nothing."""
        self._stream = stream
        self._frame = frame
        self._interval = settings().sse_keepalive
        self._sent_at = time.monotonic()
        self._waiting: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._timer is None:
            # One for the stream, not one for each event; not before somebody reads, who will close this.
            self._timer = asyncio.get_running_loop().call_later(self._interval, self._look)
        while not (frames := b"".join([self._frame(event) for event in await self._stream.ready()])):
            self._waiting = self._stream.more()
            await self._waiting
            self._waiting = None
            if self._is_silent():
                self._sent_at = time.monotonic()
                return KEEPALIVE
        self._sent_at = time.monotonic()
        return frames

    def close(self) -> None:
        """The response is over: whoever read it is gone, or has the terminal event."""
        if self._timer is not None:
            self._timer.cancel()
        self._stream.close()

    def _is_silent(self) -> bool:
        return time.monotonic() - self._sent_at >= self._interval

    def _look(self) -> None:
        """Wake whoever waits where nothing went out for so long."""
        if self._is_silent() and self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
        left = self._interval - (time.monotonic() - self._sent_at)
        self._timer = asyncio.get_running_loop().call_later(max(left, _SOON), self._look)


def encode_event(event: Event, *, payloads: bool) -> bytes:
    """One event in the wire format."""
    data = encode(event.as_dict(payloads=payloads))
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.seq, event.type.encode(), data)


def _failed(error: RequestError) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (RUN_ERROR.encode(), encode({"type": RUN_ERROR, "problem": problem(error)}))


def sse_response(stream: RunStream, *, payloads: bool) -> StreamingHttpResponse:
    """The response that streams `stream`, unbuffered on its way."""
    source = EventSource(stream, partial(encode_event, payloads=payloads))
    body = StreamedBody(source, _failed, source.close)
    response = unbuffered(body, "text/event-stream")
    response["X-Trace-Id"] = stream.trace_id
    return response
