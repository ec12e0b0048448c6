"""The pool for programs that start threads of their own."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from django.db import close_old_connections

P = ParamSpec("P")
T = TypeVar("T")


class ContextThreadPoolExecutor(ThreadPoolExecutor):
    """A `ThreadPoolExecutor` whose jobs run in a copy of the submitter's context.

    A plain pool loses DSPy's settings: its jobs would find no language model, leave no spans and not be cancelled. Each
    job gets a copy of its own, so jobs do not see each other's changes. Database connections that a job opened are
    closed as at the end of a request.
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn(*args, **kwargs)` in a pool thread, in a copy of the context that is current now."""
        context = contextvars.copy_context()
        return super().submit(lambda: context.run(_closing_connections, fn, *args, **kwargs))


def _closing_connections(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        return fn(*args, **kwargs)
    finally:
        close_old_connections()
