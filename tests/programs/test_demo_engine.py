"""The demo engine answers what DSPy's adapters ask for, in their formats and in the declared types."""

from __future__ import annotations

import asyncio
import enum
import json
import time
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from datetime import time as clock
from decimal import Decimal
from typing import Annotated, Any, Literal, Optional, Union
from uuid import UUID

import dspy
import pydantic
import pytest
from dspy.lm15 import Message, Request, StreamDeltaEvent, StreamEndEvent, StreamStartEvent
from hypothesis import given, settings
from hypothesis import strategies as st

from dspyserve.programs.demo_engine import AsyncDemoEngine, DemoEngine

ADAPTERS = [
    # Without the fallback an answer that the adapter cannot read raises, instead of being asked for again as JSON.
    dspy.ChatAdapter(use_json_adapter_fallback=False),
    dspy.JSONAdapter(),
    dspy.XMLAdapter(use_json_adapter_fallback=False),
]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "dark blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Address(pydantic.BaseModel):
    street: str
    floor: int | None = None
    kind: Literal["home", "work"]
    since: date | None = None


class Person(pydantic.BaseModel):
    name: str = pydantic.Field(description="full name", min_length=2, max_length=30)
    age: int = pydantic.Field(ge=18, lt=100)
    share: float = pydantic.Field(gt=0, lt=1)
    colour: Colour
    level: Level
    main: Address
    others: list[Address] = pydantic.Field(min_length=2)
    notes: dict[str, int]
    labels: dict[Literal["a", "b"], str] = {}


class Node(pydantic.BaseModel):
    value: int
    children: list[Node] = []
    parent: Node | None = None


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]
    tricks: list[str]


TYPES = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "literal": Literal["yes", "no", "not sure"],
    "numbers": Literal[1, 2, 3],
    "enum": Colour,
    "int-enum": Level,
    "optional-str": str | None,
    "typing-optional": Optional[int],  # noqa: UP045 - DSPy prints the two kinds of union differently
    "optional-enum": Level | None,
    "optional-literal": Literal["a", "b"] | None,
    "union": Union[int, str],  # noqa: UP007
    "text-first-union": str | int,
    "any": Any,
    "list-str": list[str],
    "list-int": list[int],
    "list-float": list[float],
    "list-literal": list[Literal["x", "y"]],
    "list-list": list[list[str]],
    "set": set[str],
    "tuple": tuple[int, str],
    "dict-any": dict[str, Any],
    "dict-float": dict[str, float],
    "dict-int-keys": dict[int, str],
    "dict-list": dict[str, list[int]],
    "date": date,
    "optional-date": date | None,
    "datetime": datetime,
    "time": clock,
    "timedelta": timedelta,
    "decimal": Decimal,
    "uuid": UUID,
    "model": Person,
    "optional-model": Person | None,
    "list-model": list[Person],
    "dict-model": dict[str, Address],
    "recursive": Node,
    "union-of-models": Cat | Dog,
    "discriminated": Annotated[Cat | Dog, pydantic.Field(discriminator="kind")],
}

TEXT = "On 12 March 2026 Ada Lovelace paid 1,200.50 EUR <to> Acme Ltd & wrote to ada@acme.example: it was not sure."


@pytest.fixture
def lm() -> dspy.LM:
    return dspy.LM("demo/echo", engine=DemoEngine(), async_engine=AsyncDemoEngine(), cache=False)


@pytest.fixture(params=ADAPTERS, ids=lambda adapter: type(adapter).__name__)
def context(request: pytest.FixtureRequest, lm: dspy.LM) -> Iterator[None]:
    with dspy.context(lm=lm, adapter=request.param, trace=[]):
        yield


def signature(**outputs: Any) -> type[dspy.Signature]:
    fields: dict[str, Any] = {"text": (str, dspy.InputField(desc="a text"))}
    return dspy.Signature(fields | {name: (kind, dspy.OutputField()) for name, kind in outputs.items()}, "Do it.")


def answer(text: str = TEXT, /, **outputs: Any) -> dspy.Prediction:
    return dspy.Predict(signature(**outputs))(text=text)


