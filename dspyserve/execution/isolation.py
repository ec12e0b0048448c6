"""The context that one execution runs in, entered inside the thread or task that runs the program.

Every key that DSPy's settings would otherwise inherit from the process, from the caller or from an outer run is set
here; what each protects against is said beside it.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import dspy
from django.utils.module_loading import import_string
from dspy.utils.callback import ACTIVE_CALL_ID
from dspy.utils.usage_tracker import UsageTracker

from dspyserve.conf import settings
from dspyserve.events import RECORDER_KEY
from dspyserve.execution.module_copies import deep_copy
from dspyserve.execution.recorder import Recorder
from dspyserve.execution.token_stream import TokenStream
from dspyserve.programs.served import ServedProgram

logger = logging.getLogger(__name__)


class RunUsage(UsageTracker):
    """Tells the recorder of the usage of every LM call of the run, whatever thread makes it.

    `dspy.Parallel` deep-copies the tracker for each thread and drops the copies; this one stays itself.
    """

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __deepcopy__(self, memo: dict[int, Any]) -> RunUsage:
        return self

    def add_usage(self, lm: str, usage_entry: dict[str, Any]) -> None:
        """Count `usage_entry` for the LM call that is active."""
        self._recorder.add_usage(ACTIVE_CALL_ID.get(), usage_entry)
        super().add_usage(lm, usage_entry)


@contextmanager
def isolated(program: ServedProgram, recorder: Recorder, *, in_thread: bool, streams: bool) -> Iterator[dspy.Module]:
    """A copy of `program`'s module, in a DSPy context of its own that `recorder` observes.

    `in_thread` tells that the program runs synchronously; `streams`, that its tokens are wanted.
    """
    stream = TokenStream(recorder) if streams else None
    # An outer run's call is no parent within this one.
    call = ACTIVE_CALL_ID.set(None)
    try:
        with dspy.context(
            lm=program.lm.copy(),  # a history and callbacks of its own; connection pools are shared
            adapter=program.adapter,  # never the one that the process configured
            callbacks=[*process_callbacks(settings().callbacks), recorder],  # never those of another run
            trace=[],  # the default is one list for the whole process; None would break BestOfN and Refine
            usage_tracker=RunUsage(recorder),
            caller_modules=[],
            caller_predict=None,
            send_stream=stream,
            stream_listeners=[stream.listener] if stream else [],
            allow_tool_async_sync_conversion=in_thread,  # off the loop, an async tool may be waited for
            disable_history=False,  # the hook of the recorder takes the entries; without them there is no usage
            max_trace_size=10_000,
            **{RECORDER_KEY: recorder},
        ):
            yield copy_program(program)
    finally:
        ACTIVE_CALL_ID.reset(call)


def copy_program(program: ServedProgram) -> dspy.Module:
    """A deep copy of the module, with pinned language models copied as `LM.copy` does.

    A plain deep copy of an LM would have the original's history and make new connection pools.
    """
    memo: dict[int, Any] = {id(lm): lm.copy() for lm in program.pinned}
    memo.update((id(value), value) for value in _uncopyable(program.template))
    return deep_copy(program.template, memo)


@cache
def process_callbacks(paths: tuple[str, ...]) -> tuple[Any, ...]:
    """The callbacks that the setting `CALLBACKS` names, made once per process."""
    found = [import_string(path) for path in paths]
    return tuple(callback() if isinstance(callback, type) else callback for callback in found)


_SHARED = "_dspyserve_shared"


def _uncopyable(template: dspy.Module) -> tuple[Any, ...]:
    """What deepcopy fails on, such as locks and clients: shared between executions, as the developer made it."""
    known: tuple[Any, ...] | None = template.__dict__.get(_SHARED)
    if known is None:
        known = tuple(_failing(template))
        if known:
            names = ", ".join(sorted({type(value).__name__ for value in known}))
            logger.warning("%s holds objects that cannot be copied and are shared: %s", type(template).__name__, names)
        template.__dict__[_SHARED] = known
    return known


def _failing(value: Any) -> Iterator[Any]:
    if not isinstance(value, dspy.Module):
        yield value
        return
    for attribute in vars(value).values():
        try:
            copy.deepcopy(attribute)
        except Exception:  # noqa: BLE001 - whatever a foreign __deepcopy__ raises, it cannot be copied
            yield from _failing(attribute)
