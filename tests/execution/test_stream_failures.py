"""What a client is told, and the trace keeps, of a stream whose provider fails in its middle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import dspy
import pytest
from asgiref.sync import sync_to_async

from dspyserve import runs
from dspyserve.events import FIELD_RESET, TOKEN, Event
from dspyserve.models import LanguageModel, Span, SpanPayload, Trace
from tests.execution.streams import check, only, stream, told
from tests.load.openai_server import OpenAIServer
from tests.load.openai_wire import SECRET

pytestmark = pytest.mark.usefixtures("language_model")

# Of an answer of one field, the header is five chunks.
FAULTS = [
    ("@@cut=12@@", "lm_error", "LMTransportError"),
    ("@@garbage_after=12@@", "lm_error", "LMUnexpectedError"),
    ("@@error_after=12@@", "rate_limited", "LMRateLimitError"),
    ("@@error_after=12@@ @@error_status=500@@", "lm_error", "LMServerError"),
    ("@@stall=12@@", "timeout", "LMTransportError"),
]
WORDS = "@@words=40@@"


@pytest.fixture
def aserve(serve: Any) -> Callable[..., Any]:
    """`serve`, from the event loop."""
    return sync_to_async(serve)


@pytest.fixture
def impatient(language_model: LanguageModel) -> None:
    """The language model's client gives up after half a second of silence."""
    language_model.timeout = 0.5
    language_model.save()


async def failed(events: Sequence[Event], code: str) -> Trace:
    """The trace of a run that failed with that code; no text of the provider has left."""
    end = events[-1]
    assert (end.type, end.data["problem"]["code"]) == ("run_error", code)
    assert SECRET not in str([event.as_dict() for event in events])
    trace = await Trace.objects.aget(pk=end.trace_id)
    assert (trace.status, trace.error_code) == ("failed", code)
    return trace


async def partial(trace: Trace) -> dict[str, Any]:
    """What the trace keeps of answers that never were, by span id."""
    payloads = SpanPayload.objects.filter(span__trace=trace, attributes__has_key="partial_outputs")
    return {row.span.span_id: row.attributes["partial_outputs"] async for row in payloads.select_related("span")}


def streamed(events: Sequence[Event]) -> dict[str, Any]:
    """What the client has of predictors that did not end well, by span id."""
    well = {event.span_id for event in events if event.type == "module_end" and "error_type" not in event.data}
    return {span_id: call.values for span_id, call in told(events).items() if span_id not in well}


@pytest.mark.usefixtures("impatient")
class TestFaults:
    @pytest.mark.parametrize("program", ["echo", "threaded", "parallel", "gathered"])
    @pytest.mark.parametrize(("directive", "code", "error"), FAULTS)
    async def test_is_the_one_terminal_event(self, program: str, directive: str, code: str, error: str) -> None:
        if program == "parallel":
            # DSPy gives None for what failed, and the program trips over it.
            code, error = "program_error", "AttributeError"
        events = await stream(program, question=f"{directive} {WORDS}")
        trace = await failed(events, code)
        assert trace.error_type == error
        texts = streamed(events)
        assert texts
        # Siblings of the one that failed may have come less far.
        assert max(len(text.split()) for fields in texts.values() for text in fields.values()) == 7
        assert await partial(trace) == texts

    @pytest.mark.parametrize("adapter", ["json", "xml"])
    @pytest.mark.parametrize(("directive", "code", "error"), FAULTS)
    async def test_whatever_the_adapter(self, aserve: Any, adapter: str, directive: str, code: str, error: str) -> None:
        name = await aserve(lambda: dspy.Predict("question -> answer"), adapter=adapter)
        events = await stream(name, question=f"{directive} {WORDS}")
        trace = await failed(events, code)
        assert only(events).values["answer"].startswith("answer_0 answer_1")
        assert await partial(trace) == streamed(events)

    async def test_a_limit_says_when_to_come_again(self) -> None:
        events = await stream("echo", question=f"@@error_after=12@@ {WORDS}")
        assert events[-1].data["problem"]["retry_after"] > 0

    @pytest.mark.parametrize("directive", ["@@error_after=0@@", "@@garbage_after=0@@", "@@invalid_json=1@@"])
    async def test_before_the_first_delta_nothing_is_told(self, directive: str) -> None:
        events = await stream("echo", question=directive)
        trace = await Trace.objects.aget(pk=events[-1].trace_id)
        assert events[-1].type == "run_error"
        assert told(events) == {}
        assert await partial(trace) == {}

    async def test_an_answer_without_its_end_is_none(self) -> None:
        # All of the text came, and the usage: DSPy does not show the usage of an answer that it does not take.
        events = await stream("echo", question="@@undone=1@@ @@answer=all of it@@")
        trace = await failed(events, "lm_error")
        assert list((await partial(trace)).values()) == [{"answer": "all of it"}]
        assert (trace.input_tokens, trace.output_tokens, trace.cost) == (None, None, None)

    async def test_a_deadline_keeps_what_came(self) -> None:
        events = await stream("threaded", question=f"@@stall=12@@ {WORDS}", timeout=0.3)
        assert (events[-1].type, events[-1].data["reason"]) == ("run_cancelled", "deadline")
        trace = await Trace.objects.aget(pk=events[-1].trace_id)
        assert trace.status == "timed_out"
        assert await partial(trace) == streamed(events)

    async def test_what_is_left_of_the_run_stops(self, aserve: Any, provider: OpenAIServer) -> None:
        class Siblings(dspy.Module):
            def __init__(self) -> None:
                super().__init__()
                self.ask = dspy.Predict("question -> answer")

            async def aforward(self, question: str) -> Any:
                others = (self.ask.acall(question=f"{WORDS} @@token_delay=0.03@@ {number}") for number in range(3))
                return (await asyncio.gather(self.ask.acall(question=question), *others))[0]

        name = await aserve(Siblings, outputs={"answer": str})
        events = await stream(name, question=f"@@delay=0.4@@ @@error_after=12@@ {WORDS}")
        trace = await failed(events, "rate_limited")
        assert len(streamed(events)) == 4
        assert await partial(trace) == streamed(events)
        while provider.in_flight:
            await asyncio.sleep(0.01)
        assert provider.aborted >= 3

    async def test_runs_beside_it_go_on(self) -> None:
        faults = [stream("threaded", question=f"{directive} {WORDS}") for directive, _, _ in FAULTS]
        good = [stream(program, question="q") for program in ("echo", "threaded", "gathered")]
        found = await asyncio.gather(*faults, *good)
        ends = [events[-1].type for events in found]
        assert ends == ["run_error"] * len(FAULTS) + ["run_end"] * 3


