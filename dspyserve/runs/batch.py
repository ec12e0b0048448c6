"""Many inputs of one program in one request."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any

from dspyserve.conf import settings
from dspyserve.errors import Fault, InvalidInput, Overloaded, RequestError
from dspyserve.events import Caller
from dspyserve.problems import as_request_error
from dspyserve.programs.catalogue import catalogue
from dspyserve.programs.served import ServedProgram
from dspyserve.runs.calls import aexecute
from dspyserve.runs.live import live
from dspyserve.runs.result import RunResult

logger = logging.getLogger(__name__)


async def abatch(
    name: str, items: Sequence[Any], *, caller: Caller, timeout: float | None = None
) -> AsyncIterator[tuple[int, RunResult | RequestError]]:
    """Execute the program `name` once for each of `items`, JSON, and give results and errors as they come.

    Each comes with the index of its item. At most as many run at a time as the program may in this process; an item
    that finds no place, because others took them, waits for another item of the batch to end. Closing the iterator
    stops what runs.

    Raises:
        RequestError: the program cannot be had at all.
    """
    program = await catalogue.aget(name)
    batch = _Batch(name, items, caller, timeout)
    workers = [asyncio.create_task(batch.work()) for _ in range(min(len(items), capacity(program)))]
    try:
        for _ in items:
            yield await batch.finished.get()
    finally:
        for worker in workers:
            worker.cancel()


def capacity(program: ServedProgram) -> int:
    """How many executions of `program` a batch runs at a time."""
    if program.mode == "async":
        return program.max_concurrency
    return max(1, min(program.max_concurrency, settings().pool_size))


class _Batch:
    """The items of one batch, taken one after the other by its workers."""

    def __init__(self, name: str, items: Sequence[Any], caller: Caller, timeout: float | None) -> None:
        self.finished: asyncio.Queue[tuple[int, RunResult | RequestError]] = asyncio.Queue()
        self._name = name
        self._items = iter(enumerate(items))
        self._caller = caller
        self._timeout = timeout
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def work(self) -> None:
        """Execute items until none is left."""
        for index, inputs in self._items:
            outcome = await self._outcome(index, inputs)
            self._wake_one()
            self.finished.put_nowait((index, outcome))

    async def _outcome(self, index: int, inputs: Any) -> RunResult | RequestError:
        while True:
            try:
                return await self._execute(inputs)
            except Overloaded as error:
                # Refused before it began. While others of the batch run, one of their places will be free.
                if error.trace_id is not None or live.is_draining or not self._running:
                    return error
                await self._another_ended()
            except InvalidInput as error:
                return _of_item(error, index)
            except RequestError as error:
                return error
            except Exception as error:
                logger.exception("An item of a batch failed")
                return as_request_error(error)

    async def _execute(self, inputs: Any) -> RunResult:
        self._running += 1
        try:
            return await aexecute(self._name, inputs, caller=self._caller, timeout=self._timeout, from_json=True)
        finally:
            self._running -= 1

    async def _another_ended(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter

    def _wake_one(self) -> None:
        if self._waiting:
            self._waiting.popleft().set_result(None)


def _of_item(error: InvalidInput, index: int) -> InvalidInput:
    """`error` with pointers into the body of the batch."""
    pointers = [(fault.pointer.removeprefix("/inputs"), fault.message) for fault in error.faults]
    return InvalidInput([Fault(f"/inputs/{index}{pointer}", message) for pointer, message in pointers])