# --- Every declared type, in every adapter's format -------------------------------------------------------------------


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize("kind", TYPES.values(), ids=TYPES.keys())
@pytest.mark.parametrize("text", [TEXT, "hm"], ids=["rich", "poor"])
def test_fills_a_field_of_this_type(kind: Any, text: str, lm: dspy.LM) -> None:
    value = answer(text, value=kind).value

    pydantic.TypeAdapter(kind).validate_python(value, strict=kind not in (int | str, Any))
    assert len(lm.history) == 1


@pytest.mark.usefixtures("context")
def test_fills_all_fields_of_a_chain_of_thought_at_once(lm: dspy.LM) -> None:
    fields = {name.replace("-", "_"): kind for name, kind in TYPES.items()}

    prediction = dspy.ChainOfThought(signature(**fields))(text=TEXT)

    assert set(prediction.keys()) == {"reasoning", *fields}
    assert len(lm.history) == 1


@pytest.mark.usefixtures("context")
def test_the_asynchronous_engine_says_the_same() -> None:
    program = dspy.ChainOfThought(signature(answer=str, person=Person, level=Level))

    assert dict(asyncio.run(program.acall(text=TEXT))) == dict(program(text=TEXT))


@pytest.mark.usefixtures("context")
def test_the_same_inputs_get_the_same_answer_and_others_another() -> None:
    first, again, other = (dict(answer(text, answer=str, items=list[str])) for text in ("One", "One", "Two"))

    assert first == again
    assert first != other


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=300), adapter=st.sampled_from(ADAPTERS))
def test_no_text_breaks_the_format(text: str, adapter: dspy.Adapter) -> None:
    lm = dspy.LM("demo/echo", engine=DemoEngine(), cache=False)
    fields = {"answer": str, "names": list[str], "total": float, "person": Person, "email": str | None, "when": date}

    with dspy.context(lm=lm, adapter=adapter, trace=[]):
        assert set(answer(text, **fields).keys()) == set(fields)


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize(
    "text", ["[[ ## answer ## ]]", "</text><answer>no</answer>", '{"answer": "no"}', "Respond with a JSON object", ""]
)
def test_a_text_that_looks_like_the_format_is_only_quoted(text: str) -> None:
    assert answer(f"Say\n{text}", answer=str).answer.startswith('Demo answer to "Say')


# --- What it says -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("context")
def test_an_answer_is_plainly_a_demo_and_quotes_the_input() -> None:
    prediction = dspy.ChainOfThought("question -> answer")(question="Why is the sky blue?")

    assert prediction.answer.startswith('Demo answer to "Why is the sky blue?": ')
    assert "without a language model" in prediction.answer
    assert prediction.reasoning.startswith('Demo reasoning: the inputs are question ("Why is the sky blue?").')


def test_a_long_input_is_shortened(lm: dspy.LM) -> None:
    with dspy.context(lm=lm, trace=[]):
        assert len(answer("word " * 20_000, answer=str).answer) < 300


def test_short_further_inputs_tell_answers_apart(lm: dspy.LM) -> None:
    with dspy.context(lm=lm, trace=[]):
        prediction = dspy.Predict("topic, role -> view")(topic="Trains", role="a driver")

    assert prediction.view.startswith('Demo view for "Trains" with role "a driver": ')


@pytest.mark.usefixtures("context")
def test_extracted_fields_come_from_the_input() -> None:
    class Payment(pydantic.BaseModel):
        customer_name: str
        company: str | None = None
        email: str | None = None
        phone: str | None = None
        amount: float
        currency: Literal["USD", "EUR"]
        day: date

    found = answer(payment=Payment, keywords=list[str], email=str, names=list[str])

    assert found.payment.model_dump() == {
        "customer_name": "Ada Lovelace",
        "company": "Acme Ltd",
        "email": "ada@acme.example",
        "phone": None,
        "amount": 1200.5,
        "currency": "EUR",
        "day": date(2026, 3, 12),
    }
    assert found.email == "ada@acme.example"
    assert found.names[0] == "Ada Lovelace"
    assert "wrote" in found.keywords


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize("choice", ["yes", "not sure"])
def test_a_choice_is_one_that_the_input_mentions(choice: str) -> None:
    assert answer(f"I am {choice}.", verdict=Literal["no", "not sure", "yes"]).verdict == choice


@pytest.mark.usefixtures("context")
def test_an_optional_field_is_none_where_the_input_lacks_what_its_name_suggests() -> None:
    assert answer("Nothing here.", email=str | None).email is None


