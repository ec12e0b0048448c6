"""One run: an execution with its caller, from its start to its stored trace and its answer."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Coroutine
from typing import Any

from dspyserve.errors import RequestError, RunCancelled
from dspyserve.events import RUN_CANCELLED, RUN_END, RUN_ERROR, Caller, RunRecord
from dspyserve.execution.execution import Execution, Outcome
from dspyserve.execution.own_thread import has_own_thread, leave_own_thread, own_thread
from dspyserve.execution.snapshots import snapshot
from dspyserve.execution.stopping import StopReason
from dspyserve.models import Program
from dspyserve.problems import problem
from dspyserve.programs.served import ServedProgram
from dspyserve.runs.live import live
from dspyserve.runs.result import RunResult
from dspyserve.tracing.builder import build
from dspyserve.tracing.rows import TraceRows
from dspyserve.tracing.writer import writer

logger = logging.getLogger(__name__)

_MANY_EVENTS = 200
"""From this many events on, a trace is built in a thread: it would hold up the event loop."""


class Run:
    """An execution with its caller: what ties its outcome to its trace, its events and its answer."""

    def __init__(self, execution: Execution, caller: Caller, linked_trace_id: str = "") -> None:
        """`linked_trace_id` is the trace id that the caller wanted, where it is another one than the execution's."""
        self.execution = execution
        self.caller = caller
        self.linked_trace_id = linked_trace_id
        # As they are now: the program may change what it is given. Other levels of traces hold no texts.
        is_full = execution.program.row.trace_level == Program.TraceLevel.FULL
        self._inputs = snapshot(dict(execution.inputs)) if is_full else {}
        self.trace_id = execution.trace_id.hex

    def start(self) -> asyncio.Future[RunResult]:
        """Run in a task of its own, which a cancelled door does not take along, and give what the answer will be in."""
        live.add(self)
        loop, context, run = asyncio.get_running_loop(), contextvars.copy_context(), self._arun
        if has_own_thread():
            # It may outlive the request, and then its database queries need a thread all the same.
            context.run(leave_own_thread)
            run = self._arun_in_own_thread
        answer: asyncio.Future[RunResult] = loop.create_future()
        # The loop itself holds tasks weakly; the runs that are under way are held by `live`.
        self._task = loop.create_task(_settle(answer, run()), context=context)
        self._task.add_done_callback(lambda _: live.remove(self))
        return answer

    def stop(self, reason: StopReason) -> None:
        """Stop at the next call boundary."""
        self.execution.stop(reason)

    async def _arun_in_own_thread(self) -> RunResult:
        async with own_thread():
            return await self._arun()

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
            linked_trace_id=self.linked_trace_id,
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
            inputs=self._inputs,
            outputs=outcome.outputs,
            failure=outcome.failure,
            events=recorder.taken(),
            first_token_at=recorder.first_token_at,
            streamed=recorder.streamed_texts() if outcome.failure is not None else {},
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


async def _settle(answer: asyncio.Future[RunResult], run: Coroutine[Any, Any, RunResult]) -> None:
    """Put what comes of `run` into `answer`, which a door that has left may have cancelled."""
    try:
        result = await run
    except Exception as error:  # noqa: BLE001 - whoever waits is told
        if not answer.done():
            answer.set_exception(error)
            # A stream tells it as an event, and of a cancelled door nobody asks; asyncio would log it.
            answer.exception()
    except BaseException:
        answer.cancel()
        raise
    else:
        if not answer.done():
            answer.set_result(result)
