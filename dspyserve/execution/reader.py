"""How events reach a stream: appended in any thread, read on one event loop, never waited for."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from dataclasses import replace

from dspyserve.conf import settings
from dspyserve.events import TOKEN, Event


class EventReader:
    """A bounded buffer of events with one coalesced wake-up.

    When `STREAM_BUFFER` events wait, further tokens of the same field are merged into the last one, whose `first_seq`
    then tells where it begins. Others are never dropped; at `STREAM_LIMIT` the reader counts as gone.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._events: deque[Event] = deque()
        self._wake_up: asyncio.Future[None] | None = None
        self._is_closed = False

    def put(self, event: Event) -> bool:
        """Add an event, from any thread. False says that the reader is too far behind and gets no more."""
        with self._lock:
            if self._is_closed:
                return True
            if not (event.type == TOKEN and len(self._events) >= settings().stream_buffer and self._merge(event)):
                self._events.append(event)
            if len(self._events) > settings().stream_limit:
                self._is_closed = True
                return False
            wake_up, self._wake_up = self._wake_up, None
        if wake_up is not None:
            self._wake(wake_up)
        return True

    async def get(self) -> Event:
        """The next event."""
        while True:
            with self._lock:
                if self._events:
                    return self._events.popleft()
                wake_up = self._wake_up = self._loop.create_future()
            await wake_up

    def close(self) -> None:
        """Take no more events: nobody reads."""
        with self._lock:
            self._is_closed = True
            self._events.clear()

    def _merge(self, event: Event) -> bool:
        last = self._events[-1]
        if last.type != TOKEN or (last.span_id, last.data["field"]) != (event.span_id, event.data["field"]):
            return False
        first = last.data.get("first_seq", last.seq)
        data = {**event.data, "delta": last.data["delta"] + event.data["delta"], "first_seq": first}
        self._events[-1] = replace(event, data=data)
        return True

    def _wake(self, wake_up: asyncio.Future[None]) -> None:
        try:
            self._loop.call_soon_threadsafe(_resolve, wake_up)
        except RuntimeError:
            # The loop is closed: nobody reads any more.
            self.close()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
