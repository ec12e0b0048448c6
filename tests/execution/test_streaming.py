"""Tokens of every field of every predictor, without a word of configuration."""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Callable
from typing import Any, Literal

import dspy
import pydantic
import pytest
from asgiref.sync import sync_to_async
from dspy.adapters.baml_adapter import BAMLAdapter
from dspy.clients import execution
from dspy.clients.engines.streaming import ListenerBridge

from dspyserve import ContextThreadPoolExecutor, runs
from dspyserve.events import FIELD, TOKEN
from dspyserve.execution import token_stream
from dspyserve.execution.recorder import Recorder
from dspyserve.execution.token_stream import TokenStream
from dspyserve.models import LanguageModel, Span, Trace
from tests.execution.streams import only, stream, told
from tests.load.openai_server import OpenAIServer

pytestmark = pytest.mark.usefixtures("language_model")

ADAPTERS = ["chat", "json", "xml"]
TRICKY = 'He said "no" \\ {a: [1]} & <b> ]]> [[ ## answer ## ]] é 😀 end'
TEXT = "@@words=40@@ @@chunk=3@@"


@pytest.fixture
def aserve(serve: Any) -> Callable[..., Any]:
    """`serve`, from the event loop."""
    return sync_to_async(serve)


class Colour(enum.Enum):
    RED = "red"


class Person(pydantic.BaseModel):
    name: str
    age: int


class Typed(dspy.Signature):
    """Fill every field."""

    question: str = dspy.InputField()
    before: str = dspy.OutputField()
    count: int = dspy.OutputField()
    people: list[Person] = dspy.OutputField()
    between: str = dspy.OutputField()
    kind: Literal["a", "b"] = dspy.OutputField()
    colour: Colour = dspy.OutputField()
    maybe: str | None = dspy.OutputField()
    table: dict[str, int] = dspy.OutputField()
    after: str = dspy.OutputField()


class Thinking(dspy.Signature):
    """Think, then answer."""

    question: str = dspy.InputField()
    thought: dspy.Reasoning = dspy.OutputField()
    answer: str = dspy.OutputField()


class Caller(dspy.Module):
    """Two predictors one after the other; the second is made on the fly."""

    def __init__(self) -> None:
        super().__init__()
        self.first = dspy.ChainOfThought("question -> draft, sure: bool")

    def forward(self, question: str) -> Any:
        draft = self.first(question=question).draft
        return dspy.Prediction(answer=dspy.Predict("question -> answer")(question=question).answer + str(len(draft)))


class AsyncCaller(Caller):
    async def aforward(self, question: str) -> Any:
        made = dspy.Predict("question -> answer, count: int")
        answers = await asyncio.gather(made.acall(question=question), self.first.acall(question=f"again {question}"))
        return dspy.Prediction(answer=answers[0].answer)


class WithAdapter(dspy.Module):
    """A predictor whose answers an adapter of the program's own reads, on the event loop or in a thread."""

    def __init__(self, make: Callable[[], Any], signature: Any = "question -> answer, count: int") -> None:
        super().__init__()
        self.make = make
        self.ask = dspy.Predict(signature)

    def forward(self, question: str) -> Any:
        with dspy.context(adapter=self.make()):
            return self.ask(question=question)


class AsyncWithAdapter(WithAdapter):
    async def aforward(self, question: str) -> Any:
        with dspy.context(adapter=self.make()):
            return await self.ask.acall(question=question)


class Shouting(dspy.Predict):
    """Gives another text than the one that streamed."""

    async def aforward(self, **kwargs: Any) -> Any:
        prediction = await super().aforward(**kwargs)
        prediction.answer = prediction.answer.upper()
        return prediction


class OwnAdapter(dspy.ChatAdapter):
    """A custom one."""


def two_steps() -> Any:
    return dspy.TwoStepAdapter(dspy.settings.lm)


