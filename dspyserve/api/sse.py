"""The events of a run as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from django.http import StreamingHttpResponse

from dspyserve.api.streaming import StreamedBody, unbuffered
from dspyserve.conf import settings
from dspyserve.encoding import encode
from dspyserve.errors import RequestError
from dspyserve.events import RUN_ERROR, Event
from dspyserve.problems import problem
from dspyserve.runs import RunStream

KEEPALIVE = b": keep-alive\n\n"


class EventSource:
    """The frames of the response, with comments in between while nothing happens."""

    def __init__(self, stream: RunStream, *, payloads: bool) -> None:
        self._stream = stream
        self._payloads = payloads

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            async with asyncio.timeout(settings().sse_keepalive):
                return encode_event(await anext(self._stream), payloads=self._payloads)
        except TimeoutError:
            return KEEPALIVE

    def close(self) -> None:
        """The response is over: whoever read it is gone, or has the terminal event."""
        self._stream.close()


def encode_event(event: Event, *, payloads: bool) -> bytes:
    """One event in the wire format."""
    data = encode(event.as_dict(payloads=payloads))
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.seq, event.type.encode(), data)


def _failed(error: RequestError) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (RUN_ERROR.encode(), encode({"type": RUN_ERROR, "problem": problem(error)}))


def sse_response(stream: RunStream, *, payloads: bool) -> StreamingHttpResponse:
    """The response that streams `stream`, unbuffered on its way."""
    source = EventSource(stream, payloads=payloads)
    body = StreamedBody(source, _failed, source.close)
    response = unbuffered(body, "text/event-stream")
    response["X-Trace-Id"] = stream.trace_id
    return response
