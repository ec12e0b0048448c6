"""Waiting with a timeout, which mostly is not waiting at all: a place is free, a buffer takes what is written.

DSPy makes a task for what has a timeout, and waits for that: three rounds of the event loop in place of one.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from functools import wraps
from importlib import import_module
from inspect import iscoroutine
from typing import Any

_OF_STREAMS = frozenset({"StreamReader.read", "StreamWriter.drain"})
"""Coroutines of asyncio that lose nothing when they are cancelled."""
_QUICK = _OF_STREAMS | {"Semaphore.acquire"}
"""Coroutines of asyncio that may begin in one task and go on in another."""


def finish_at_once_what_can() -> None:
    """Begin in the calling task, and go on there with a timeout if nothing can be lost by it."""
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
            if awaitable.__qualname__ not in _OF_STREAMS:
                # What is granted in the moment of a cancellation has to be given back, which is `wait_for`'s to do.
                return await wait_for(_rest(awaitable, waiting), timeout, **options)
            async with asyncio.timeout(timeout):
                return await _go_on(awaitable, waiting)
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
