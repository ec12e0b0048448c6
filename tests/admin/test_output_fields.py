"""Forms made of the schema of outputs: what a field shows of a value, and what comes back."""

from __future__ import annotations

import enum
from typing import Any, Literal

import dspy
import pydantic
import pytest
from django.core.exceptions import ValidationError

from dspyserve.admin.traces.output_fields import (
    BLANK,
    ChoiceField,
    JSONField,
    NumberField,
    OutputField,
    TextField,
    output_fields,
)
from dspyserve.programs.schema import program_schema


class Colour(enum.Enum):
    RED = "red"
    TWO = 2


class Person(pydantic.BaseModel):
    """Somebody."""

    name: str


TYPES: dict[str, Any] = {
    "text": str,
    "maybe": str | None,
    "count": int,
    "ratio": float,
    "flag": bool,
    "maybe_flag": bool | None,
    "mood": Literal["good", "bad"],
    "colour": Colour,
    "odd": Literal[1, "x", None],
    "person": Person,
    "names": list[str],
    "anything": Any,
    "code": dspy.Code,
}


@pytest.fixture(scope="module")
def fields() -> dict[str, OutputField]:
    outputs = {name: (kind, dspy.OutputField(desc=f"the {name}")) for name, kind in TYPES.items()}
    signature = dspy.Signature({"question": (str, dspy.InputField()), **outputs})
    return output_fields(program_schema(dspy.Predict(signature)).output_schema)


def test_every_type_has_its_kind_of_field(fields: dict[str, OutputField]) -> None:
    kinds = {name: type(field) for name, field in fields.items()}
    assert kinds == {
        "text": TextField,
        "maybe": TextField,
        "count": NumberField,
        "ratio": NumberField,
        "flag": ChoiceField,
        "maybe_flag": ChoiceField,
        "mood": ChoiceField,
        "colour": ChoiceField,
        "odd": ChoiceField,
        "person": JSONField,
        "names": JSONField,
        "anything": JSONField,
        "code": TextField,
    }
    assert (fields["mood"].label, fields["mood"].help_text) == ("mood", "the mood")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("text", "  two\nlines  "),
        ("text", ""),
        ("count", -3),
        ("count", 2**70),
        ("ratio", 0.1),
        ("ratio", 3),
        ("flag", False),
        ("maybe_flag", None),
        ("mood", "bad"),
        ("colour", 2),
        ("odd", 1),
        ("odd", None),
        ("person", {"name": "Änn </textarea>"}),
        ("names", []),
        ("anything", {"a": [1, None, True, "x"]}),
    ],
)
def test_a_value_comes_back_as_it_was_shown(fields: dict[str, OutputField], name: str, value: Any) -> None:
    found = fields[name].clean(fields[name].text_of(value))
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("name", [name for name in TYPES if name not in ("text", "maybe", "code")])
def test_nothing_is_not_null(fields: dict[str, OutputField], name: str) -> None:
    assert fields[name].clean("") is BLANK


def test_null_can_be_chosen_and_written(fields: dict[str, OutputField]) -> None:
    assert fields["anything"].clean("null") is None
    assert fields["maybe_flag"].clean("null") is None
    with pytest.raises(ValidationError):
        fields["flag"].clean("null")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("count", "1.5"),
        ("count", "many"),
        ("ratio", "nan"),
        ("ratio", "1e999"),
        ("mood", "good"),  # not its JSON
        ("mood", '"bored"'),
        ("person", "{"),
        ("anything", "NaN"),
        ("anything", "[" * 100_000),
        ("text", "a\x00b"),
    ],
)
def test_what_fits_no_value_is_refused(fields: dict[str, OutputField], name: str, text: str) -> None:
    with pytest.raises(ValidationError):
        fields[name].clean(text)


def test_ends_of_lines_are_those_of_values_not_of_browsers(fields: dict[str, OutputField]) -> None:
    field = fields["text"]
    assert field.clean("a\r\nb\rc") == "a\nb\nc"
    assert not field.has_changed("a\nb", "a\r\nb")


def test_a_choice_that_is_none_shows_as_none(fields: dict[str, OutputField]) -> None:
    assert fields["mood"].text_of("bored") == ""


def test_a_program_without_declared_outputs_has_no_fields() -> None:
    assert output_fields({"type": "object", "additionalProperties": True}) == {}
