"""One execution, from its admission to its outcome: where it runs, what it waits for, how it is stopped."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
import uuid
from collections.abc import Awaitable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from asgiref.sync import sync_to_async
from uuid_utils.compat import uuid7

from dspyserve.conf import settings
from dspyserve.errors import RequestError, RunCancelled, RunTimeout
from dspyserve.events import RUN_START, Failure
from dspyserve.execution import failures
from dspyserve.execution.capacity import Gate, gates
from dspyserve.execution.event_log import EventLog
from dspyserve.execution.isolation import isolated
from dspyserve.execution.pool import RunPool, run_pool
from dspyserve.execution.recorder import Recorder
from dspyserve.execution.stopping import RunStopped, StopReason, StopSignal
from dspyserve.models import Program, Trace
from dspyserve.programs.served import ServedProgram
from dspyserve.programs.values import outputs_of

_UNWINDING = 1.0
"""Seconds that a native-async program gets to handle its cancellation before its outcome is told without it."""
_UNBEARABLE = (SystemExit, KeyboardInterrupt, StopIteration)
"""What a program in a thread may raise and no future passes on: the first two end the event loop, and with it the
server, the third is never told.
"""

_Answer = tuple[Any, dict[str, Any]]
"""What a program returned, and the same as JSON."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """How an execution ended. `result` is what the program returned, `outputs` the same as JSON."""

    status: str
    ended_at: float
    result: Any = None
    outputs: dict[str, Any] | None = None
    error: RequestError | None = None
    failure: Failure | None = None
    interrupt: KeyboardInterrupt | None = None


def new_trace_id() -> uuid.UUID:
    """A UUIDv7 of its own."""
    return uuid7()  # type: ignore[no-any-return]


class Execution:
    """One call of a program. Made, admitted, then run once, with `arun` or `run`."""

    def __init__(
        self,
        program: ServedProgram,
        inputs: Mapping[str, Any],
        *,
        timeout: float | None = None,
        log: EventLog | None = None,
        trace_id: uuid.UUID | None = None,
    ) -> None:
        """`inputs` are validated values; `timeout` is in seconds and bounded by the setting `MAX_TIMEOUT`.

        `trace_id` is one that no other execution has. Where there is a `log`, tokens are streamed into it.
        """
        self.trace_id = trace_id or new_trace_id()
        self.program = program
        self.inputs = inputs
        self.started_at = time.time()
        seconds = min(timeout or program.timeout, max(settings().max_timeout, program.timeout))
        self.signal = StopSignal(time.monotonic() + seconds)
        self.recorder = Recorder(
            self.trace_id.hex,
            self.signal,
            payloads=program.row.trace_level == Program.TraceLevel.FULL,
            log=log,
        )
        self._streams = log is not None
        self._awaited: asyncio.Future[None] | None = None
        self.announced: dict[str, Any] = {}
        """What the first event tells beside the program."""
        self._places = _Places(program)

    def admit(self, *, in_pool: bool) -> None:
        """Take a place, or one in the queue; `in_pool` says that the program needs a thread of the pool.

        Raises:
            Overloaded: there is none.
        """
        self._places.ask(in_pool=in_pool and self.program.mode == "thread")

    def stop(self, reason: StopReason) -> None:
        """Stop the execution at its next call boundary. Safe from any thread."""
        self.signal.stop(reason)

    async def arun(self) -> Outcome:
        """Run on the event loop or in the pool, as the program asks, and tell how it ended. Does not raise."""
        self._emit_start()
        loop = asyncio.get_running_loop()
        wake = partial(_call_in_loop, loop, self._wake)
        self.signal.on_stop(wake)
        timer = loop.call_later(self.signal.deadline - time.monotonic(), self.signal.stop, "deadline")
        try:
            if not self._places.are_granted:
                await self._unless_stopped(self._places.granted())
            return self._succeeded(await self._unless_stopped(self._start()))
        except BaseException as error:  # noqa: BLE001 - the outcome tells it
            if isinstance(error, asyncio.CancelledError) and _is_cancelling():
                self.signal.stop("shutdown")
            return self._failed(error)
        finally:
            timer.cancel()
            self.signal.forget(wake)
            self._places.give_back_if_unused()

    def run(self) -> Outcome:
        """Run in the calling thread, which must have no event loop, and tell how it ended. Does not raise."""
        self._emit_start()
        try:
            self._places.wait(self.signal)
            return self._succeeded(contextvars.copy_context().run(self._call))
        except KeyboardInterrupt as interrupt:
            self.signal.stop("client")
            outcome = self._failed(interrupt)
            outcome.interrupt = interrupt
            return outcome
        except BaseException as error:  # noqa: BLE001 - the outcome tells it
            return self._failed(error)
        finally:
            self._places.give_back_if_unused()

    def _emit_start(self) -> None:
        self.recorder.emit(
            RUN_START,
            span_id=self.recorder.root_id,
            name=self.program.name,
            program=self.program.name,
            version=self.program.version_number,
            model=self.program.lm.model,
            **self.announced,
        )

    def _start(self) -> asyncio.Future[Any]:
        context = contextvars.copy_context()
        if self.program.mode == "async":
            self._places.use()
            task = asyncio.get_running_loop().create_task(self._acall(), context=context)
            task.add_done_callback(lambda _: self._places.give_back())
            return task
        work = sync_to_async(
            self._call_in_pool,
            thread_sensitive=False,
            executor=cast(Any, _pool()),
            context=context,  # without it, the run's settings would be copied back to this task
        )
        return asyncio.ensure_future(work())

    def _call_in_pool(self) -> _Answer:
        try:
            return self._call()
        except _UNBEARABLE as error:
            raise RuntimeError(f"the program raised {type(error).__name__}") from error

    def _call(self) -> _Answer:
        """The whole of a synchronous program's run, in the thread that keeps its place until it really ended.

        Its answer is read here too: that may be long, and runs the program's code, such as a `__str__`.
        """
        self._places.use()
        try:
            self.signal.check()
            with isolated(self.program, self.recorder, in_thread=True, streams=self._streams) as program:
                result = program(**self.inputs)
            return result, outputs_of(result)
        finally:
            self._places.give_back()

    async def _acall(self) -> _Answer:
        try:
            with isolated(self.program, self.recorder, in_thread=False, streams=self._streams) as program:
                result = await program.acall(**self.inputs)
            return result, outputs_of(result)
        except SystemExit as error:
            # asyncio would end the whole server with it.
            raise RuntimeError("the program raised SystemExit") from error

    async def _unless_stopped(self, work: Awaitable[Any]) -> Any:
        future = asyncio.ensure_future(work)
        self._awaited = asyncio.get_running_loop().create_future()
        future.add_done_callback(self._wake)
        # Whoever stopped it before now woke nobody.
        if self.signal.reason is None:
            await self._awaited
        if not future.done():
            # A thread cannot be cancelled: it stops at its next call boundary, and nobody waits for it.
            future.add_done_callback(_look_away)
            if self.program.mode == "async":
                future.cancel()
                await asyncio.wait({future}, timeout=_UNWINDING)
            raise RunStopped(self.signal.reason or "client")
        return future.result()

    def _wake(self, _: object = None) -> None:
        """Let the event loop see that something is done, or that all is to stop."""
        if self._awaited is not None and not self._awaited.done():
            self._awaited.set_result(None)

    def _succeeded(self, answer: _Answer) -> Outcome:
        result, outputs = answer
        return Outcome(status=Trace.Status.SUCCEEDED, ended_at=time.time(), result=result, outputs=outputs)

    def _failed(self, error: BaseException) -> Outcome:
        ended_at = time.time()
        self.signal.finish()
        if self.signal.reason is not None:
            told = _stopped_error(self.signal.reason)
            status = Trace.Status.TIMED_OUT if self.signal.reason == "deadline" else Trace.Status.CANCELLED
            failure = Failure(type=type(told).__name__, message=told.detail, code=told.code)
            return Outcome(status=status, ended_at=ended_at, error=told, failure=failure)
        told = error if isinstance(error, RequestError) and not error.trace_id else failures.request_error(error)
        failure = failures.failure(error, told)
        return Outcome(status=Trace.Status.FAILED, ended_at=ended_at, error=told, failure=failure)


class _Places:
    """What one execution holds of the program's gate and of the thread pool's."""

    def __init__(self, program: ServedProgram) -> None:
        self._program = program
        self._lock = threading.Lock()
        self._tickets: list[tuple[Gate, Future[None]]] = []
        self._needs_thread = False
        self._is_used = False

    def ask(self, *, in_pool: bool) -> None:
        self._needs_thread = in_pool
        gate = gates.program(self._program.name)
        ticket = gate.enter(limit=self._program.max_concurrency, queue=self._program.max_queue)
        self._tickets.append((gate, ticket))
        try:
            if ticket.done():
                self._ask_for_thread()
        except RequestError:
            self.give_back()
            raise

    @property
    def are_granted(self) -> bool:
        """Whether there is nothing to wait for."""
        wanted = 2 if self._needs_thread else 1
        return len(self._tickets) == wanted and all(ticket.done() for _, ticket in self._tickets)

    async def granted(self) -> None:
        for gate_number in (0, 1):
            if gate_number == len(self._tickets):
                self._ask_for_thread()
            if gate_number < len(self._tickets) and not self._tickets[gate_number][1].done():
                await asyncio.wrap_future(self._tickets[gate_number][1])

    def wait(self, signal: StopSignal) -> None:
        for _, ticket in self._tickets:
            woken = threading.Event()
            ticket.add_done_callback(lambda _, woken=woken: woken.set())  # type: ignore[misc]
            signal.on_stop(woken.set)
            woken.wait(max(0.0, signal.deadline - time.monotonic()))
            signal.check()

    def use(self) -> None:
        with self._lock:
            self._is_used = True

    def give_back(self) -> None:
        with self._lock:
            tickets, self._tickets = self._tickets, []
        for gate, ticket in reversed(tickets):
            gate.give_up(ticket)

    def give_back_if_unused(self) -> None:
        with self._lock:
            if self._is_used:
                return
        self.give_back()

    def _ask_for_thread(self) -> None:
        if self._needs_thread and len(self._tickets) == 1:
            size, queue = settings().pool_size, settings().pool_queue
            self._tickets.append((gates.threads, gates.threads.enter(limit=size, queue=queue)))


def _pool() -> RunPool:
    return run_pool(settings().pool_size)


def _stopped_error(reason: StopReason) -> RequestError:
    if reason == "deadline":
        return RunTimeout("The execution's deadline passed.")
    return RunCancelled(reason)


def _is_cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _call_in_loop(loop: asyncio.AbstractEventLoop, function: Any, *args: Any) -> None:
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:
        # The loop is closed, and with it whoever waited.
        pass


def _look_away(future: asyncio.Future[Any]) -> None:
    # Whatever it ends with, it was told already; asyncio would log it as never retrieved.
    if not future.cancelled():
        future.exception()