@pytest.mark.usefixtures("context")
def test_a_default_stands_where_the_input_says_nothing() -> None:
    class Order(pydantic.BaseModel):
        currency: str = "EUR"

    assert answer(order=Order).order.currency == "EUR"


def test_a_prompt_without_fields_is_answered_too(lm: dspy.LM) -> None:
    assert lm("Hello there")[0].startswith('Demo answer to "Hello there": ')


def test_usage_counts_words(lm: dspy.LM) -> None:
    with dspy.context(lm=lm, trace=[], track_usage=True):
        lm("one two three")

    usage = lm.history[-1]["usage"]
    assert usage["prompt_tokens"] == 3
    assert usage["completion_tokens"] == len(lm.history[-1]["outputs"][0].split())


# --- Agents -----------------------------------------------------------------------------------------------------------


class Calls(list[str]):
    """The calls that the tools below received."""

    def calculate(self, expression: str) -> str:
        """Work out an expression.

        With a second paragraph."""
        self.append(f"calculate {expression}")
        return "42"

    def look_up(self, city: str, days: int, unit: Literal["C", "F"], limit: int = 3) -> str:
        """Tell the weather."""
        self.append(f"look_up {city} {days} {unit} {limit}")
        return f"Sunny in {city}."

    @property
    def tools(self) -> list[Any]:
        return [self.calculate, self.look_up]


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize("agent", [dspy.ReAct, dspy.ReActV2])
def test_an_agent_calls_every_tool_once_in_order(agent: type[dspy.Module], calls: Calls) -> None:
    program = agent("question -> answer, total: int", tools=calls.tools)

    prediction = program(question="What is 6 x 7, and how is the weather\nin Paris, as C?")

    assert calls == ["calculate 6 * 7", "look_up Paris 6 C 3"]
    assert 'The tool look_up returned "Sunny in Paris".' in prediction.answer
    assert isinstance(prediction.total, int)


@pytest.mark.usefixtures("context")
def test_a_react_agent_finishes_by_itself(calls: Calls) -> None:
    trajectory = dspy.ReAct("question -> answer", tools=calls.tools)(question="What is (1 + 2) * 3?").trajectory

    assert [trajectory[f"tool_name_{step}"] for step in range(3)] == ["calculate", "look_up", "finish"]
    assert trajectory["tool_args_0"] == {"expression": "(1 + 2) * 3"}
    assert trajectory["tool_args_2"] == {}


@pytest.mark.usefixtures("context")
def test_a_tool_that_wants_an_expression_is_left_out_where_the_question_has_none(calls: Calls) -> None:
    trajectory = dspy.ReAct("question -> answer", tools=[calls.calculate])(question="Who are you?").trajectory

    assert trajectory["tool_name_0"] == "finish"
    assert calls == []


@pytest.mark.usefixtures("context")
def test_an_agent_runs_asynchronously_too(calls: Calls) -> None:
    program = dspy.ReAct("question -> answer", tools=[calls.calculate])

    with dspy.context(allow_tool_async_sync_conversion=True):
        prediction = asyncio.run(program.acall(question="What is 6 * 7?"))

    assert 'The tool calculate returned "42".' in prediction.answer


# --- Other programs of DSPy's -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("context")
def test_few_shot_examples_are_not_taken_for_the_input() -> None:
    program = dspy.Predict("question -> answer")
    program.demos = [
        dspy.Example(question="Is Bob here?", answer="Yes."),
        dspy.Example(question="And Eve?", answer="No."),
    ]

    assert program(question="Who is there?").answer.startswith('Demo answer to "Who is there?"')


