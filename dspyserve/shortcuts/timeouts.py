"""Waiting with a timeout, which mostly is not waiting at all: a place is free, a buffer takes what is written."""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from functools import wraps
from importlib import import_module
from inspect import iscoroutine
from typing import Any

_QUICK = frozenset({"Semaphore.acquire", "StreamReader.read", "StreamWriter.drain"})
"""Coroutines of asyncio that may begin in one task and go on in another."""


def finish_at_once_what_can() -> None:
    """Begin in the calling task; a task of its own, with a timeout, is only for what has to wait."""
    timeouts = import_module("dspy._vendor.lm15.transports._timeouts")
    wait_for: Callable[..., Any] = timeouts.wait_for

    @wraps(wait_for)
    async def begin_here(awaitable: Any, timeout: float | None, **options: Any) -> Any:
        if timeout is None or timeout <= 0 or not iscoroutine(awaitable) or awaitable.__qualname__ not in _QUICK:
            return await wait_for(awaitable, timeout, **options)
        try:
            waiting = awaitable.send(None)
        except StopIteration as done:
            return done.value
        try:
            return await wait_for(_rest(awaitable, waiting), timeout, **options)
        finally:
            # Cancelled before its task began; otherwise it is over.
            awaitable.close()

    transport: Any = import_module("dspy._vendor.lm15.transports._async")
    _ = transport.wait_for
    transport.wait_for = begin_here


async def _rest(begun: Coroutine[Any, Any, Any], waiting: Any) -> Any:
    return await _go_on(begun, waiting)


@types.coroutine
def _go_on(begun: Coroutine[Any, Any, Any], waiting: Any) -> Generator[Any, Any, Any]:
    """What is left of a coroutine that waits for `waiting` already."""
    while True:
        try:
            sent = yield waiting
        except BaseException as error:  # noqa: BLE001 - such as a cancellation: it is the coroutine's
            step: Callable[[Any], Any] = begun.throw
            argument: Any = error
        else:
            step, argument = begun.send, sent
        try:
            waiting = step(argument)
        except StopIteration as done:
            return done.value


ALL = (finish_at_once_what_can,)
