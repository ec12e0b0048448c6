"""The one way to execute a program. Every door comes through here, and Python code calls it directly.

`execute` runs in the calling thread, `aexecute` on the event loop, `astream` gives the events of a run as they happen.
All three end alike: the trace is committed, or marked as not yet stored, before the answer goes out.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from asgiref.sync import async_to_sync

from dspyserve.errors import Overloaded, RequestError, RunCancelled
from dspyserve.events import RUN_CANCELLED, RUN_END, RUN_ERROR, Caller, Event, RunRecord
from dspyserve.execution.execution import Execution, Outcome
from dspyserve.execution.reader import EventReader
from dspyserve.execution.stopping import StopReason
from dspyserve.models import Program
from dspyserve.problems import problem
from dspyserve.programs.catalogue import catalogue
from dspyserve.programs.served import ServedProgram
from dspyserve.tracing.builder import build
from dspyserve.tracing.rows import TraceRows
from dspyserve.tracing.writer import writer

logger = logging.getLogger(__name__)

_MANY_EVENTS = 200
"""From this many events on, a trace is built in a thread: it would hold up the event loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What a successful execution gave.

    `outputs` is JSON, `prediction` what the program itself returned. `usage` counts tokens, and is empty where nobody
    told; `cost` is in US dollars and None where it is not known. `trace_stored` is False when the trace is kept to be
    stored later, or is not wanted.
    """

    trace_id: str
    program: str
    version: int | None
    outputs: Mapping[str, Any]
    usage: Mapping[str, int]
    cost: float | None
    duration_ms: float
    trace_stored: bool
    prediction: Any = None

    def as_dict(self) -> dict[str, Any]:
        """As clients get it."""
        return {
            "trace_id": self.trace_id,
            "program": self.program,
            "version": self.version,
            "outputs": self.outputs,
            "usage": self.usage,
            "cost": self.cost,
            "duration_ms": self.duration_ms,
            "trace_stored": self.trace_stored,
        }


def execute(
    name: str,
    inputs: Mapping[str, Any],
    *,
    caller: Caller | None = None,
    timeout: float | None = None,
    from_json: bool = False,
) -> RunResult:
    """Execute the program `name` in the calling thread.

    Args:
        name: The program's name.
        inputs: Its input fields. Python values are taken leniently; `from_json` takes them as strictly as JSON.
        caller: Who asks, and what is remembered with the trace.
        timeout: Seconds; bounded by the setting `MAX_TIMEOUT`.

    Raises:
        RequestError: one of the errors of `dspyserve.errors`, with its `trace_id` where the program was started.
        RuntimeError: the calling thread runs an event loop, which this would stop; use `aexecute`.
    """
    _refuse_event_loop()
    program = catalogue.get(name)
    if program.mode == "async":
        aresult: RunResult = async_to_sync(aexecute)(name, inputs, caller=caller, timeout=timeout, from_json=from_json)
        return aresult
    execution = Execution(program, program.schema.validate(inputs, from_json=from_json), timeout=timeout)
    run = _Run(execution, caller or Caller())
    execution.admit(in_pool=False)
    with _alive(run):
        outcome = execution.run()
        stored = (rows := run.rows(outcome)) is not None and writer.store(rows)
    if outcome.interrupt is not None:
        raise outcome.interrupt
    return run.conclude(outcome, rows, stored=stored)


async def aexecute(
    name: str,
    inputs: Mapping[str, Any],
    *,
    caller: Caller | None = None,
    timeout: float | None = None,
    from_json: bool = False,
) -> RunResult:
    """Execute the program `name` without stopping the event loop; arguments and errors as those of `execute`.

    When the awaiting task is cancelled, because its client left, the execution is stopped at its next call boundary.
    """
    run = await _admitted(name, inputs, caller, timeout, from_json=from_json)
    task = run.start()
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        run.stop("client")
        raise


async def astream(
    name: str,
    inputs: Mapping[str, Any],
    *,
    caller: Caller | None = None,
    timeout: float | None = None,
    from_json: bool = False,
) -> RunStream:
    """Start the program `name` and give its events; arguments and errors as those of `execute`.

    What is wrong before the start is raised here, what goes wrong later is the stream's terminal event.
    """
    reader = EventReader(asyncio.get_running_loop())
    run = await _admitted(name, inputs, caller, timeout, from_json=from_json, reader=reader)
    return RunStream(run, reader)


class RunStream:
    """The events of one run, from `run_start` to exactly one terminal event. Close it to stop the run."""

    def __init__(self, run: _Run, reader: EventReader) -> None:
        self.trace_id = run.trace_id
        self._run = run
        self._reader = reader
        run.start()
        self._is_over = False

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        if self._is_over:
            raise StopAsyncIteration
        event = await self._reader.get()
        self._is_over = event.is_terminal
        return event

    def cancel(self, reason: StopReason = "client") -> None:
        """Stop the run; the stream goes on to its terminal event."""
        self._run.stop(reason)

    def close(self) -> None:
        """Nobody reads any more: stop the run unless it is over. Its trace is stored all the same."""
        if not self._is_over:
            self._is_over = True
            self._run.stop("client")
        self._reader.close()

    async def aclose(self) -> None:
        """`close`, for `contextlib.aclosing`."""
        self.close()

    def __del__(self) -> None:
        # A door that is cancelled between the start of the run and its answer never gets to close it.
        self.close()


class _Run:
    """An execution with its caller: what ties its outcome to its trace, its events and its answer."""

    def __init__(self, execution: Execution, caller: Caller) -> None:
        self.execution = execution
        self.caller = caller
        self.trace_id = execution.trace_id.hex

    def start(self) -> asyncio.Task[RunResult]:
        """Run in a task of its own, which a cancelled door does not take along."""
        live.add(self)
        task = asyncio.get_running_loop().create_task(self._arun(), context=contextvars.copy_context())
        task.add_done_callback(lambda _: live.remove(self))
        task.add_done_callback(_look_away)
        # The loop itself holds tasks weakly; the runs that are under way are held by `live`.
        self._task = task
        return task

    def stop(self, reason: StopReason) -> None:
        """Stop at the next call boundary."""
        self.execution.stop(reason)

    async def _arun(self) -> RunResult:
        outcome = await self.execution.arun()
        rows = await self._arows(outcome)
        stored = rows is not None and await writer.astore(rows)
        return self.conclude(outcome, rows, stored=stored)

    async def _arows(self, outcome: Outcome) -> TraceRows | None:
        if len(self.execution.recorder.events) < _MANY_EVENTS:
            return self.rows(outcome)
        return await asyncio.to_thread(self.rows, outcome)

    def rows(self, outcome: Outcome) -> TraceRows | None:
        """The rows of the trace; None where the program wants none."""
        program = self.execution.program
        if program.row.trace_level == Program.TraceLevel.OFF:
            return None
        try:
            return build(self._record(program, outcome))
        except Exception:
            # A trace that cannot be built must not turn a good answer into an error.
            logger.exception("The trace %s could not be built", self.trace_id)
            return None

    def _record(self, program: ServedProgram, outcome: Outcome) -> RunRecord:
        recorder = self.execution.recorder
        return RunRecord(
            trace_id=self.execution.trace_id,
            program_id=program.row.pk,
            program_name=program.name,
            version_id=program.version_id,
            version_number=program.version_number,
            model=program.lm.model,
            trace_level=program.row.trace_level,
            caller=self.caller,
            started_at=self.execution.started_at,
            ended_at=outcome.ended_at,
            status=outcome.status,
            inputs=self.execution.inputs,
            outputs=outcome.outputs,
            failure=outcome.failure,
            events=recorder.taken(),
            first_token_at=recorder.first_token_at,
        )

    def conclude(self, outcome: Outcome, rows: TraceRows | None, *, stored: bool) -> RunResult:
        """Emit the terminal event and give the answer.

        Raises:
            RequestError: the execution did not succeed.
        """
        if outcome.error is not None:
            outcome.error.trace_id, outcome.error.trace_stored = self.trace_id, stored
            self._log(outcome)
            self._emit_failure(outcome.error)
            raise outcome.error
        result = self._result(outcome, rows, stored=stored)
        self._emit_final(
            RUN_END, **{key: value for key, value in result.as_dict().items() if key not in ("trace_id", "program")}
        )
        return result

    def _result(self, outcome: Outcome, rows: TraceRows | None, *, stored: bool) -> RunResult:
        totals = rows.trace if rows is not None else {}
        tokens = ("input_tokens", "output_tokens", "cached_tokens")
        return RunResult(
            trace_id=self.trace_id,
            program=self.execution.program.name,
            version=self.execution.program.version_number,
            outputs=outcome.outputs or {},
            usage={name: totals[name] for name in tokens if totals.get(name) is not None},
            cost=totals.get("cost"),
            duration_ms=round((outcome.ended_at - self.execution.started_at) * 1000, 3),
            trace_stored=stored,
            prediction=outcome.result,
        )

    def _emit_failure(self, error: RequestError) -> None:
        if isinstance(error, RunCancelled):
            self._emit_final(RUN_CANCELLED, reason=error.reason, trace_stored=error.trace_stored)
        elif error.code == "timeout" and self.execution.signal.reason == "deadline":
            self._emit_final(RUN_CANCELLED, reason="deadline", problem=problem(error), trace_stored=error.trace_stored)
        else:
            self._emit_final(RUN_ERROR, problem=problem(error), trace_stored=error.trace_stored)

    def _emit_final(self, kind: str, **data: Any) -> None:
        recorder = self.execution.recorder
        recorder.emit(kind, span_id=recorder.root_id, name=self.execution.program.name, final=True, **data)

    def _log(self, outcome: Outcome) -> None:
        error, name = outcome.error, self.execution.program.name
        if error is not None and error.status >= 500 and outcome.failure is not None:
            logger.warning("%s failed: %s (trace %s)", name, outcome.failure.type, self.trace_id)


class LiveRuns:
    """The runs of this process that are under way, for the server's shutdown."""

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def add(self, run: _Run) -> None:
        """A run begins."""
        with self._changed:
            self._runs[id(run)] = run

    def remove(self, run: _Run) -> None:
        """A run is over, its trace stored or kept."""
        with self._changed:
            self._runs.pop(id(run), None)
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._runs)

    def refuse(self) -> None:
        """From now on, no run is started: the server is shutting down."""
        self.is_draining = True

    def stop_all(self) -> None:
        """Stop all runs at their next call boundary."""
        with self._changed:
            runs = list(self._runs.values())
        for run in runs:
            run.stop("shutdown")

    def wait(self, timeout: float) -> bool:
        """Wait until none is left, at most `timeout` seconds; whether none is."""
        end = time.monotonic() + timeout
        with self._changed:
            while self._runs and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
            return not self._runs

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._runs: dict[int, _Run] = {}
        self.is_draining = False


live = LiveRuns()


@contextmanager
def _alive(run: _Run) -> Iterator[None]:
    live.add(run)
    try:
        yield
    finally:
        live.remove(run)


async def _admitted(
    name: str,
    inputs: Mapping[str, Any],
    caller: Caller | None,
    timeout: float | None,
    *,
    from_json: bool,
    reader: EventReader | None = None,
) -> _Run:
    if live.is_draining:
        raise Overloaded("The server is shutting down.", retry_after=1.0)
    program = await catalogue.aget(name)
    values = program.schema.validate(inputs, from_json=from_json)
    execution = Execution(program, values, timeout=timeout, reader=reader)
    execution.admit(in_pool=True)
    return _Run(execution, caller or Caller())


def _refuse_event_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError("execute() would stop this thread's event loop: await aexecute() instead")


def _look_away(task: asyncio.Task[Any]) -> None:
    # A stream tells its error as an event, and of a cancelled door nobody asks; asyncio would log it.
    if not task.cancelled():
        task.exception()