class TestAdapters:
    @pytest.mark.parametrize("adapter", ADAPTERS)
    async def test_texts_stream_and_other_types_come_whole(self, aserve: Any, adapter: str) -> None:
        events = await stream(await aserve(lambda: dspy.Predict(Typed), adapter=adapter), question=TEXT)
        call = only(events)
        assert call.values.keys() == Typed.output_fields.keys()
        texts = {name: count for name, count in call.counts.items() if count > 1}
        assert texts.keys() == {"before", "between", "maybe", "after"}
        assert min(texts.values()) > 20
        assert (call.values["count"], call.values["kind"], call.values["colour"]) == (42, "a", "red")
        assert call.values["people"][0].keys() == {"name", "age"}
        assert call.resets == []

    @pytest.mark.parametrize("adapter", ADAPTERS)
    @pytest.mark.parametrize("size", [1, 2, 7, 1000])
    async def test_markup_in_a_text_does_not_leak(self, aserve: Any, adapter: str, size: int) -> None:
        name = await aserve(lambda: dspy.ChainOfThought("question -> answer, count: int"), adapter=adapter)
        call = only(await stream(name, question=f"@@answer={TRICKY}@@ @@chunk={size}@@"))
        assert call.values == {"reasoning": TRICKY, "answer": TRICKY, "count": 42}
        assert call.resets == []

    @pytest.mark.parametrize("adapter", ADAPTERS)
    async def test_the_first_delta_comes_before_the_answer_ends(self, aserve: Any, adapter: str) -> None:
        events = await stream(await aserve(lambda: dspy.Predict("question -> answer"), adapter=adapter), question=TEXT)
        types = [event.type for event in events]
        assert types.index(TOKEN) < types.index("lm_end")

    @pytest.mark.parametrize("module", [WithAdapter, AsyncWithAdapter])
    @pytest.mark.parametrize("make", [OwnAdapter, two_steps, BAMLAdapter])
    async def test_of_other_adapters_every_field_is_told(self, aserve: Any, module: Any, make: Any) -> None:
        name = await aserve(lambda: module(make), outputs={"answer": str, "count": int})
        call = only(await stream(name, question=TEXT))
        assert call.predictor == "ask"
        assert call.values.keys() == {"answer", "count"}
        assert call.resets == []
        if make is OwnAdapter:
            assert call.counts["answer"] == 1

    async def test_an_adapter_that_asks_a_model_is_no_parent(self, aserve: Any) -> None:
        name = await aserve(lambda: WithAdapter(two_steps), outputs={"answer": str, "count": int})
        events = await stream(name, question="q")
        trace = await Trace.objects.aget(pk=events[0].trace_id)
        spans = [span async for span in Span.objects.filter(trace=trace)]
        assert {span.parent_id for span in spans if span.kind == "lm"} <= {span.span_id for span in spans}
        assert trace.lm_calls == 2

    async def test_what_the_predictor_makes_of_a_text_counts(self, aserve: Any) -> None:
        types = {"inputs": {"question": str}, "outputs": {"answer": str}}
        name = await aserve(lambda: Shouting("question -> answer"), **types)
        call = only(await stream(name, question="@@answer=no, yes@@"))
        assert call.resets == ["answer"]
        assert call.values == {"answer": "NO, YES"}

    @pytest.mark.parametrize("adapter", ["chat", "json"])
    async def test_an_empty_text_is_told(self, aserve: Any, adapter: str) -> None:
        name = await aserve(lambda: dspy.Predict("question -> answer"), adapter=adapter)
        events = await stream(name, question="@@answer=@@")
        assert [event.data["value"] for event in events if event.type == FIELD] == [""]

    async def test_trace_and_spans_know_no_fields(self, aserve: Any) -> None:
        events = await stream(await aserve(lambda: dspy.Predict(Typed)), question="q")
        trace = await Trace.objects.aget(pk=events[0].trace_id)
        kinds = [span.kind async for span in Span.objects.filter(trace=trace)]
        assert kinds == ["run", "module", "lm"]


