"""Threads for what asks for one: work that asgiref calls thread-sensitive, such as Django's database queries.

Django's own way starts a thread for every request and one more to end it, whether anything needs them or not. Here a
request, or a run, has a thread from the moment when it first asks, and gives it back for the next one.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeVar

from asgiref.sync import AsyncToSync, SyncToAsync, ThreadSensitiveContext
from django.core.cache import close_caches
from django.db import close_old_connections, reset_queries

T = TypeVar("T")

_IDLE: Final = 16
"""The most threads that wait for work; others end."""


def own_thread() -> AbstractAsyncContextManager[None]:
    """Let all thread-sensitive work within the block run in one thread of its own, where there is any."""
    return _Block()


class _Block(ThreadSensitiveContext, AbstractAsyncContextManager[None]):
    """asgiref's context, for an executor that is given.

    asgiref always hides the thread that waits in an `async_to_sync` further out, and that costs a dozen times as much
    as all the rest. Here that is left to it where there may be one; a server's requests have none.
    """

    def __init__(self) -> None:
        self._thread = _OwnThread()
        super().__init__(executor=self._thread)
        self._is_plain = not _may_wait_further_out()

    async def __aenter__(self) -> None:
        if not self._is_plain:
            await super().__aenter__()  # type: ignore[no-untyped-call]
            return
        self.token = SyncToAsync.thread_sensitive_context.set(self)
        SyncToAsync.context_to_thread_executor[self] = self._thread

    async def __aexit__(self, *error: object) -> None:
        try:
            if not self._is_plain:
                await super().__aexit__(*error)  # type: ignore[no-untyped-call]
                return
            del SyncToAsync.context_to_thread_executor[self]
            SyncToAsync.thread_sensitive_context.reset(self.token)  # type: ignore[arg-type]
            # Whoever outlives the block and asks for a thread is told so by asgiref, and gets no stranger's.
            self._exited = True
        finally:
            self._thread.release()


def _may_wait_further_out() -> bool:
    """Whether an `async_to_sync` is under way in this context; also where this asgiref does not tell."""
    known = getattr(getattr(AsyncToSync.executors, "_storage", None), "_data", None)
    if known is None:
        return True
    storage = known.get(None)
    return storage is not None and storage.data.get("current") is not None


def has_own_thread() -> bool:
    """Whether thread-sensitive work runs in a thread of the request that goes on here."""
    return SyncToAsync.thread_sensitive_context.get(None) is not None


def leave_own_thread() -> None:
    """Let the current context outlive the request that it comes from: its thread goes with it."""
    SyncToAsync.thread_sensitive_context.set(None)  # type: ignore[arg-type]


class _OwnThread(Executor):
    """An executor that has no thread until it is asked for work."""

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run `fn` in the thread."""
        if self._executor is None:
            self._executor = _idle.take()
        return self._executor.submit(fn, *args, **kwargs)

    def release(self) -> None:
        """Give the thread back, as clean as Django leaves one after a request. What still runs there ends first."""
        if (executor := self._executor) is not None:
            executor.submit(_clean_up).add_done_callback(lambda _: _idle.give_back(executor))


class _IdleThreads:
    """Executors of one thread each, that wait for the next request."""

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def take(self) -> ThreadPoolExecutor:
        """One that is idle, the last one first, or a new one."""
        with self._lock:
            if self._executors:
                return self._executors.pop()
        return ThreadPoolExecutor(max_workers=1, thread_name_prefix="dspyserve-request")

    def give_back(self, executor: ThreadPoolExecutor) -> None:
        """It is idle again."""
        with self._lock:
            if len(self._executors) < _IDLE:
                self._executors.append(executor)
                return
        executor.shutdown(wait=False)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._executors: deque[ThreadPoolExecutor] = deque()


def _clean_up() -> None:
    """What Django does before and after every request."""
    reset_queries()
    close_old_connections()
    close_caches()


_idle = _IdleThreads()