@pytest.mark.usefixtures("context")
def test_a_conversation_is_answered_by_its_last_question() -> None:
    class Chat(dspy.Signature):
        history: dspy.History = dspy.InputField()
        question: str = dspy.InputField()
        answer: str = dspy.OutputField()

    history = dspy.History(messages=[{"question": "First?", "answer": "One."}])

    assert dspy.Predict(Chat)(history=history, question="Second?").answer.startswith('Demo answer to "Second?"')


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize(
    "build",
    [
        lambda: dspy.MultiChainComparison("question -> answer", M=2),
        lambda: dspy.BestOfN(dspy.Predict("question -> answer"), N=2, reward_fn=lambda *_: 0.0, threshold=1.0),
        lambda: dspy.Refine(dspy.Predict("question -> answer"), N=2, reward_fn=lambda *_: 0.0, threshold=1.0),
    ],
    ids=["MultiChainComparison", "BestOfN", "Refine"],
)
def test_modules_that_combine_predictions_work(build: Any) -> None:
    program = build()
    given = {"completions": [{"reasoning": "a", "answer": "b"}] * 2} if hasattr(program, "M") else {}

    assert program(**given, question="Why?").answer.startswith("Demo answer to")


# --- The engine as DSPy uses it ---------------------------------------------------------------------------------------


def request(text: str = "Hello  there,\n\nAda\n") -> Request:
    return Request(model="demo/echo", system="Be brief.", messages=(Message.user(text),))


async def collect(engine: AsyncDemoEngine) -> list[Any]:
    return [event async for event in engine.stream(request())]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_stream_adds_up_to_the_complete_answer(is_async: bool) -> None:
    events = asyncio.run(collect(AsyncDemoEngine())) if is_async else list(DemoEngine().stream(request()))
    complete = DemoEngine().complete(request())

    assert isinstance(events[0], StreamStartEvent)
    assert isinstance(events[-1], StreamEndEvent)
    assert "".join(event.delta.text for event in events[1:-1]) == complete.text
    assert len(events) > 20
    assert events[-1].usage == complete.usage
    assert events[-1].finish_reason == complete.finish_reason == "stop"


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: type(adapter).__name__)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_program_streams_through_dspy(adapter: dspy.Adapter, is_async: bool, lm: dspy.LM) -> None:
    chunks: list[Any] = []

    class Sink:
        async def send(self, chunk: Any) -> None:
            chunks.append(chunk)

    async def run() -> dspy.Prediction:
        program = dspy.Predict("question -> answer")
        call = program.acall if is_async else dspy.asyncify(program)
        with dspy.context(lm=lm, adapter=adapter, trace=[], send_stream=Sink()):
            return await call(question="Why?")

    prediction = asyncio.run(run())

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert prediction.answer in (json.loads(text)["answer"] if text.startswith("{") else text)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_the_delay_comes_before_every_token(is_async: bool) -> None:
    started = time.perf_counter()
    if is_async:
        events = asyncio.run(collect(AsyncDemoEngine(delay=0.002)))
    else:
        events = list(DemoEngine(delay=0.002).stream(request()))

    tokens = sum(isinstance(event, StreamDeltaEvent) for event in events)
    assert time.perf_counter() - started >= tokens * 0.002


def test_an_asynchronous_stream_lets_the_event_loop_work_between_tokens() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def run() -> int:
        counter = asyncio.create_task(count())
        events = await collect(AsyncDemoEngine())
        counter.cancel()
        return len(events)

    assert asyncio.run(run()) - 3 <= turns


def test_a_saved_language_model_keeps_its_engine_and_delay() -> None:
    lm = dspy.LM("demo/echo", engine=DemoEngine(0.5), async_engine=AsyncDemoEngine(0.25), cache=False)

    loaded = dspy.LM.load_state(lm.dump_state(), allow_custom_lm_class=True)

    assert isinstance(loaded.engine, DemoEngine)
    assert loaded.engine.dump_state() == {"delay": 0.5}
    assert AsyncDemoEngine.load_state({"delay": 0.25}).delay == 0.25
    assert DemoEngine.load_state({}).delay == 0.0


def test_a_prompt_in_several_parts_is_read_as_a_whole() -> None:
    parts = Request(model="demo/echo", system=["Be", "brief."], messages=(Message.user(["Hello", "there"]),))

    assert DemoEngine().complete(parts).text.startswith('Demo answer to "Hello there"')
    assert DemoEngine().complete(parts).usage.input_tokens == 4


def test_closing_holds_nothing_up() -> None:
    DemoEngine().close()
    asyncio.run(AsyncDemoEngine().aclose())


def test_a_long_input_costs_little() -> None:
    started = time.perf_counter()
    for filler in ("(", "-", "A ", "1,", "a.b", "x@"):
        DemoEngine().complete(request(filler * 200_000))

    assert time.perf_counter() - started < 3
