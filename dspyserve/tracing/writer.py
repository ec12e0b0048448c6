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
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from django.db import connections

from dspyserve.conf import settings
from dspyserve.tracing import spool, store
from dspyserve.tracing.rows import TraceRows
from dspyserve.tracing.tally import Tally

logger = logging.getLogger(__name__)

_IDLE = 30.0
"""Seconds without traces after which the thread closes its database connection."""
_GATHERING, _MOST = 0.001, 2
"""Seconds that the next traces gather for each trace but one of the last batch, and how many times that at most:
together they change the pages of their indexes once, and interrupt once an event loop that has enough to do. Where
they come one by one, nobody waits for others.
"""
_SMALL = 64 * 1024
"""Bytes of a trace that holds up nobody who makes it ready for the database; others are the thread's affair."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
"""Seconds between two tries while the database is away."""


@dataclass(slots=True, eq=False)
class _Item:
    rows: TraceRows
    waiting: Future[bool] | asyncio.Future[bool]
    """Whoever handed it over: a thread, or a coroutine of an event loop."""
    stored: bool | None = None
    """What it was told; None before."""


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
        waiting: Future[bool] = Future()
        item = _Item(self._prepared(rows), waiting)
        self._put(item)
        if self._is_stalled() and item.stored is None:
            return False
        try:
            return waiting.result(settings().trace_commit_timeout)
        except FutureTimeoutError:
            return False

    async def astore(self, rows: TraceRows) -> bool:
        """`store` without stopping the event loop."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[bool] = loop.create_future()
        item = _Item(self._prepared(rows), waiting)
        self._put(item)
        if self._is_stalled() and item.stored is None:
            return False
        limit = loop.call_later(settings().trace_commit_timeout, _give_up, waiting, item)
        try:
            return await waiting
        finally:
            limit.cancel()

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
        # Some may still be committed by a thread that hangs in the database: they are told apart at the next start.
        if left and (path := _save([item.rows for item in left])):
            logger.warning("%d traces could not be stored and wait in %s", len(left), path)
        with self._changed:
            self._thread, self._is_closing = None, False

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[_Item] = deque()
        self._batch = []
        self._batch_since = 0.0
        self._last_number = 0
        """Traces of the last batch; 0 where the next ones gathered."""
        self._bytes = 0
        self._thread = None
        self._is_closing = False
        self._is_away = False
        self._has_spooled = False

    def _is_stalled(self) -> bool:
        """Whether waiting is in vain: the database is away, or has had the batch at hand for longer than one waits."""
        hangs = bool(self._batch) and time.monotonic() - self._batch_since > settings().trace_commit_timeout
        return self._is_away or hangs

    def _prepared(self, rows: TraceRows) -> TraceRows:
        """`rows`, as ready for the database as they can be made in a moment, unless they have to wait for it."""
        if rows.size <= _SMALL and not self._is_away:
            # What cannot be stored is told where it is stored.
            with suppress(Exception):
                store.prepare(rows)
        return rows

    def _put(self, item: _Item) -> None:
        with self._changed:
            self._start()
            self._queue.append(item)
            self._bytes += item.rows.size
            self._changed.notify_all()
            crowded = self._bytes > 2 * settings().trace_queue
        if crowded:
            # The thread itself hangs in the database, or it would have made room.
            self._make_room()

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
        while True:
            with self._changed:
                while not self._queue:
                    if self._is_closing or self._thread is not thread:
                        return False
                    if not self._changed.wait(_IDLE):
                        connections[store.database()].close()
                gathering = min(self._last_number - 1, _MOST) * _GATHERING
                if gathering <= 0 or self._is_closing:
                    self._batch_since = time.monotonic()
                    self._batch = [self._queue.popleft() for _ in range(min(len(self._queue), settings().trace_batch))]
                    self._last_number = len(self._batch)
                    return True
                self._last_number = 0
            # Not by waiting for the condition, which every trace that comes would end.
            time.sleep(gathering)

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
        has_spooled, self._has_spooled = self._has_spooled, False
        with self._changed:
            self._bytes -= sum(item.rows.size for item in self._batch)
            self._batch = []
            self._changed.notify_all()
        if was_away:
            logger.warning("The database takes traces again")
        if was_away or has_spooled:
            self._restore(tally)
        return True

    def _commit(self, batch: Sequence[_Item], tally: Tally) -> None:
        try:
            store.insert([item.rows for item in batch], tally)
        except store.DATABASE_AWAY:
            raise
        except Exception:  # noqa: BLE001 - one of the rows is at fault, whatever the database or a field says of it
            for item in batch:
                _tell([item], stored=_store_alone(item.rows, tally))
        else:
            _tell(batch, stored=True)

    def _wait_for_database(self, error: Exception, pause: float) -> bool:
        """Let all who wait go on, then pause; False when the thread has to end."""
        if not self._is_away:
            logger.warning("The database does not take traces: %s", error)
        self._is_away = True
        connections[store.database()].close()
        with self._changed:
            waiting = [*self._batch, *self._queue]
        _tell(waiting, stored=False)
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
            _save([item.rows for item in moved])
            self._has_spooled = True
            _tell(moved, stored=False)

    def _restore(self, tally: Tally) -> None:
        try:
            count = spool.restore(partial(_store_again, tally=tally), settings().trace_batch)
        except store.DATABASE_AWAY as error:
            logger.warning("Traces that wait on disk cannot be stored yet: %s", error)
            connections[store.database()].close()
            self._is_away = True
        except Exception:
            logger.exception("Traces that wait on disk cannot be stored")
        else:
            if count:
                logger.warning("%d traces that waited on disk are stored", count)


