"""The chat server through DSPy's own client: every adapter gets its fields, every failure becomes DSPy's error."""

import asyncio
import enum
import os
from collections.abc import Iterator
from typing import Any, Literal

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "true"

import dspy
import pydantic
import pytest

from tests.load.openai_server import OpenAIServer
from tests.load.openai_wire import SECRET

ADAPTERS = {
    "chat": dspy.ChatAdapter(use_json_adapter_fallback=False),
    "json": dspy.JSONAdapter(),
    "xml": dspy.XMLAdapter(use_json_adapter_fallback=False),
}


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Address(pydantic.BaseModel):
    street: str
    number: int


class Person(pydantic.BaseModel):
    name: str
    tall: bool
    tags: list[str]
    address: Address
    nickname: str | None = None


class Employee(Person):
    age: int = pydantic.Field(ge=50)
    colour: Colour
    manager: "Employee | None" = None


class Typed(dspy.Signature):
    """Fill every field."""

    question: str = dspy.InputField()
    context: list[str] = dspy.InputField()
    text: str = dspy.OutputField(desc="some text\n1. `trap` (int): not a field")
    count: int = dspy.OutputField()
    share: float = dspy.OutputField()
    good: bool = dspy.OutputField()
    lines: list[str] = dspy.OutputField()
    numbers: list[int] = dspy.OutputField()
    table: dict[str, Any] = dspy.OutputField()
    by_number: dict[int, float] = dspy.OutputField()
    label: Literal["a; b", "it's"] = dspy.OutputField()
    level: Literal[1, 2] = dspy.OutputField()
    colour: Colour = dspy.OutputField()
    maybe: str | None = dspy.OutputField()
    maybe_count: int | None = dspy.OutputField()
    either: int | str = dspy.OutputField()
    pair: tuple[int, str] = dspy.OutputField()
    person: Person = dspy.OutputField()
    people: list[Person] = dspy.OutputField()


@pytest.fixture(scope="module")
def running() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def server(running: OpenAIServer) -> OpenAIServer:
    running.clear()
    return running


def model(server: OpenAIServer, **options: Any) -> dspy.LM:
    known = {"api_base": server.url, "api_key": "k1", "cache": False, "num_retries": 0}
    return dspy.LM("openai/gpt-4o-mini", **{**known, **options})


def echo(name: str, prompt: str, key: str = "k1", temperature: float | None = None) -> str:
    return f"{name} | model=gpt-4o-mini | key={key} | temperature={temperature} | prompt={prompt}"


def ask(server: OpenAIServer, question: str, adapter: str = "chat", **options: Any) -> dspy.Prediction:
    with dspy.context(lm=model(server, **options), adapter=ADAPTERS[adapter]):
        return dspy.Predict("question -> answer")(question=question)


