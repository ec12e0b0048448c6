"""The events of one run: what all its readers share, and one reader's way through them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Final, Literal

from dspyserve.conf import settings
from dspyserve.errors import StreamNotFound
from dspyserve.events import TOKEN, Event
from dspyserve.execution.event_log import EventLog, LogReader, Trimmed
from dspyserve.execution.stopping import StopReason
from dspyserve.runs.live import live

OnDisconnect = Literal["cancel", "continue"]
"""What becomes of a run when its last reader leaves."""


class StreamSource:
    """The stream of one run: its log, who may read it, and the way to stop the run."""

    def __init__(
        self, log: EventLog, *, owner: str, on_disconnect: OnDisconnect, stop: Callable[[StopReason], None]
    ) -> None:
        """`owner` is the name of whoever may read it again; nobody may where it is empty."""
        self.log = log
        self.owner = owner
        self.on_disconnect = on_disconnect
        self.stop = stop
        self._lock = threading.Lock()
        self._readers = 0

    @property
    def is_ending(self) -> bool:
        """Whether the end has come, told or held back."""
        return self.log.is_over or self.log.held_end is not None

    def join(self) -> None:
        """There is one reader more."""
        with self._lock:
            self._readers += 1
            read_streams.add(self)

    def leave(self) -> None:
        """There is one reader less. With the last one, a run that is not to continue is stopped.

        Not at the server's shutdown: then readers are sent away, and the run may finish for those who come back.
        """
        with self._lock:
            self._readers -= 1
            is_last = self._readers == 0
            if is_last:
                read_streams.discard(self)
        if is_last and self.on_disconnect == "cancel" and not self.log.is_over and not live.is_draining:
            self.stop("client")


read_streams: Final[set[StreamSource]] = set()
"""The streams that somebody reads in this process, for the server's shutdown: readers are told the ends that came."""


class RunStream:
    """The events of one run from after a position, to exactly one terminal event. Close it when you have read enough.

    Closing the last stream of a run stops the run, unless it was asked to continue.
    """

    def __init__(self, source: StreamSource, after: int = 0) -> None:
        """`after` is the number of the last event that is known already."""
        self.trace_id = source.log.trace_id
        self._source = source
        self._reader = LogReader(source.log, after)
        self._next: list[Event] = []
        self._paced_until = 0.0
        self._is_over = False
        self._is_closed = False
        source.join()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        if not self._next:
            self._next = (await self.several())[::-1]
        return self._next.pop()

    async def several(self) -> list[Event]:
        """The next events: as many as are there, at least one.

        Raises:
            StreamNotFound: this reader is so far behind that they are not kept any more.
            StopAsyncIteration: the terminal event was the last.
        """
        while True:
            if events := await self.ready():
                return events
            await self.more()

    def more(self) -> asyncio.Future[None]:
        """Done as soon as events are there. Whoever waits may settle it, and then looks for something else."""
        return self._reader.more()

    async def ready(self) -> list[Event]:
        """The next events that are there, maybe none; raises as `several`.

        Tokens in quick succession are gathered for `STREAM_PACE`: a write for each costs more than they do. The first
        one is not held back.
        """
        if (wait := self._paced_until - time.monotonic()) > 0 and not self._source.log.is_over:
            await asyncio.sleep(wait)
        events = self._take()
        if events and events[-1].type == TOKEN:
            self._paced_until = time.monotonic() + settings().stream_pace
        return events

    def _take(self) -> list[Event]:
        if self._is_over:
            raise StopAsyncIteration
        is_over = self._source.log.is_over
        try:
            events = self._reader.ready()
        except Trimmed:
            raise StreamNotFound("The events from here on are not kept any more.") from None
        if is_over and not events:
            # Whoever resumed knew all of it.
            raise StopAsyncIteration
        self._is_over = bool(events) and events[-1].is_terminal
        return events

    @property
    def is_at_end(self) -> bool:
        """Whether the run is over and all of it was known or read."""
        return self._is_over or self._source.log.is_known(self._reader.after)

    def cancel(self, reason: StopReason = "client") -> None:
        """Stop the run; the stream goes on to its terminal event."""
        self._source.stop(reason)

    def close(self) -> None:
        """Nobody reads here any more."""
        if not self._is_closed:
            self._is_closed = True
            self._source.leave()

    async def aclose(self) -> None:
        """`close`, for `contextlib.aclosing`."""
        self.close()

    def __del__(self) -> None:
        # A door that is cancelled between the start of the run and its answer never gets to close it.
        self.close()