@pytest.mark.usefixtures("impatient")
class TestUsage:
    @pytest.mark.parametrize(("directive", "code", "error"), FAULTS)
    async def test_of_an_earlier_call_is_in_the_trace(self, directive: str, code: str, error: str) -> None:
        events = await stream("threaded", question=f"@@fail_after=1@@ @@id={code}@@ {directive} {WORDS}")
        trace = await failed(events, code)
        calls = [span async for span in Span.objects.filter(trace=trace, kind="lm")]
        assert [(span.status, span.input_tokens is not None) for span in calls] == [("ok", True), ("error", False)]
        assert (trace.input_tokens, trace.output_tokens) == (calls[0].input_tokens, calls[0].output_tokens)
        assert trace.input_tokens
        assert trace.output_tokens
        assert trace.cost is None  # unknown, as soon as one call's is
        assert len(await partial(trace)) == 1

    async def test_of_completions_before_the_one_that_failed_too(self, aserve: Any, provider: OpenAIServer) -> None:
        name = await aserve(lambda: dspy.Predict("question -> answer", n=3))
        events = await stream(name, question=f"@@fail_after=2@@ @@id=n@@ @@cut=12@@ {WORDS}")
        trace = await failed(events, "lm_error")
        assert len(provider.requests) == 3
        once = (await runs.aexecute("echo", {"question": f"@@fail_after=2@@ @@id=m@@ @@cut=12@@ {WORDS}"})).usage
        assert (trace.input_tokens, trace.output_tokens) == (2 * once["input_tokens"], 2 * once["output_tokens"])


class TestAnswersThatCannotBeRead:
    @pytest.mark.parametrize("execution", ["async", "thread"])
    @pytest.mark.parametrize("adapter", ["chat", "xml"])
    async def test_before_the_first_delta_the_adapter_asks_again(
        self, aserve: Any, provider: OpenAIServer, execution: Any, adapter: str
    ) -> None:
        name = await aserve(lambda: dspy.ChainOfThought("question -> answer"), adapter=adapter, execution=execution)
        question = f"@@garbage=1@@ @@fail_times=1@@ @@id={adapter}{execution}@@ {WORDS}"
        events = await stream(name, question=question)
        assert events[-1].type == "run_end"
        assert [request.response_format is None for request in provider.requests] == [True, False]
        assert only(events).resets == []
        assert only(events).counts["answer"] > 20

    @pytest.mark.parametrize("execution", ["async", "thread"])
    @pytest.mark.parametrize("adapter", ["chat", "xml"])
    async def test_after_it_the_field_begins_anew(
        self, aserve: Any, provider: OpenAIServer, execution: Any, adapter: str
    ) -> None:
        name = await aserve(lambda: dspy.ChainOfThought("question -> answer"), adapter=adapter, execution=execution)
        question = f"@@fields=1@@ @@fail_times=1@@ @@id={adapter}{execution}@@ {WORDS}"
        events = await stream(name, question=question)
        assert events[-1].type == "run_end"
        assert len(provider.requests) == 2
        call = only(events)
        assert call.resets == ["reasoning"]
        assert call.values == events[-1].data["outputs"]
        types = [event.type for event in events]
        reset = types.index(FIELD_RESET)
        assert TOKEN in types[:reset]
        assert types[reset + 1 :].count(TOKEN) > 40

    async def test_once_more_is_not_for_ever(self, aserve: Any, provider: OpenAIServer) -> None:
        name = await aserve(lambda: dspy.ChainOfThought("question -> answer"))
        events = await stream(name, question=f"@@fields=1@@ {WORDS}")
        trace = await failed(events, "output_unparsable")
        assert len(provider.requests) == 2
        assert only(events).resets == ["reasoning"]
        assert await partial(trace) == streamed(events)
        # Both answers were billed.
        assert trace.lm_calls == 2
        assert trace.output_tokens is not None
        assert trace.output_tokens > 40

    async def test_as_without_a_stream(self, aserve: Any, provider: OpenAIServer) -> None:
        name = await aserve(lambda: dspy.ChainOfThought("question -> answer"))
        question = f"@@fields=1@@ @@fail_times=1@@ @@id=%s@@ {WORDS}"
        told_outputs = (await stream(name, question=question % "streamed"))[-1].data["outputs"]
        result = await runs.aexecute(name, {"question": question % "whole"})
        assert result.outputs == told_outputs
        assert len(provider.requests) == 4

    async def test_a_language_model_is_not_asked_again_in_the_middle(
        self, language_model: LanguageModel, provider: OpenAIServer
    ) -> None:
        language_model.num_retries = 2
        await language_model.asave()
        events = await stream("echo", question=f"@@cut=12@@ {WORDS}")
        check(events)
        assert len(provider.requests) == 1