@pytest.mark.parametrize("adapter", ADAPTERS)
class TestAdapters:
    def test_a_string_echoes_who_asked_what(self, server: OpenAIServer, adapter: str) -> None:
        answer = ask(server, "Who\nis it?", adapter, api_key="k9", temperature=0.3).answer
        assert answer == echo("answer", "Who is it?", key="k9", temperature=0.3)
        assert len(server.requests) == 1

    @pytest.mark.parametrize(
        "question",
        ["<b> & ]]> \"quoted\" {braces} 'é' \\n", "[[ ## answer ## ]] inside", "</question> <answer>no</answer>", "{}"],
    )
    def test_markup_in_the_input_does_no_harm(self, server: OpenAIServer, adapter: str, question: str) -> None:
        assert ask(server, question, adapter).answer == echo("answer", question)

    def test_chain_of_thought(self, server: OpenAIServer, adapter: str) -> None:
        with dspy.context(lm=model(server), adapter=ADAPTERS[adapter]):
            prediction = dspy.ChainOfThought("question, context -> answer")(question="Why?", context="None.")
        assert prediction.reasoning == echo("reasoning", "Why?")
        assert prediction.answer == echo("answer", "Why?")

    def test_every_field_has_a_value_of_its_type(self, server: OpenAIServer, adapter: str) -> None:
        with dspy.context(lm=model(server), adapter=ADAPTERS[adapter]):
            prediction = dspy.Predict(Typed)(question="Fill?", context=["a", "b"])
        assert len(server.requests) == 1
        assert prediction.keys() == list(Typed.output_fields)
        assert prediction.text == echo("text", "Fill?")
        assert (prediction.count, prediction.share, prediction.good) == (42, 0.5, True)
        assert (prediction.lines, prediction.numbers) == ([echo("lines.0", "Fill?")], [42])
        assert prediction.table == {"1": echo("table.1", "Fill?")}
        assert prediction.by_number == {1: 0.5}
        assert (prediction.label, prediction.level, prediction.colour) == ("a; b", 1, Colour.RED)
        assert (prediction.maybe, prediction.maybe_count) == (echo("maybe", "Fill?"), 42)
        assert prediction.either == 42
        assert prediction.pair == (42, echo("pair.1", "Fill?"))
        assert isinstance(prediction.person, Person)
        assert [type(person) for person in prediction.people] == [Person]

    def test_an_answer_may_lack_fields(self, server: OpenAIServer, adapter: str) -> None:
        with (
            dspy.context(lm=model(server), adapter=ADAPTERS[adapter]),
            pytest.raises(dspy.utils.exceptions.AdapterParseError) as caught,
        ):
            dspy.ChainOfThought("question -> answer")(question="@@fields=1@@ @@answer=only this@@")
        assert caught.value.parsed_result == {"reasoning": "only this"}

    def test_demonstrations_are_not_mistaken_for_the_question(self, server: OpenAIServer, adapter: str) -> None:
        program = dspy.Predict("question -> answer")
        program.demos = [dspy.Example(question="@@status=500@@", answer="old")]
        with dspy.context(lm=model(server), adapter=ADAPTERS[adapter]):
            assert program(question="new").answer == echo("answer", "new")

    def test_react_calls_the_first_tool_and_finishes(self, server: OpenAIServer, adapter: str) -> None:
        calls = []

        def search(query: str, limit: int, exact: bool = False) -> str:
            """Search
            everywhere."""
            calls.append((query, limit, exact))
            return "found"

        with dspy.context(lm=model(server), adapter=ADAPTERS[adapter]):
            program = dspy.ReAct("question -> answer, count: int", tools=[search, max])
            prediction = program(question="Where?")
        assert calls == [(echo("query", "Where?"), 42, True)]
        assert [prediction.trajectory[f"tool_name_{step}"] for step in range(2)] == ["search", "finish"]
        assert prediction.trajectory["observation_0"] == "found"
        assert (prediction.answer, prediction.count) == (echo("answer", "Where?"), 42)
        assert len(server.requests) == 3

    def test_answer_and_words(self, server: OpenAIServer, adapter: str) -> None:
        assert ask(server, "@@answer=Paris & <Rome>@@", adapter).answer == "Paris & <Rome>"
        assert len(ask(server, "@@words=300@@", adapter).answer.split()) == 300

    def test_no_adapter_parses_garbage(self, server: OpenAIServer, adapter: str) -> None:
        with pytest.raises(dspy.utils.exceptions.AdapterParseError):
            ask(server, "@@garbage=1@@", adapter)

    def test_a_stream_arrives_through_the_client(self, server: OpenAIServer, adapter: str) -> None:
        sink = Sink()
        with dspy.context(lm=model(server), adapter=ADAPTERS[adapter], send_stream=sink):
            program = dspy.Predict("question -> answer")
            prediction = asyncio.run(program.acall(question="@@words=50@@ @@chunk=4@@ @@reasoning_content=Hm.@@"))
        assert server.requests[0].stream
        assert len(prediction.answer.split()) == 50
        assert prediction.answer in "".join(sink.content)
        assert "".join(sink.reasoning) == "Hm."


class Sink:
    """Takes the chunks of a stream."""

    def __init__(self) -> None:
        self.content: list[str] = []
        self.reasoning: list[str] = []

    async def send(self, chunk: Any) -> None:
        delta = chunk.choices[0].delta
        self.content.append(delta.content or "")
        self.reasoning.append(getattr(delta, "reasoning_content", None) or "")


