"""The form of a program's inputs: a widget for every kind of field, and what it says as JSON."""

from __future__ import annotations

import datetime
import enum
from typing import Any, Literal

import dspy
import pydantic
import pytest

from dspyserve.admin.programs.input_form import InputField, InputForm
from dspyserve.errors import Fault
from dspyserve.programs.schema import Field, ProgramSchema


class Colour(enum.Enum):
    RED = "red"
    THREE = 3


class Person(pydantic.BaseModel):
    name: str
    age: int = 0


TYPES: dict[str, Any] = {
    "text": str,
    "day": datetime.date,
    "count": int,
    "ratio": float,
    "flag": bool,
    "maybe": bool | None,
    "choice": Literal["a", "b"],
    "only": Literal["x"],
    "colour": Colour,
    "perhaps": Colour | None,
    "note": str | None,
    "number": int | None,
    "words": list[str],
    "person": Person,
    "either": int | str,
    "anything": Any,
    "history": dspy.History,
    "image": dspy.Image,
}
KINDS = {
    "text": "text",
    "day": "text",
    "count": "number",
    "ratio": "number",
    "flag": "boolean",
    "maybe": "choice",
    "choice": "choice",
    "only": "choice",
    "colour": "choice",
    "perhaps": "choice",
    "note": "text",
    "number": "number",
    "words": "json",
    "person": "json",
    "either": "json",
    "anything": "json",
    "history": "json",
    "image": "json",
}


def schema_of(name: str, annotation: Any, **options: Any) -> ProgramSchema:
    """The schema of a program of one input field."""
    return ProgramSchema([Field(name, annotation, **options)], [])


def field_of(annotation: Any, **options: Any) -> InputField:
    """The widget of a field of this type."""
    return InputForm(schema_of("field", annotation, **options).input_schema).fields[0]


def read(annotation: Any, text: str, **options: Any) -> dict[str, Any]:
    """The inputs that a form with `text` in its only widget sends."""
    return InputForm(schema_of("field", annotation, **options).input_schema).read({"input-0": text})


@pytest.mark.parametrize("name", TYPES)
def test_every_type_has_its_widget(name: str) -> None:
    assert field_of(TYPES[name]).kind == KINDS[name]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("text", "two\nlines"),
        ("text", ""),
        ("day", "2026-01-31"),
        ("count", 7),
        ("ratio", 0.25),
        ("flag", True),
        ("flag", False),
        ("maybe", False),
        ("maybe", None),
        ("choice", "b"),
        ("only", "x"),
        ("colour", 3),
        ("perhaps", "red"),
        ("note", "x"),
        ("number", 0),
        ("words", ["a", "ü"]),
        ("person", {"name": "Ann", "age": 3}),
        ("either", "3"),
        ("either", 3),
        ("anything", {"a": [None]}),
        ("history", {"messages": [{"question": "q", "answer": "a"}]}),
        ("image", "https://example.com/a.png"),
        ("image", {"url": "https://example.com/a.png"}),
    ],
)
def test_what_is_filled_in_is_sent_the_same_and_is_valid(name: str, value: Any) -> None:
    schema = schema_of("field", TYPES[name], **({"default": None} if value is None else {}))
    form = InputForm(schema.input_schema)
    form.fill({"field": value})
    (item,) = form.fields
    inputs = form.read({item.id: item.value.replace("\n", "\r\n")})
    assert inputs == ({} if value is None else {"field": value})
    schema.validate(inputs, from_json=True)


@pytest.mark.parametrize(
    ("annotation", "text", "options", "inputs"),
    [
        (str, "", {}, {"field": ""}),
        (str | None, "  ", {"default": None}, {}),
        (str, "", {"default": "given"}, {"field": ""}),
        (int, "", {}, {}),
        (int, "x", {}, {"field": "x"}),
        (bool, "", {}, {"field": False}),
        (list[str], "", {}, {}),
        (Literal["a", "b"], "", {}, {}),
        (dspy.Image, "not json", {}, {"field": "not json"}),
    ],
)
def test_blanks_and_what_is_no_value(annotation: Any, text: str, options: Any, inputs: dict[str, Any]) -> None:
    assert read(annotation, text, **options) == inputs


def test_what_is_no_json_is_an_error_of_its_field() -> None:
    form = InputForm(schema_of("field", list[str]).input_schema)
    assert form.read({"input-0": "[1,"}) == {}
    assert form.fields[0].errors == ["This is not JSON."]
    assert form.fields[0].value == "[1,"
    assert not form.is_valid


def test_defaults_are_shown() -> None:
    shown = [(int, 3, "3"), (bool, True, "true"), (str, "x", "x"), (Literal["a", "b"], "b", '"b"')]
    assert [field_of(annotation, default=value).value for annotation, value, _ in shown] == [text for *_, text in shown]


def test_only_what_may_stay_open_has_a_blank_option() -> None:
    assert [value for value, _ in field_of(Literal["x"]).options] == ['"x"']
    assert [value for value, _ in field_of(bool | None).options] == ["", "true", "false"]
    assert [label for _, label in field_of(Colour).options] == ["–", "red", "3"]


def test_numbers_step_by_their_type() -> None:
    assert [field_of(annotation).step for annotation in (int, float, float | None)] == ["1", "any", "any"]


def test_faults_stand_beside_their_fields() -> None:
    schema = ProgramSchema([Field("a/b", str), Field("person", Person)], [])
    form = InputForm(schema.input_schema)
    form.tell(
        [
            Fault("/inputs/a~1b", "first"),
            Fault("/inputs/person/age", "second"),
            Fault("/inputs/person", "third"),
            Fault("/options/version", "fourth"),
        ]
    )
    assert [item.errors for item in form.fields] == [["first"], ["age: second", "third"]]
    assert form.errors == ["/options/version: fourth"]
