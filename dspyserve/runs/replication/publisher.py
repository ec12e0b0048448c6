"""The thread of a process that puts the events of its streams into Redis."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any, Final

from dspyserve.conf import settings
from dspyserve.execution.event_log import Trimmed
from dspyserve.runs.replication import store
from dspyserve.runs.stream import StreamSource

logger = logging.getLogger(__name__)

GATHER: Final = 0.02
"""Seconds in which events are gathered, to be sent together; beginnings and ends do not wait for others."""
_ENTRY: Final = 1_000
_LOOK: Final = 0.5
"""Seconds between two looks at whether somebody asked for a cancel."""
_RENEW: Final = store.LEASE / 3
_PAUSE: Final = 1.0
"""Seconds between two tries while Redis is away."""


class Publisher:
    """Publishes streams as they grow, many at a time, and stops executions that were cancelled from elsewhere.

    The end of a stream is told to its readers here after it was published: were it the other way round, a process that
    is killed in between would leave one reader with an answer and all others with a loss. While Redis is away, ends
    wait for nothing.

    It starts with the first stream, in every process anew.
    """

    process: str
    _thread: threading.Thread | None
    _sources: dict[str, StreamSource]
    _announcing: dict[str, Future[None]]
    _published: dict[str, int]
    _changed: set[str]
    _is_away: bool
    _renewed_at: float
    _looked_at: float

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)
        atexit.register(self.close)

    def add(self, source: StreamSource) -> Future[None]:
        """A stream begins. Done when other processes can find it, or when that is not to be had at the moment."""
        trace_id = source.log.trace_id
        announced: Future[None] = Future()
        with self._lock:
            self._sources[trace_id] = source
            if self._is_away:
                announced.set_result(None)
            else:
                self._announcing[trace_id] = announced
                source.log.hold_end(lambda: self._touch_now(trace_id))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="dspyserve-publisher", daemon=True)
                self._thread.start()
        source.log.on_change = lambda: self._touch(trace_id)
        self._touch_now(trace_id)
        return announced

    def close(self, timeout: float = 3.0) -> None:
        """Publish what is left, within `timeout` seconds. A later stream starts it again."""
        thread, self._is_closing = self._thread, True
        self._urgent.set()
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        self._thread, self._is_closing = None, False
        self._tell_ends()

    def _touch(self, trace_id: str) -> None:
        self._changed.add(trace_id)
        if not self._wake.is_set():
            self._wake.set()

    def _touch_now(self, trace_id: str) -> None:
        self._changed.add(trace_id)
        self._urgent.set()
        self._wake.set()

    def _work(self) -> None:
        client = store.connection(settings().redis_url)
        script = store.appending(client)
        while True:
            self._wake.wait(_LOOK if self._sources else None)
            is_closing = self._is_closing
            if self._is_away:
                time.sleep(_PAUSE)
            else:
                self._urgent.wait(GATHER)
            self._urgent.clear()
            self._wake.clear()
            try:
                # The lease first: whoever finds a stream looks for it.
                self._renew(client)
                self._publish(client, script)
                self._look_after(client)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next try may succeed
                if not self._is_away:
                    logger.warning("Redis does not take streams: %s", type(error).__name__)
                self._wake.set()
                self._is_away = True
                self._announced(list(self._announcing))
                self._tell_ends()
            else:
                self._is_away = False
            if is_closing:
                return

    def _publish(self, client: Any, script: Any) -> None:
        """Publish what came since the last time; raises what Redis raises, and then it is tried again."""
        changed = set(self._changed)
        self._changed -= changed
        batches = {}
        try:
            with client.pipeline(transaction=False) as pipeline:
                for trace_id in changed:
                    if (source := self._sources.get(trace_id)) is not None:
                        batches[trace_id] = self._add_to(pipeline, script, source)
                results = pipeline.execute()
        except BaseException:
            self._changed |= changed
            raise
        taken = iter(results)
        for trace_id, (last_seq, commands) in batches.items():
            answers = [next(taken) for _ in range(commands)]
            self._published[trace_id] = last_seq
            self._announced([trace_id])
            if 0 in answers[-1:] and commands:
                logger.warning("The execution %s was given up as lost while this process did not answer", trace_id)
                self._forget(trace_id)
            elif (held := (log := self._sources[trace_id].log).held_end) is not None and held.seq == last_seq:
                log.tell_end()

    def _add_to(self, pipeline: Any, script: Any, source: StreamSource) -> tuple[int, int]:
        """Add the commands for what is new of `source`: the number of the last event, and how many commands."""
        log, commands = source.log, 0
        # First of all: nothing comes after it, so that nothing is missing before it.
        held = log.held_end
        seq = self._published.get(log.trace_id)
        if seq is None:
            store.announce(pipeline, log.trace_id, store.About(source.owner, self.process))
            seq, commands = 0, 2
        while True:
            try:
                events = log.since(seq, _ENTRY, exact=True)
            except Trimmed:
                # Redis was away for so long that the beginning is gone.
                seq = log.first_seq - 1
                continue
            if not events and held is not None and seq < held.seq:
                events = [held]
            if not events:
                return seq, commands
            store.append(pipeline, script, log.trace_id, events)
            seq, commands = events[-1].seq, commands + 1

    def _announced(self, trace_ids: Iterable[str]) -> None:
        for trace_id in trace_ids:
            if (announced := self._announcing.pop(trace_id, None)) is not None:
                announced.set_result(None)

    def _tell_ends(self) -> None:
        for source in list(self._sources.values()):
            source.log.tell_end()

    def _renew(self, client: Any) -> None:
        if self._sources and time.monotonic() - self._renewed_at > _RENEW:
            client.set(store.lease_key(self.process), 1, ex=store.LEASE)
            self._renewed_at = time.monotonic()

    def _look_after(self, client: Any) -> None:
        """Look for cancels, and let go of what is over."""
        now = time.monotonic()
        for trace_id, source in list(self._sources.items()):
            if source.log.is_over and self._published.get(trace_id) == source.log.last_seq:
                self._forget(trace_id)
        if self._sources and now - self._looked_at > _LOOK:
            self._looked_at = now
            sources = list(self._sources.items())
            with client.pipeline(transaction=False) as pipeline:
                for trace_id, _ in sources:
                    pipeline.hexists(store.about_key(trace_id), "cancel")
                answers = pipeline.execute()
            for (_, source), is_cancelled in zip(sources, answers, strict=True):
                if is_cancelled:
                    source.stop("client")

    def _forget(self, trace_id: str) -> None:
        source = self._sources.pop(trace_id, None)
        self._published.pop(trace_id, None)
        if source is not None:
            source.log.tell_end()
            source.log.on_change = None

    def _reset(self) -> None:
        self.process = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._urgent = threading.Event()
        self._thread = None
        self._is_closing = False
        self._is_away = False
        self._sources = {}
        self._announcing = {}
        self._published = {}
        self._changed = set()
        self._renewed_at = float("-inf")
        self._looked_at = 0.0


publisher = Publisher()
