"""From signatures to JSON Schema and validated values, and from predictions back to JSON."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
from typing import Any, Literal

import dspy
import pydantic
import pytest

from dspyserve.errors import InvalidInput, RegistrationError
from dspyserve.programs.execution_mode import execution_mode
from dspyserve.programs.schema import ProgramSchema, program_schema
from dspyserve.programs.values import outputs_of, to_json


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Person(pydantic.BaseModel):
    name: str
    age: int | None = None


class Rich(dspy.Signature):
    """A signature of many types."""

    text: str = dspy.InputField(desc="What to read.")
    count: int = dspy.InputField()
    share: float = dspy.InputField()
    when: datetime.date = dspy.InputField()
    colour: Colour = dspy.InputField()
    level: Literal["low", "high"] = dspy.InputField()
    people: list[Person] = dspy.InputField()
    note: str | None = dspy.InputField()
    limit: int = dspy.InputField(default=5)
    answer: str = dspy.OutputField()
    found: list[Person] = dspy.OutputField()


GOOD: dict[str, Any] = {
    "text": "t",
    "count": 3,
    "share": 3,
    "when": "2026-01-31",
    "colour": "red",
    "level": "low",
    "people": [{"name": "Ann"}],
}


@pytest.fixture
def schema() -> ProgramSchema:
    return program_schema(dspy.Predict(Rich))


class TestInputs:
    def test_are_typed_values(self, schema: ProgramSchema) -> None:
        values = schema.validate(json.loads(json.dumps(GOOD)), from_json=True)
        assert values["when"] == datetime.date(2026, 1, 31)
        assert values["colour"] is Colour.RED
        assert values["people"] == [Person(name="Ann")]
        assert (values["note"], values["limit"]) == (None, 5)
        assert isinstance(values["share"], float)

    @pytest.mark.parametrize(
        ("name", "value", "pointer"),
        [
            ("count", "3", "/inputs/count"),
            ("count", 3.5, "/inputs/count"),
            ("count", True, "/inputs/count"),
            ("share", "3", "/inputs/share"),
            ("when", "yesterday", "/inputs/when"),
            ("colour", "green", "/inputs/colour"),
            ("level", "middle", "/inputs/level"),
            ("people", [{"name": 3}], "/inputs/people/0/name"),
            ("text", None, "/inputs/text"),
        ],
    )
    def test_of_the_wrong_type_are_told(self, schema: ProgramSchema, name: str, value: Any, pointer: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            schema.validate({**GOOD, name: value}, from_json=True)
        assert [fault.pointer for fault in caught.value.faults] == [pointer]

    def test_from_python_are_taken_as_they_are(self, schema: ProgramSchema) -> None:
        given = {**GOOD, "when": datetime.date(2026, 1, 31), "colour": Colour.BLUE, "people": [Person(name="Ann")]}
        assert schema.validate(given, from_json=False)["colour"] is Colour.BLUE

    def test_schema_says_what_is_taken(self, schema: ProgramSchema) -> None:
        published = schema.input_schema
        assert set(published["required"]) == {"text", "count", "share", "when", "colour", "level", "people"}
        assert published["properties"]["text"]["description"] == "What to read."
        assert published["properties"]["level"]["enum"] == ["low", "high"]
        assert published["properties"]["limit"]["default"] == 5
        assert published["additionalProperties"] is False
        assert set(schema.output_schema["properties"]) == {"answer", "found"}


class Custom(dspy.Module):
    def forward(self, topic: str, limit: int = 3) -> Any:
        return None


class Loose(dspy.Module):
    def forward(self, **kwargs: Any) -> Any:
        return None


class TestPrograms:
    def test_fields_may_be_named_as_methods_of_pydantic(self) -> None:
        schema = program_schema(Custom(), inputs={"schema": str, "copy": int, "model_dump": str | None})
        given = {"schema": "a", "copy": 1}
        assert schema.validate(given, from_json=True) == {**given, "model_dump": None}

    def test_the_annotations_of_forward_tell_the_inputs(self) -> None:
        schema = program_schema(Custom(), outputs={"answer": str})
        assert schema.input_schema["required"] == ["topic"]
        assert schema.output_schema["properties"]["answer"]["type"] == "string"

    def test_what_code_cannot_tell_is_declared(self) -> None:
        with pytest.raises(RegistrationError, match="inputs"):
            program_schema(Loose())
        assert program_schema(Loose(), inputs={"a": int}).input_schema["required"] == ["a"]

    def test_reasoning_is_an_output_of_a_chain_of_thought(self) -> None:
        schema = program_schema(dspy.ChainOfThought("question -> answer"))
        assert list(schema.output_schema["properties"]) == ["reasoning", "answer"]

    def test_wrapped_programs_are_looked_into(self) -> None:
        best = dspy.BestOfN(dspy.Predict("question -> answer"), N=2, reward_fn=lambda *_: 1.0, threshold=1.0)
        assert program_schema(best).input_schema["required"] == ["question"]

    @pytest.mark.parametrize("name", ["config", "lm", "demos", "signature", "prediction"])
    def test_privileged_names_are_refused(self, name: str) -> None:
        with pytest.raises(RegistrationError, match=name):
            program_schema(Custom(), inputs={name: str})


class SyncOverride(dspy.ChainOfThought):
    def forward(self, **kwargs: Any) -> Any:
        return super().forward(**kwargs)


class Coroutine(dspy.Module):
    async def forward(self, question: str) -> Any:
        return question


async def atool(x: str) -> str:
    """Does nothing, asynchronously."""
    return x


def tool(x: str) -> str:
    """Does nothing."""
    return x


class TestExecutionMode:
    @pytest.mark.parametrize(
        ("program", "mode"),
        [
            (dspy.Predict("a -> b"), "async"),
            (dspy.ChainOfThought("a -> b"), "async"),
            (dspy.ReAct("a -> b", tools=[atool]), "async"),
            (dspy.ReAct("a -> b", tools=[tool]), "thread"),
            (dspy.ReAct("a -> b", tools=[atool, tool]), "thread"),
            (dspy.BestOfN(dspy.Predict("a -> b"), N=2, reward_fn=lambda *_: 1.0, threshold=1.0), "thread"),
            (SyncOverride("a -> b"), "thread"),
            (Custom(), "thread"),
        ],
        ids=["predict", "cot", "react-async", "react-sync", "react-mixed", "best-of-n", "sync-override", "custom"],
    )
    def test_by_the_way_a_program_is_written(self, program: dspy.Module, mode: str) -> None:
        assert execution_mode(program) == mode

    def test_a_coroutine_named_forward_is_refused(self) -> None:
        with pytest.raises(RegistrationError, match="aforward"):
            execution_mode(Coroutine())

    def test_async_cannot_be_forced_on_a_synchronous_program(self) -> None:
        with pytest.raises(RegistrationError, match="event loop"):
            execution_mode(Custom(), "async")
        assert execution_mode(dspy.Predict("a -> b"), "thread") == "thread"


@dataclasses.dataclass
class Node:
    parent: Node | None = None
    children: list[Node] = dataclasses.field(default_factory=list)


class TestOutputs:
    def test_are_json(self) -> None:
        prediction = dspy.Prediction(
            colour=Colour.RED,
            when=datetime.datetime(2026, 1, 31, tzinfo=datetime.UTC),
            tags={"b", "a"},
            raw=b"\x00",
            person=Person(name="Ann"),
            nan=float("nan"),
            image=dspy.Image(url="https://example.com/a.png"),
            nested={"deep": [Person(name="Bob", age=3)]},
            thing=object,
        )
        outputs = outputs_of(prediction)
        assert json.loads(json.dumps(outputs, allow_nan=False)) == outputs
        assert outputs["tags"] == ["a", "b"]
        assert outputs["person"] == {"name": "Ann", "age": None}
        assert outputs["image"] == {"url": "https://example.com/a.png"}
        assert "CUSTOM-TYPE" not in json.dumps(outputs)

    def test_a_bare_value_is_named(self) -> None:
        assert outputs_of("x") == {"output": "x"}

    def test_a_cycle_ends(self) -> None:
        cycle: list[Any] = []
        cycle.append(cycle)
        assert "<list>" in json.dumps(to_json(cycle))

    def test_a_tree_whose_nodes_know_their_parents_ends_soon(self) -> None:
        root = Node()
        root.children = [Node(root) for _ in range(30)]
        assert to_json([root, root]) == [{"parent": None, "children": [{"parent": "<Node>", "children": []}] * 30}] * 2
