"""Schemas as tables of fields."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import dspy
import pydantic
import pytest

from dspyserve.admin.programs import contract
from dspyserve.programs.schema import Field, ProgramSchema


class Contact(pydantic.BaseModel):
    """Somebody."""

    name: str = pydantic.Field(description="in full", min_length=2)
    contacts: list[Contact] = []


def table(annotation: Any, **options: Any) -> list[contract.FieldRow]:
    """The rows of a program of one input field."""
    return contract.rows(ProgramSchema([Field("field", annotation, **options)], []).input_schema)


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (str, "string"),
        (int | None, "integer or null"),
        (list[float], "list of number"),
        (set[str], "set of string"),
        (tuple[int, str], "[integer, string]"),
        (Literal["a", 3], 'one of "a", 3'),
        (Contact, "Contact"),
        (list[Contact], "list of Contact"),
        (dict[str, int], "object"),
        (dspy.History, "History"),
        (Any, "any"),
    ],
)
def test_types_have_names(annotation: Any, text: str) -> None:
    assert table(annotation)[0].type == text


def test_words_are_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    words = {"or": "oder", "one of %s": "eines von %s", "list of %s": "Liste von %s"}
    monkeypatch.setattr(contract, "gettext", lambda text: words[text])
    assert table(list[Literal["a"]] | None)[0].type == 'Liste von eines von "a" oder null'


def test_descriptions_defaults_and_constraints() -> None:
    row = table(Annotated[int, pydantic.Field(ge=1, lt=9)], description="how many", default=3)[0]
    assert (row.description, row.is_required) == ("how many", False)
    assert set(row.constraints) == {"≥ 1", "< 9", "default 3"}


def test_members_of_objects_follow_them_and_end() -> None:
    rows = table(list[Contact])
    assert [(row.name, row.depth) for row in rows[:3]] == [("field", 0), ("name", 1), ("contacts", 1)]
    assert rows[1].constraints == ("length ≥ 2",)
    assert max(row.depth for row in rows) == contract.MAX_DEPTH - 1


def test_fields_are_those_at_the_top(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = ProgramSchema([Field("a", Contact), Field("b", str)], []).input_schema
    monkeypatch.setattr(contract, "MAX_ROWS", 1)
    assert [row.name for row in contract.fields(schema)] == ["a", "b"]
    assert len(contract.rows(schema)) == 1


def test_what_refers_to_itself_alone_is_nothing() -> None:
    schema = {"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"$ref": "#/$defs/A"}}}
    assert [row.type for row in contract.rows(schema)] == ["any"]
