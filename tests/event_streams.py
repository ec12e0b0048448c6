"""Server-sent events, as tests read them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from httpx_sse import EventSource, ServerSentEvent


def sent_events(source: EventSource) -> Iterator[ServerSentEvent]:
    """The events of a response. `httpx-sse` takes a comment that follows an event for another one, without data."""
    return (event for event in source.iter_sse() if event.data)


async def asent_events(source: EventSource) -> AsyncIterator[ServerSentEvent]:
    """`sent_events`, on an event loop."""
    async for event in source.aiter_sse():
        if event.data:
            yield event