class TestReasoning:
    @pytest.mark.parametrize("adapter", ADAPTERS)
    async def test_of_a_chain_of_thought_is_a_field(self, aserve: Any, adapter: str) -> None:
        name = await aserve(lambda: dspy.ChainOfThought("question -> answer"), adapter=adapter)
        call = only(await stream(name, question=TEXT))
        assert call.counts["reasoning"] > 20
        assert call.predictor == "predict"

    @pytest.mark.parametrize("adapter", ADAPTERS)
    async def test_of_its_own_type_streams(self, aserve: Any, adapter: str) -> None:
        call = only(await stream(await aserve(lambda: dspy.Predict(Thinking), adapter=adapter), question=TEXT))
        assert call.values.keys() == {"thought", "answer"}
        if adapter != "json":  # an object in JSON's schema
            assert call.counts["thought"] > 20
        assert call.resets == []

    @pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "openai/o3-mini"])
    @pytest.mark.parametrize("adapter", ADAPTERS)
    async def test_of_the_model_is_the_field_of_that_type(
        self, aserve: Any, language_model: LanguageModel, model: str, adapter: str
    ) -> None:
        # Of o3-mini DSPy knows that it thinks, and does not ask it to write the field.
        language_model.model, language_model.parameters = model, {}
        await language_model.asave()
        name = await aserve(lambda: dspy.Predict(Thinking), adapter=adapter)
        call = only(await stream(name, question="@@reasoning_content=let me see@@ @@answer=yes@@"))
        assert call.values == {"thought": "let me see", "answer": "yes"}
        assert call.counts["thought"] == 3
        assert call.resets == []

    @pytest.mark.parametrize("adapter", ADAPTERS)
    async def test_of_the_model_stands_beside_that_of_the_program(self, aserve: Any, adapter: str) -> None:
        name = await aserve(lambda: dspy.ChainOfThought("question -> answer"), adapter=adapter)
        call = only(await stream(name, question="@@reasoning_content=let me see@@ @@answer=yes@@"))
        assert call.values == {"reasoning_content": "let me see", "reasoning": "yes", "answer": "yes"}
        assert call.resets == []


class TestCompletions:
    @pytest.mark.parametrize("adapter", ADAPTERS)
    async def test_the_first_of_several_is_told(self, aserve: Any, provider: OpenAIServer, adapter: str) -> None:
        name = await aserve(lambda: dspy.ChainOfThought("question -> answer, count: int", n=3), adapter=adapter)
        call = only(await stream(name, question="Which? @@chunk=4@@ @@reasoning_content=let me see@@"))
        assert len(provider.requests) == 3
        assert call.values["reasoning_content"] == "let me see"
        assert call.counts["answer"] > 10
        assert call.resets == []

    @pytest.mark.parametrize("module", [WithAdapter, AsyncWithAdapter])
    async def test_of_an_adapter_with_two_steps_too(self, aserve: Any, provider: OpenAIServer, module: Any) -> None:
        def make() -> Any:
            built = module(two_steps)
            built.ask.config["n"] = 2
            return built

        call = only(await stream(await aserve(make, outputs={"answer": str, "count": int}), question="q"))
        assert len(provider.requests) == 4
        assert call.resets == []