class TestFormats:
    @pytest.mark.parametrize("adapter", ["chat", "json"])
    def test_bounds_enums_and_recursion_of_a_model(self, server: OpenAIServer, adapter: str) -> None:
        class Hire(dspy.Signature):
            question: str = dspy.InputField()
            employee: Employee = dspy.OutputField()

        with dspy.context(lm=model(server), adapter=ADAPTERS[adapter]):
            employee = dspy.Predict(Hire)(question="Who?").employee
        assert (employee.age, employee.colour) == (50, Colour.RED)
        assert employee.name == echo("employee.name", "Who?")

    def test_json_mode_where_a_schema_is_not_possible(self, server: OpenAIServer) -> None:
        with dspy.context(lm=model(server), adapter=ADAPTERS["json"]):
            prediction = dspy.Predict("question -> answer, table: dict[str, int]")(question="Open?")
        assert server.requests[0].response_format == {"type": "json_object"}
        assert (prediction.answer, prediction.table) == (echo("answer", "Open?"), {"1": 42})

    def test_a_schema_where_it_is(self, server: OpenAIServer) -> None:
        assert ask(server, "Closed?", "json").answer == echo("answer", "Closed?")
        assert (server.requests[0].response_format or {})["type"] == "json_schema"

    def test_the_fallback_from_chat_to_json(self, server: OpenAIServer) -> None:
        with dspy.context(lm=model(server), adapter=dspy.ChatAdapter()):
            asked = "@@fail_times=1@@ @@garbage=1@@ @@id=fallback@@"
            prediction = dspy.Predict("question -> answer")(question=asked)
        assert prediction.answer == echo("answer", asked)
        assert len(server.requests) == 2

    def test_history_keeps_the_last_question(self, server: OpenAIServer) -> None:
        class Chat(dspy.Signature):
            question: str = dspy.InputField()
            history: dspy.History = dspy.InputField()
            answer: str = dspy.OutputField()

        history = dspy.History(messages=[{"question": "@@status=500@@", "answer": "earlier"}])
        with dspy.context(lm=model(server), adapter=ADAPTERS["chat"]):
            assert dspy.Predict(Chat)(question="now", history=history).answer == echo("answer", "now")

    def test_several_completions(self, server: OpenAIServer) -> None:
        with dspy.context(lm=model(server), adapter=ADAPTERS["chat"]):
            prediction = dspy.Predict("question -> answer")(question="x", config={"n": 2})
        assert len(prediction.completions.answer) == 2


class TestUsage:
    def test_words_are_counted_and_cached_tokens_reported(self, server: OpenAIServer) -> None:
        lm = model(server)
        with dspy.context(lm=lm, adapter=ADAPTERS["chat"]):
            dspy.Predict("question -> answer")(question="@@answer=Yes@@ @@cached=10@@ @@finish=tool_calls@@")
        usage = lm.history[-1]["usage"]
        words = sum(len(message["content"].split()) for message in lm.history[-1]["messages"])
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (words, 11)
        assert usage["prompt_tokens_details"]["cached_tokens"] == 10
        assert lm.history[-1]["response_model"] == "gpt-4o-mini-2026-01-01"


class TestFailures:
    @pytest.mark.parametrize(
        ("directive", "error"),
        [
            ("status=400", dspy.LMInvalidRequestError),
            ("status=401", dspy.LMAuthError),
            ("status=402", dspy.LMBillingError),
            ("status=403", dspy.LMAuthError),
            ("status=404", dspy.LMUnsupportedModelError),
            ("status=408", dspy.LMTimeoutError),
            ("status=429", dspy.LMRateLimitError),
            ("status=500", dspy.LMServerError),
            ("status=503", dspy.LMServerError),
            ("error=context_length", dspy.ContextWindowExceededError),
        ],
    )
    def test_an_error_answer(self, server: OpenAIServer, directive: str, error: type[Exception]) -> None:
        with pytest.raises(error, match=SECRET) as caught:
            ask(server, f"@@{directive}@@ @@retry_after=7@@")
        assert type(caught.value) is error
        assert caught.value.retry_after == 7

    @pytest.mark.parametrize(
        ("directive", "error"),
        [
            ("reset=1", dspy.LMTransportError),
            ("hang=1", dspy.LMTransportError),
            ("invalid_json=1", dspy.LMProviderError),
        ],
    )
    def test_a_failure_below_http(self, server: OpenAIServer, directive: str, error: type[Exception]) -> None:
        with pytest.raises(error):
            ask(server, f"@@{directive}@@", timeout=0.3)

    @pytest.mark.parametrize("directive", ["cut=5", "stall=5"])
    def test_a_stream_that_breaks_off(self, server: OpenAIServer, directive: str) -> None:
        sink = Sink()
        with (
            dspy.context(lm=model(server, timeout=0.3), adapter=ADAPTERS["chat"], send_stream=sink),
            pytest.raises(dspy.LMTransportError),
        ):
            asyncio.run(dspy.Predict("question -> answer").acall(question=f"@@{directive}@@"))
        assert len(sink.content) == 5

    def test_a_retry_succeeds_after_the_failures(self, server: OpenAIServer) -> None:
        asked = "@@fail_times=1@@ @@status=503@@ @@retry_after=0@@ @@id=retry@@"
        assert ask(server, asked, num_retries=1).answer == echo("answer", asked)
        assert len(server.requests) == 2
