"""Group commit: one thread per process that commits all traces which ended meanwhile in one transaction."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from functools import partial

from django.db import connections

from dspyserve.conf import settings
from dspyserve.tracing import spool, store
from dspyserve.tracing.rows import TraceRows
from dspyserve.tracing.tally import Tally

logger = logging.getLogger(__name__)

_IDLE = 30.0
"""Seconds without traces after which the thread closes its database connection."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
"""Seconds between two tries while the database is away."""


@dataclass(slots=True)
class _Item:
    rows: TraceRows
    stored: Future[bool] = field(default_factory=Future)


class TraceWriter:
    """Takes the rows of traces from any thread and event loop, and tells when they are committed.

    It starts with the first trace, in every process anew. While the database is away, nobody waits for it: traces stay
    in memory, beyond `TRACE_QUEUE` bytes on disk, and are stored when it is back. A trace that the database refuses
    does not hold up the others.
    """

    _thread: threading.Thread | None
    _batch: list[_Item]

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)
        atexit.register(self.close)

    def store(self, rows: TraceRows) -> bool:
        """Hand over `rows` and wait, at most `TRACE_COMMIT_TIMEOUT`; True when they are committed."""
        stored = self._put(rows)
        if self._is_stalled() and not stored.done():
            return False
        try:
            return stored.result(settings().trace_commit_timeout)
        except FutureTimeoutError:
            return False

    async def astore(self, rows: TraceRows) -> bool:
        """`store` without stopping the event loop."""
        stored = self._put(rows)
        if self._is_stalled() and not stored.done():
            return False
        try:
            waiting = asyncio.shield(asyncio.wrap_future(stored))
            return await asyncio.wait_for(waiting, settings().trace_commit_timeout)
        except TimeoutError:
            return False

    def start(self) -> None:
        """Start the thread, which first stores what an earlier process left on disk."""
        with self._changed:
            self._start()

    @property
    def is_away(self) -> bool:
        """Whether the database does not take traces at the moment."""
        return self._is_stalled()

    @property
    def pending(self) -> int:
        """How many traces wait in memory, those that are being committed included."""
        return len(self._queue) + len(self._batch)

    def flush(self, timeout: float) -> bool:
        """Wait until nothing is pending, at most `timeout` seconds. False where something still is."""
        end = time.monotonic() + timeout
        with self._changed:
            while self.pending and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
            return not self.pending

    def close(self, timeout: float = 5.0) -> None:
        """Store what is pending, within `timeout` seconds, and put the rest on disk. A later trace starts it again."""
        with self._changed:
            thread, self._is_closing = self._thread, True
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        with self._changed:
            left = [*self._batch, *self._queue]
            self._queue.clear()
            self._bytes = 0
            if thread is None or not thread.is_alive():
                self._batch = []
        if left:
            # Some may still be committed by a thread that hangs in the database: they are told apart at the next start.
            path = spool.save(item.rows for item in left)
            logger.warning("%d traces could not be stored and wait in %s", len(left), path)
        with self._changed:
            self._thread, self._is_closing = None, False

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[_Item] = deque()
        self._batch = []
        self._batch_since = 0.0
        self._bytes = 0
        self._thread = None
        self._is_closing = False
        self._is_away = False

    def _is_stalled(self) -> bool:
        """Whether waiting is in vain: the database is away, or has had the batch at hand for longer than one waits."""
        hangs = bool(self._batch) and time.monotonic() - self._batch_since > settings().trace_commit_timeout
        return self._is_away or hangs

    def _put(self, rows: TraceRows) -> Future[bool]:
        item = _Item(rows)
        with self._changed:
            self._start()
            self._queue.append(item)
            self._bytes += rows.size
            self._changed.notify_all()
            crowded = self._bytes > 2 * settings().trace_queue
        if crowded:
            # The thread itself hangs in the database, or it would have made room.
            self._make_room()
        return item.stored

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="dspyserve-traces", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        thread = threading.current_thread()
        # Of this thread alone: one that hangs in the database may still commit when another has taken over.
        tally = Tally()
        try:
            self._restore(tally)
            while self._take(thread) and self._commit_batch(tally):
                pass
        finally:
            connections[store.database()].close()

    def _take(self, thread: threading.Thread) -> bool:
        """Move what waits into the batch; False when the thread has to end."""
        with self._changed:
            while not self._queue:
                if self._is_closing or self._thread is not thread:
                    return False
                if not self._changed.wait(_IDLE):
                    connections[store.database()].close()
            self._batch_since = time.monotonic()
            self._batch = [self._queue.popleft() for _ in range(min(len(self._queue), settings().trace_batch))]
            return True

    def _commit_batch(self, tally: Tally) -> bool:
        """Commit the batch, however long it takes; False when the thread has to end before."""
        pause = _FIRST_PAUSE
        while True:
            try:
                self._commit(self._batch, tally)
            except store.DATABASE_AWAY as error:
                if not self._wait_for_database(error, pause):
                    return False
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                break
        was_away, self._is_away = self._is_away, False
        with self._changed:
            self._bytes -= sum(item.rows.size for item in self._batch)
            self._batch = []
            self._changed.notify_all()
        if was_away:
            logger.warning("The database takes traces again")
            self._restore(tally)
        return True

    def _commit(self, batch: Sequence[_Item], tally: Tally) -> None:
        try:
            store.insert([item.rows for item in batch], tally)
        except store.DATABASE_AWAY:
            raise
        except Exception:  # noqa: BLE001 - one of the rows is at fault, whatever the database or a field says of it
            for item in batch:
                self._commit_alone(item, tally)
        else:
            for item in batch:
                _tell(item, stored=True)

    def _commit_alone(self, item: _Item, tally: Tally) -> None:
        try:
            # Perhaps only the answer to an earlier commit was lost.
            store.insert_new([item.rows], tally)
        except store.DATABASE_AWAY:
            raise
        except Exception:
            path = spool.save([item.rows], refused=True)
            logger.exception("The trace %s is refused by the database and kept in %s", item.rows.trace["id"], path)
            _tell(item, stored=False)
        else:
            _tell(item, stored=True)

    def _wait_for_database(self, error: Exception, pause: float) -> bool:
        """Let all who wait go on, then pause; False when the thread has to end."""
        if not self._is_away:
            logger.warning("The database does not take traces: %s", error)
        self._is_away = True
        connections[store.database()].close()
        with self._changed:
            waiting = [*self._batch, *self._queue]
        for item in waiting:
            _tell(item, stored=False)
        self._make_room()
        with self._changed:
            if not self._is_closing:
                self._changed.wait_for(lambda: self._is_closing, pause)
            return not self._is_closing

    def _make_room(self) -> None:
        """Put the oldest waiting traces on disk until half of what may wait in memory is free."""
        limit = settings().trace_queue
        moved: list[_Item] = []
        with self._changed:
            while self._bytes > limit // 2 and self._queue and (moved or self._bytes > limit):
                item = self._queue.popleft()
                self._bytes -= item.rows.size
                moved.append(item)
        if moved:
            spool.save(item.rows for item in moved)
            for item in moved:
                _tell(item, stored=False)

    def _restore(self, tally: Tally) -> None:
        try:
            count = spool.restore(partial(store.insert_new, tally=tally), settings().trace_batch)
        except store.DATABASE_AWAY as error:
            logger.warning("Traces that wait on disk cannot be stored yet: %s", error)
            connections[store.database()].close()
            self._is_away = True
        except Exception:
            logger.exception("Traces that wait on disk cannot be stored")
        else:
            if count:
                logger.warning("%d traces that an earlier process left on disk are stored", count)


def _tell(item: _Item, *, stored: bool) -> None:
    if not item.stored.done():
        item.stored.set_result(stored)


writer = TraceWriter()