def _store_again(batch: Sequence[TraceRows], tally: Tally) -> int:
    """Store those of `batch` that are not stored yet: how many of them are now. One that is refused holds up none."""
    try:
        store.insert_new(batch, tally)
    except store.DATABASE_AWAY:
        raise
    except Exception:  # noqa: BLE001 - as in a commit
        return sum([_store_alone(rows, tally) for rows in batch])
    return len(batch)


def _store_alone(rows: TraceRows, tally: Tally) -> bool:
    """Whether the database takes the trace; where it does not, it is kept on disk apart."""
    try:
        # Perhaps only the answer to an earlier commit was lost.
        store.insert_new([rows], tally)
    except store.DATABASE_AWAY:
        raise
    except Exception:
        path = _save([rows], refused=True)
        known = rows.trace["id"]
        logger.exception("The trace %s is refused by the database and kept in %s", known, path or "no file")
        return False
    return True


def _save(traces: Sequence[TraceRows], *, refused: bool = False) -> Path | None:
    """Put `traces` on disk. Where it takes nothing either they are lost, and neither the answers nor what follows."""
    try:
        return spool.save(traces, refused=refused)
    except OSError:
        logger.exception("%d traces can be kept neither in the database nor on disk, and are lost", len(traces))
        return None


def _tell(items: Sequence[_Item], *, stored: bool) -> None:
    """Tell those who wait for `items`, unless they know already. An event loop is woken once for all of them."""
    in_loops: dict[asyncio.AbstractEventLoop, list[asyncio.Future[bool]]] = {}
    for item in items:
        if item.stored is not None:
            continue
        item.stored = stored
        if isinstance(item.waiting, Future):
            with suppress(InvalidStateError):  # Another thread tells the same.
                item.waiting.set_result(stored)
        else:
            in_loops.setdefault(item.waiting.get_loop(), []).append(item.waiting)
    for loop, waiting in in_loops.items():
        with suppress(RuntimeError):  # The loop is closed, and nobody waits any more.
            loop.call_soon_threadsafe(_wake, waiting, stored)


def _give_up(waiting: asyncio.Future[bool], item: _Item) -> None:
    # A loop that was blocked may have the news and the end of its patience at the same time.
    _wake([waiting], bool(item.stored))


def _wake(waiting: Sequence[asyncio.Future[bool]], stored: bool) -> None:
    for each in waiting:
        if not each.done():
            each.set_result(stored)


writer = TraceWriter()
