"""What happens when a client leaves before its answer is complete."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from django.core.exceptions import RequestAborted


class Departure:
    """A block that is cancelled when the client leaves: `async with Departure(listen):`.

    `listen` ends with `RequestAborted` when the client has left. The block runs in the task of the request itself, so
    that only the listening needs one of its own; the cancellation ends with the block, whatever else cancels the task
    goes on.
    """

    def __init__(self, listen: Callable[[], Awaitable[None]]) -> None:
        self._listen = listen
        self._failure: BaseException | None = None
        self._is_over = False

    async def __aenter__(self) -> Departure:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelled_before = task.cancelling()
        self._listening = asyncio.ensure_future(self._listen())
        self._listening.add_done_callback(self._heard)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, _: Any) -> bool:
        self._is_over = True
        self._listening.cancel()
        if self._failure is None:
            return False
        is_ours = self._task.uncancel() <= self._cancelled_before
        if not isinstance(self._failure, RequestAborted):
            raise self._failure
        return is_ours and kind is not None and issubclass(kind, asyncio.CancelledError)

    def _heard(self, listening: asyncio.Future[None]) -> None:
        if listening.cancelled():
            return
        # Asked for even when the block is over: asyncio would log an exception that nobody looks at.
        failure = listening.exception()
        if failure is not None and not self._is_over:
            self._failure = failure
            self._task.cancel()
