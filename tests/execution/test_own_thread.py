"""Threads for thread-sensitive work: one for each block that asks for one, whatever goes on further out."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from asgiref.sync import SyncToAsync, async_to_sync, sync_to_async

from dspyserve.execution import own_thread as own_thread_module
from dspyserve.execution.own_thread import has_own_thread, own_thread


def _from_a_thread(work: Callable[[], Awaitable[Any]]) -> Any:
    """As a program calls async code from the thread that it runs in, on the event loop of the server."""

    async def serve() -> Any:
        return await sync_to_async(async_to_sync(work), thread_sensitive=False)()

    return asyncio.run(serve())


RUNNERS = {
    "an event loop": lambda work: asyncio.run(work()),
    "async_to_sync": lambda work: async_to_sync(work)(),
    "a thread of an event loop": _from_a_thread,
}


@pytest.mark.parametrize("run", RUNNERS.values(), ids=RUNNERS)
def test_a_block_has_a_thread_of_its_own(run: Callable[..., Any]) -> None:
    async def thread() -> threading.Thread:
        return await sync_to_async(threading.current_thread)()

    async def work() -> None:
        async with own_thread():
            outer = await thread()
            async with own_thread():
                inner = await thread()
            assert await thread() is outer
            assert has_own_thread()
        assert outer is not inner
        assert all(each.name.startswith("dspyserve-request") for each in (outer, inner))
        assert not has_own_thread()

    run(work)
    assert not SyncToAsync.context_to_thread_executor


def test_this_asgiref_tells_whether_a_thread_waits_further_out() -> None:
    async def waits() -> bool:
        return own_thread_module._may_wait_further_out()

    assert not asyncio.run(waits())
    assert async_to_sync(waits)()
    assert _from_a_thread(waits) is True


def test_whoever_outlives_a_block_gets_no_strangers_thread() -> None:
    async def work() -> None:
        begun = asyncio.Event()

        async def outlive() -> None:
            await begun.wait()
            await sync_to_async(threading.current_thread)()

        async with own_thread():
            task = asyncio.create_task(outlive())
        begun.set()
        with pytest.raises(RuntimeError, match="has exited"):
            await task

    asyncio.run(work())
