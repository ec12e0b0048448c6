"""The streams of this process that may be read again: of runs under way, and for some minutes of those that ended."""

from __future__ import annotations

import math
import os
import threading
import time

from dspyserve.conf import settings
from dspyserve.execution.stopping import StopReason
from dspyserve.runs.stream import StreamSource


class OpenStreams:
    """Streams by trace id. Ended ones stay for `STREAM_RESUME` seconds, as far as `STREAM_MEMORY` allows."""

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def add(self, source: StreamSource) -> None:
        """A stream begins that its owner may read again."""
        with self._lock:
            self._streams[source.log.trace_id] = source
        source.log.on_end = lambda: self._end(source)

    def find(self, trace_id: str) -> StreamSource | None:
        """The stream of this run, where it is still kept."""
        with self._lock:
            self._purge()
            until, _ = self._ended.get(trace_id, (math.inf, 0))
            return self._streams.get(trace_id) if until > time.monotonic() else None

    def __len__(self) -> int:
        return len(self._streams)

    def _end(self, source: StreamSource) -> None:
        source.stop = _is_over
        with self._lock:
            self._ended[source.log.trace_id] = (time.monotonic() + settings().stream_resume, source.log.size)
            self._bytes += source.log.size
            self._purge()

    def _purge(self) -> None:
        """Let go of what is too old, and of the oldest while there is too much."""
        now, limit = time.monotonic(), settings().stream_memory
        while self._ended:
            trace_id, (until, size) = next(iter(self._ended.items()))
            if until > now and self._bytes <= limit:
                return
            del self._ended[trace_id]
            self._bytes -= size
            self._streams.pop(trace_id, None)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._streams: dict[str, StreamSource] = {}
        self._ended: dict[str, tuple[float, int]] = {}
        self._bytes = 0


def _is_over(reason: StopReason) -> None:
    """What stops a run that is over; its own `stop` would keep all of it in memory."""


open_streams = OpenStreams()
