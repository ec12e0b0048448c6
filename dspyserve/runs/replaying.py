"""Runs that say of which trace they are a replay."""

from __future__ import annotations

from django.db import close_old_connections

from dspyserve.errors import Fault, InvalidInput, TraceNotFound
from dspyserve.models import Program, Trace
from dspyserve.tracing import store
from dspyserve.tracing.search import trace_id_of


def check_original(program: Program, trace_id: str) -> None:
    """Return where a run of `program` may be a replay of the trace. Costs a query.

    Raises:
        TraceNotFound: there is no such trace.
        InvalidInput: it is one of another program.
    """
    original = _original(trace_id)
    if original is None:
        raise TraceNotFound(f"There is no trace {trace_id[:100]!r}.")
    # By name where the program of the trace was deleted and made again.
    if program.pk != original[0] and program.name != original[1]:
        raise InvalidInput([Fault("/options/replay_of", "This is a trace of another program.")])


def _original(trace_id: str) -> tuple[int | None, str] | None:
    wanted = trace_id_of(trace_id)
    if wanted is None:
        return None
    try:
        traces = Trace.objects.using(store.database()).filter(pk=wanted)
        return traces.values_list("program_id", "program_name").first()
    finally:
        # Nobody else may do it: runs also begin outside of requests.
        close_old_connections()
