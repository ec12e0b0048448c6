"""The bounded pool of threads in which synchronous programs run.

Not a `ThreadPoolExecutor`: its threads are joined when the interpreter exits, and one program that hangs would hold up
the end of the server. These are daemon threads; whatever they still do at exit is lost, its trace is not.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from django.db import close_old_connections

Job = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class RunPool(Executor):
    """At most `size` daemon threads, started as they are needed and kept."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._threads = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run `fn(*args, **kwargs)` in a thread of the pool."""
        future: Future[Any] = Future()
        self._jobs.put((future, fn, args, kwargs))
        if not self._idle.acquire(blocking=False):
            self._start_thread()
        return future

    def _start_thread(self) -> None:
        with self._lock:
            if self._threads == self.size:
                return
            self._threads += 1
            name = f"dspyserve-run-{self._threads}"
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                self._idle.release()
                job = self._jobs.get()
            _run(job)
            # Otherwise the last program's inputs and outputs live on until the next job comes.
            del job


def _run(job: Job) -> None:
    future, fn, args, kwargs = job
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = fn(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001 - a stopped program raises a BaseException, which the awaiter needs
        future.set_exception(error)
    else:
        future.set_result(result)
    finally:
        # A thread that ends with an open connection loses its slot in psycopg's pool for ever.
        close_old_connections()


_pools: dict[int, RunPool] = {}
_lock = threading.Lock()


def run_pool(size: int) -> RunPool:
    """The pool of this process; a forked child gets its own, because threads do not survive a fork."""
    pool = _pools.get(os.getpid())
    if pool is None or pool.size < size:
        with _lock:
            pool = _pools.get(os.getpid())
            if pool is None or pool.size < size:
                pool = _pools[os.getpid()] = RunPool(size)
    return pool
