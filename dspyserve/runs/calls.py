"""The calls themselves: in this thread, on the event loop, and as a stream of events."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async

from dspyserve.access.resuming import announcement
from dspyserve.conf import settings
from dspyserve.errors import Overloaded
from dspyserve.events import Caller
from dspyserve.execution.event_log import EventLog
from dspyserve.execution.execution import Execution, new_trace_id
from dspyserve.programs.catalogue import catalogue
from dspyserve.programs.served import ServedProgram
from dspyserve.programs.variant import OWN, Variant
from dspyserve.runs.live import live
from dspyserve.runs.open_streams import open_streams
from dspyserve.runs.replaying import check_original
from dspyserve.runs.replication import publisher
from dspyserve.runs.result import RunResult
from dspyserve.runs.run import Run
from dspyserve.runs.stream import OnDisconnect, RunStream, StreamSource
from dspyserve.tracing.claims import claim
from dspyserve.tracing.writer import writer

_ANNOUNCING = 0.5
"""Seconds that a stream waits until it is known in Redis."""


def execute(
    name: str,
    inputs: Mapping[str, Any],
    *,
    caller: Caller | None = None,
    timeout: float | None = None,
    from_json: bool = False,
    variant: Variant = OWN,
) -> RunResult:
    """Execute the program `name` in the calling thread.

    Args:
        name: The program's name.
        inputs: Its input fields. Python values are taken leniently; `from_json` takes them as strictly as JSON.
        caller: Who asks, and what is remembered with the trace.
        timeout: Seconds; bounded by the setting `MAX_TIMEOUT`.
        variant: Another language model or version than the program's own. The program's limits hold for it too.

    Raises:
        RequestError: one of the errors of `dspyserve.errors`, with its `trace_id` where the program was started.
        RuntimeError: the calling thread runs an event loop, which this would stop; use `aexecute`.
    """
    _refuse_event_loop()
    caller = caller or Caller()
    program = catalogue.get(name, variant)
    if program.mode == "async":
        aresult: RunResult = async_to_sync(aexecute)(
            name, inputs, caller=caller, timeout=timeout, from_json=from_json, variant=variant
        )
        return aresult
    if caller.replay_of:
        check_original(program.row, caller.replay_of)
    values = program.schema.validate(inputs, from_json=from_json)
    trace_id = _wanted_id(caller) or new_trace_id()
    execution = Execution(program, values, timeout=timeout, trace_id=trace_id)
    run = Run(execution, caller, _link(caller, trace_id))
    execution.admit(in_pool=False)
    with live.holding(run):
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
    variant: Variant = OWN,
) -> RunResult:
    """Execute the program `name` without stopping the event loop; arguments and errors as those of `execute`.

    When the awaiting task is cancelled, because its client left, the execution is stopped at its next call boundary.
    """
    caller = caller or Caller()
    program, values, trace_id = await _prepared(name, inputs, caller, variant, from_json=from_json)
    run = _admitted(program, values, caller, timeout, trace_id)
    try:
        return await run.start()
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
    on_disconnect: OnDisconnect = "cancel",
    payloads: bool = True,
    variant: Variant = OWN,
) -> RunStream:
    """Start the program `name` and give its events; arguments and errors as those of `execute`.

    What is wrong before the start is raised here, what goes wrong later is the stream's terminal event. `on_disconnect`
    says whether the run is stopped when nobody reads any more; `payloads`, whether the inputs and outputs of inner
    spans are told. A stream of a caller with an owner may be read again: `aresume`.
    """
    caller = caller or Caller()
    program, values, trace_id = await _prepared(name, inputs, caller, variant, from_json=from_json)
    log = EventLog(trace_id.hex, payloads=payloads)
    run = _admitted(program, values, caller, timeout, trace_id, log)
    source = StreamSource(log, owner=caller.owner, on_disconnect=on_disconnect, stop=run.stop)
    if caller.owner:
        open_streams.add(source)
        run.execution.announced |= announcement(caller.owner, trace_id.hex)
    stream = RunStream(source)
    run.start()
    if caller.owner and settings().redis_url:
        # Whoever knows of the stream finds it anywhere. The run is under way meanwhile.
        announced = asyncio.wrap_future(publisher.add(source))
        await asyncio.wait({announced}, timeout=_ANNOUNCING)
    return stream


async def _prepared(
    name: str, inputs: Mapping[str, Any], caller: Caller, variant: Variant, *, from_json: bool
) -> tuple[ServedProgram, Mapping[str, Any], uuid.UUID]:
    """The program, its validated inputs, and the trace id: the one that the caller brought, where it can be had."""
    if live.is_draining:
        raise Overloaded("The server is shutting down.", retry_after=1.0)
    program = await catalogue.aget(name, variant)
    if caller.replay_of:
        await sync_to_async(check_original)(program.row, caller.replay_of)
    values = program.schema.validate(inputs, from_json=from_json)
    wanted = await sync_to_async(_wanted_id)(caller) if caller.trace_id else None
    return program, values, wanted or new_trace_id()


def _admitted(
    program: ServedProgram,
    values: Mapping[str, Any],
    caller: Caller,
    timeout: float | None,
    trace_id: uuid.UUID,
    log: EventLog | None = None,
) -> Run:
    execution = Execution(program, values, timeout=timeout, log=log, trace_id=trace_id)
    execution.admit(in_pool=True)
    return Run(execution, caller, _link(caller, trace_id))


def _wanted_id(caller: Caller) -> uuid.UUID | None:
    """The trace id that the caller brought, if it can be had. The items of a batch cannot all have it, so none has."""
    if not caller.trace_id or caller.batch_id:
        return None
    wanted = uuid.UUID(caller.trace_id)
    return wanted if claim(wanted) else None


def _link(caller: Caller, trace_id: uuid.UUID) -> str:
    return "" if trace_id.hex == caller.trace_id else caller.trace_id


def _refuse_event_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError("execute() would stop this thread's event loop: await aexecute() instead")
