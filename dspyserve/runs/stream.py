"""The events of one run, for a door that tells them as they happen."""

from __future__ import annotations

from collections.abc import AsyncIterator

from dspyserve.events import Event
from dspyserve.execution.reader import EventReader
from dspyserve.execution.stopping import StopReason
from dspyserve.runs.run import Run


class RunStream:
    """The events of one run, from `run_start` to exactly one terminal event. Close it to stop the run."""

    def __init__(self, run: Run, reader: EventReader) -> None:
        self.trace_id = run.trace_id
        self._run = run
        self._reader = reader
        run.start()
        self._is_over = False

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        if self._is_over:
            raise StopAsyncIteration
        event = await self._reader.get()
        self._is_over = event.is_terminal
        return event

    def cancel(self, reason: StopReason = "client") -> None:
        """Stop the run; the stream goes on to its terminal event."""
        self._run.stop(reason)

    def close(self) -> None:
        """Nobody reads any more: stop the run unless it is over. Its trace is stored all the same."""
        if not self._is_over:
            self._is_over = True
            self._run.stop("client")
        self._reader.close()

    async def aclose(self) -> None:
        """`close`, for `contextlib.aclosing`."""
        self.close()

    def __del__(self) -> None:
        # A door that is cancelled between the start of the run and its answer never gets to close it.
        self.close()