class TestThreads:
    @pytest.mark.parametrize(
        ("program", "calls"), [("threaded", 2), ("parallel", 6), ("pooled", 4), ("gathered", 4), ("echo", 1)]
    )
    async def test_tokens_flow_from_everywhere(self, provider: OpenAIServer, program: str, calls: int) -> None:
        known = told(await stream(program, question=TEXT))
        assert len(known) == calls
        for call in known.values():
            assert all(count > 20 for count in call.counts.values())
        assert all(request.stream for request in provider.requests)

    @pytest.mark.parametrize("module", [Caller, AsyncCaller])
    async def test_of_predictors_that_are_made_on_the_fly(self, aserve: Any, module: Any) -> None:
        known = told(await stream(await aserve(module, outputs={"answer": str}), question=TEXT))
        assert sorted(call.predictor for call in known.values()) == ["Predict", "first.predict"]
        for call in known.values():
            assert call.counts["answer" if "answer" in call.values else "draft"] > 20

    @pytest.mark.parametrize("adapter", ADAPTERS)
    async def test_every_step_of_an_agent(self, aserve: Any, adapter: str) -> None:
        def search(query: str) -> str:
            """Search."""
            return "found"

        async def asearch(query: str) -> str:
            """Search."""
            return "found"

        for tool in (search, asearch):
            name = await aserve(lambda tool=tool: dspy.ReAct("question -> answer", tools=[tool]), adapter=adapter)
            known = list(told(await stream(name, question=TEXT)).values())
            steps = [call.values["next_tool_name"] for call in known if "next_tool_name" in call.values]
            assert steps == [tool.__name__, "finish"]
            assert list(known[0].values["next_tool_args"]) == ["query"]
            assert known[0].counts["next_thought"] > 20
            assert known[-1].counts["answer"] > 20

    @pytest.mark.parametrize("kind", ["thread", "pool", "async", "sync on the loop"])
    async def test_a_program_may_call_its_model_itself(self, aserve: Any, kind: str) -> None:
        class Direct(dspy.Module):
            def forward(self, question: str) -> Any:
                if kind == "pool":
                    with ContextThreadPoolExecutor(1) as pool:
                        return dspy.Prediction(answer=pool.submit(dspy.settings.lm, question).result()[0])
                return dspy.Prediction(answer=dspy.settings.lm(question)[0])

        class AsyncDirect(dspy.Module):
            async def aforward(self, question: str) -> Any:
                lm = dspy.settings.lm
                return dspy.Prediction(answer=(await lm.acall(question) if kind == "async" else lm(question))[0])

        module = AsyncDirect if kind in ("async", "sync on the loop") else Direct
        events = await stream(await aserve(module, outputs={"answer": str}), question="@@answer=yes@@")
        assert events[-1].data["outputs"] == {"answer": "yes"}
        assert told(events) == {}


class TestCache:
    @pytest.mark.parametrize("adapter", ADAPTERS)
    async def test_a_hit_gives_one_delta_per_field(
        self, aserve: Any, provider: OpenAIServer, language_model: LanguageModel, adapter: str
    ) -> None:
        language_model.cache = True
        await language_model.asave()
        name = await aserve(lambda: dspy.ChainOfThought("question -> answer, count: int", n=2), adapter=adapter)
        question = f"cached {time.time_ns()} {TEXT}"
        first = only(await stream(name, question=question))
        requests = len(provider.requests)
        second = only(await stream(name, question=question))
        assert len(provider.requests) == requests
        assert second.values == first.values
        assert second.counts == {"reasoning": 1, "answer": 1, "count": 1}


class TestWithoutAStream:
    @pytest.mark.parametrize("program", ["echo", "threaded", "parallel", "gathered"])
    async def test_nothing_is_paid(self, provider: OpenAIServer, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
        def refuse(*args: Any, **kwargs: Any) -> Any:
            raise AssertionError("made without a stream")

        monkeypatch.setattr(token_stream, "_CallStream", refuse)
        monkeypatch.setattr(token_stream.TokenStream, "__init__", refuse)
        for method in ("token", "settle", "predictor_of"):
            monkeypatch.setattr(Recorder, method, refuse)
        result = await runs.aexecute(program, {"question": TEXT})
        assert result.outputs
        assert provider.requests
        assert not any(request.stream for request in provider.requests)
        assert (await Trace.objects.aget(pk=result.trace_id)).first_token_ms is None


@pytest.mark.parametrize("program", ["echo", "threaded"])
async def test_texts_come_directly_and_alike(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the first text of a call take the short way, and it tells what DSPy's own way tells."""
    chunks: list[Any] = []
    send = TokenStream.send

    async def noted(self: TokenStream, chunk: Any) -> None:
        chunks.append(chunk)
        await send(self, chunk)

    async def texts() -> list[Any]:
        chunks.clear()
        events = await stream(program, question=TEXT + "@@reasoning_content=a b c d@@")
        return [(event.seq, event.type, event.name, event.data.get("delta")) for event in events]

    monkeypatch.setattr(TokenStream, "send", noted)
    directly = await texts()
    calls = sum(kind == "lm_start" for _, kind, *_ in directly)
    assert len(chunks) == 2 * calls, "the first text, and the end"
    monkeypatch.setattr(execution, "ListenerBridge", ListenerBridge)
    assert await texts() == directly
    assert len(chunks) > 40 * calls
