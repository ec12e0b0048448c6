"""Every error of a language model, told alike through every door of Python, and never in the provider's words."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
from typing import Any

import dspy
import pytest
from asgiref.sync import sync_to_async

from dspyserve import runs
from dspyserve.errors import RequestError
from dspyserve.execution.failures import request_error
from dspyserve.models import LanguageModel, Trace
from dspyserve.problems import problem

pytestmark = pytest.mark.usefixtures("language_model")

TABLE = [
    ("@@status=400@@", 502, "lm_error"),
    ("@@status=401@@", 500, "program_error"),
    ("@@status=402@@", 500, "program_error"),
    ("@@status=403@@", 500, "program_error"),
    ("@@status=404@@", 502, "lm_error"),
    ("@@status=408@@", 504, "timeout"),
    ("@@status=429@@@@retry_after=3@@", 429, "rate_limited"),
    ("@@status=500@@", 502, "lm_error"),
    ("@@status=503@@", 502, "lm_error"),
    ("@@error=context_length@@", 413, "too_large"),
    ("@@garbage=1@@", 502, "output_unparsable"),
    ("@@invalid_json=1@@", 502, "lm_error"),
    ("@@reset=1@@", 502, "lm_error"),
    ("@@hang=1@@", 504, "timeout"),
]


@pytest.fixture
def impatient(language_model: LanguageModel) -> None:
    """The client of the language model waits half a second."""
    language_model.timeout = 0.5
    language_model.save()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("program", ["echo", "threaded"])
@pytest.mark.parametrize(("directive", "status", "code"), TABLE)
async def test_is_told_alike_through_every_door(program: str, directive: str, status: int, code: str) -> None:
    inputs = {"question": f"q {directive}"}
    documents = [
        await by_aexecute(program, inputs),
        await by_execute(program, inputs),
        await by_astream(program, inputs),
    ]
    for document in documents:
        assert (document["status"], document["code"]) == (status, code)
        assert "provider-secret-text" not in json.dumps(document)
        if status == 429:
            assert document["retry_after"] == 3.0
        trace = await Trace.objects.aget(pk=document["trace_id"])
        assert (trace.status, trace.error_code) == ("failed", code)
        assert trace.error_type


async def by_aexecute(program: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """The problem of an awaited execution."""
    with pytest.raises(RequestError) as caught:
        await runs.aexecute(program, inputs)
    return problem(caught.value)


async def by_execute(program: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """The problem of an execution in a thread."""
    with pytest.raises(RequestError) as caught:
        await sync_to_async(runs.execute)(program, inputs)
    return problem(caught.value)


async def by_astream(program: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """The problem of a stream's terminal event."""
    events = [event async for event in await runs.astream(program, inputs)]
    assert [event.is_terminal for event in events] == [False] * (len(events) - 1) + [True]
    document: dict[str, Any] = events[-1].data["problem"]
    return document


async def test_a_stream_that_breaks_off_ends_once_and_keeps_what_came() -> None:
    events = [event async for event in await runs.astream("echo", {"question": "q @@cut=6@@"})]
    assert sum(event.type == "token" for event in events) > 0
    assert (events[-1].type, events[-1].data["problem"]["code"]) == ("run_error", "lm_error")


@pytest.mark.usefixtures("impatient")
async def test_a_stream_that_stalls_is_a_timeout() -> None:
    events = [event async for event in await runs.astream("echo", {"question": "q @@stall=6@@"})]
    assert (events[-1].type, events[-1].data["problem"]["code"]) == ("run_error", "timeout")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (dspy.utils.exceptions.LMNotConfiguredError("no key"), "program_error"),
        (dspy.utils.exceptions.LMUnexpectedError("?"), "lm_error"),
        (ValueError("No LM is loaded."), "program_error"),
        (KeyError("x"), "program_error"),
    ],
)
def test_what_no_provider_says(error: Exception, code: str) -> None:
    assert request_error(error).code == code


class Mute(Exception):
    """An error that cannot be read."""

    def __str__(self) -> str:
        raise ValueError("no text")


ODD: list[type[BaseException]] = [
    Mute,
    StopIteration,
    StopAsyncIteration,
    SystemExit,
    KeyboardInterrupt,
    GeneratorExit,
    asyncio.CancelledError,
    concurrent.futures.CancelledError,
]


@pytest.mark.parametrize(
    ("mode", "odd"),
    # On an event loop, a KeyboardInterrupt is also the user's own, in a terminal.
    [(mode, odd) for mode in ("thread", "async") for odd in ODD if (mode, odd) != ("async", KeyboardInterrupt)],
)
async def test_whatever_a_program_raises_ends_its_stream_and_nothing_else(
    serve: Any, mode: str, odd: type[BaseException]
) -> None:
    """Some end an event loop, others no future passes on: the server would end, or the client wait in vain."""

    class InThread(dspy.Module):
        def forward(self, question: str) -> Any:
            raise odd

    class OnLoop(dspy.Module):
        async def aforward(self, question: str) -> Any:
            raise odd

    factory = InThread if mode == "thread" else OnLoop
    name = await sync_to_async(serve)(factory, inputs={"question": str}, outputs={"answer": str})
    document = await asyncio.wait_for(by_astream(name, {"question": "q"}), 10)
    assert document["code"] == "program_error"
    trace = await Trace.objects.aget(pk=document["trace_id"])
    assert trace.status == "failed"
    # The span of the module, too, has its end.
    assert [span.duration_ms is not None async for span in trace.spans.all()] == [True, True]
