"""The thread of a process that follows, in Redis, streams that other processes run."""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from functools import partial
from typing import Any, Final
from weakref import WeakValueDictionary

from django.db import DatabaseError, connection

from dspyserve.conf import settings
from dspyserve.errors import ExecutionLost
from dspyserve.events import RUN_ERROR, TOKEN, Event
from dspyserve.execution.event_log import EventLog
from dspyserve.execution.stopping import StopReason
from dspyserve.models import Trace
from dspyserve.problems import problem
from dspyserve.runs.replication import store
from dspyserve.runs.stream import StreamSource

logger = logging.getLogger(__name__)

_BLOCK: Final = 1.0
"""Seconds that one read waits for news."""
_LOOK: Final = 2.0
"""Seconds between two looks at whether the processes that are followed live."""
_PAUSE: Final = 1.0


class Replica(StreamSource):
    """A stream that another process runs. Its readers keep it; without any, nothing follows it."""

    def __init__(self, trace_id: str, about: store.About) -> None:
        # No method of its own, which would be a cycle: a replica goes with its last reader, not when there is time.
        stop = partial(_ask_to_stop, store.about_key(trace_id))
        super().__init__(EventLog(trace_id), owner=about.owner, on_disconnect="continue", stop=stop)
        self.process = about.process
        self.read_to = b"0-0"

    def take(self, entries: Any) -> None:
        """Add what was read."""
        for entry_id, fields in entries:
            self.read_to = entry_id
            for event in store.unpack(fields[b"events"]):
                if event.seq > self.log.last_seq:
                    _add(self.log, event)

    def lose(self) -> None:
        """End it: the process that ran it is gone. Looks for its trace in the database."""
        if not self.log.is_over:
            trace_id = self.log.trace_id
            self.log.break_off(partial(_lost, trace_id, is_stored=_is_stored(trace_id)))


class Follower:
    """Keeps replicas up to date, all of them with one connection. It runs while there are any."""

    _thread: threading.Thread | None
    _wake_key: str
    _woken_at: Any

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def find(self, trace_id: str) -> Replica | None:
        """The stream that another process runs or ran; waits for Redis, which may raise."""
        with self._lock:
            if (known := self._replicas.get(trace_id)) is not None:
                return known
        client = store.connection(settings().redis_url)
        if (about := store.read_about(client, trace_id)) is None:
            return None
        replica = Replica(trace_id, about)
        self._read(client, [replica])
        if not replica.log.is_over:
            self._end_lost(client, [replica])
        with self._lock:
            replica = self._replicas.setdefault(trace_id, replica)
            if replica.log.is_over:
                return replica
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="dspyserve-follower", daemon=True)
                self._thread.start()
        # The thread may wait for news of others.
        client.xadd(self._wake_key, {"wake": 1}, maxlen=1)
        client.expire(self._wake_key, 60)
        return replica

    def _work(self) -> None:
        client = store.connection(settings().redis_url)
        looked_at = time.monotonic()
        while True:
            with self._lock:
                followed = [replica for replica in self._replicas.values() if not replica.log.is_over]
                if not followed:
                    self._thread = None
                    return
            try:
                self._read(client, followed, block=_BLOCK)
                if time.monotonic() - looked_at > _LOOK:
                    looked_at = time.monotonic()
                    self._end_lost(client, [replica for replica in followed if not replica.log.is_over])
            except Exception as error:  # noqa: BLE001 - whatever it is, the next try may succeed
                logger.warning("Redis does not give streams: %s", type(error).__name__)
                time.sleep(_PAUSE)
            del followed  # or the replicas would live on without readers

    def _read(self, client: Any, replicas: list[Replica], block: float | None = None) -> None:
        by_key = {store.stream_key(replica.log.trace_id).encode(): replica for replica in replicas}
        wanted: dict[Any, Any] = {key: replica.read_to for key, replica in by_key.items()}
        if block is not None:
            wanted[self._wake_key] = self._woken_at
        for key, entries in _pairs(client.xread(wanted, block=None if block is None else round(block * 1000))):
            if key == self._wake_key.encode():
                self._woken_at = entries[-1][0]
            else:
                by_key[key].take(entries)

    def _end_lost(self, client: Any, replicas: list[Replica]) -> None:
        """End the replicas whose processes are gone. What they published last is read first."""
        if not replicas:
            return
        with client.pipeline(transaction=False) as pipeline:
            for replica in replicas:
                pipeline.exists(store.lease_key(replica.process))
            alive = pipeline.execute()
        gone = [replica for replica, lives in zip(replicas, alive, strict=True) if not lives]
        if not gone:
            return
        with client.pipeline(transaction=False) as pipeline:
            for replica in gone:
                # From now on the process, should it only have slept, publishes nothing of it any more.
                pipeline.hsetnx(store.about_key(replica.log.trace_id), "lost", 1)
            pipeline.execute()
        self._read(client, gone)
        for replica in gone:
            replica.lose()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._thread = None
        self._replicas: WeakValueDictionary[str, Replica] = WeakValueDictionary()
        self._wake_key = f"dspyserve:follower:{uuid.uuid4().hex}"
        self._woken_at = "0-0"


def _add(log: EventLog, event: Event) -> None:
    if event.type == TOKEN:
        data = event.data
        log.token(event.seq, event.at, event.span_id or "", data["predictor"], data["field"], data["delta"])
    else:
        log.append(event)


def _lost(trace_id: str, seq: int, *, is_stored: bool) -> Event:
    error = ExecutionLost("The process that executed this is gone.")
    error.trace_id, error.trace_stored = trace_id, is_stored
    data = {"problem": problem(error), "trace_stored": is_stored}
    return Event(type=RUN_ERROR, seq=seq, trace_id=trace_id, at=time.time(), data=data)


def _is_stored(trace_id: str) -> bool:
    """Whether the trace was stored just before the end."""
    try:
        return Trace.objects.filter(pk=uuid.UUID(trace_id)).exists()
    except DatabaseError:
        return False
    finally:
        connection.close()  # nobody else does it in this thread


def _ask_to_stop(key: str, reason: StopReason) -> None:
    """Ask the process that runs it, without waiting for Redis on an event loop."""
    threading.Thread(target=_set_cancel, args=(key,), name="dspyserve-cancel", daemon=True).start()


def _set_cancel(key: str) -> None:
    try:
        client = store.connection(settings().redis_url)
        if client.exists(key):
            client.hset(key, "cancel", 1)
    except Exception as error:  # noqa: BLE001 - whatever it is, nobody waits for it
        logger.warning("A cancel did not reach Redis: %s", type(error).__name__)


def _pairs(found: Any) -> list[tuple[bytes, Any]]:
    """What XREAD gives: pairs in RESP2, a mapping in RESP3."""
    if isinstance(found, dict):
        return [(key, entries[0]) for key, entries in found.items()]
    return list(found or ())


follower = Follower()
