"""Whatever a program returns of the types that it declares, its JSON validates against its published schema."""

from __future__ import annotations

import datetime
import decimal
import enum
import json
import os
import uuid
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

import dspy
import jsonschema
import pydantic
from hypothesis import given, settings
from hypothesis import strategies as st

from dspyserve.programs.schema import program_schema
from dspyserve.programs.values import outputs_of

EXAMPLES = int(os.environ.get("DSPYSERVE_TESTS_EXAMPLES", "300"))


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclass
class Point:
    x: float
    y: int
    tag: Colour = Colour.RED


class Person(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(populate_by_name=True)

    name: str = pydantic.Field(alias="fullName")
    born: datetime.date | None = None
    colours: set[Colour] = set()
    secret: str = pydantic.Field(default="", exclude=True)

    @pydantic.computed_field
    @property
    def initial(self) -> str:
        """The first letter."""
        return self.name[:1]


class Team(pydantic.BaseModel):
    people: list[Person]
    photo: dspy.Image | None = None
    by_name: dict[str, Person] = {}
    stamp: datetime.datetime | None = None


class Page(pydantic.BaseModel):
    """Holds what only the run time knows."""

    body: Any = None
    code: dspy.Code | None = None


FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
PEOPLE = st.builds(
    Person,
    name=TEXT,
    born=st.none() | st.dates(),
    colours=st.sets(st.sampled_from(Colour)),
    secret=TEXT,
)
TEAMS = st.builds(
    Team,
    people=st.lists(PEOPLE, max_size=2),
    photo=st.none() | st.just(dspy.Image("https://example.com/a.png")),
    by_name=st.dictionaries(TEXT, PEOPLE, max_size=2),
    stamp=st.none() | st.datetimes(timezones=st.just(datetime.UTC)),
)
SCALARS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (str, TEXT),
    (int, st.integers()),
    (float, FINITE),
    (bool, st.booleans()),
    (bytes, st.binary(max_size=12)),
    (datetime.date, st.dates()),
    (datetime.datetime, st.datetimes()),
    (datetime.time, st.times()),
    (datetime.timedelta, st.timedeltas()),
    (decimal.Decimal, st.decimals(allow_nan=False, allow_infinity=False, places=2)),
    (uuid.UUID, st.uuids()),
    (Colour, st.sampled_from(Colour)),
    (Level, st.sampled_from(Level)),
    (Literal["a", "b"], st.sampled_from(["a", "b"])),
    (Literal[1, "x", None], st.sampled_from([1, "x", None])),
]
MODELS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (Person, PEOPLE),
    (Team, TEAMS),
    (Point, st.builds(Point, x=FINITE, y=st.integers(), tag=st.sampled_from(Colour))),
    (Page, st.builds(Page, body=st.just(dspy.Image("https://example.com/a.png")) | TEXT | st.dates())),
    (dspy.Code, st.builds(dspy.Code, code=TEXT)),
    (dspy.Reasoning, st.builds(dspy.Reasoning, content=TEXT)),
    (dspy.Image, st.just(dspy.Image("https://example.com/a.png"))),
    (
        dspy.History,
        st.builds(dspy.History, messages=st.lists(st.fixed_dictionaries({"question": TEXT}), max_size=2)),
    ),
]
KEYS = [(str, TEXT), (int, st.integers()), (Colour, st.sampled_from(Colour)), (datetime.date, st.dates())]


def containers(of: Any) -> st.SearchStrategy[Any]:
    """A container type around what `of` draws, with a strategy for its values."""
    return st.one_of(
        of.map(lambda pair: (list[pair[0]], st.lists(pair[1], max_size=3))),  # type: ignore[name-defined]
        of.map(lambda pair: (pair[0] | None, st.none() | pair[1])),
        of.map(lambda pair: (tuple[pair[0], int], st.tuples(pair[1], st.integers()))),  # type: ignore[name-defined]
        of.map(lambda pair: (deque[pair[0]], st.lists(pair[1], max_size=3).map(deque))),  # type: ignore[name-defined]
        st.tuples(st.sampled_from(KEYS), of).map(
            lambda two: (dict[two[0][0], two[1][0]], st.dictionaries(two[0][1], two[1][1], max_size=3))  # type: ignore[misc]
        ),
        st.sampled_from([pair for pair in SCALARS if pair[0] not in (float, decimal.Decimal)]).map(
            lambda pair: (set[pair[0]], st.sets(pair[1], max_size=3))  # type: ignore[name-defined]
        ),
        st.tuples(of, of).map(lambda two: (two[0][0] | two[1][0], two[0][1] | two[1][1])),
    )


FIELDS = st.recursive(st.sampled_from([*SCALARS, *MODELS]), containers, max_leaves=4)


@st.composite
def signatures(draw: st.DrawFn) -> tuple[Any, dict[str, Any]]:
    """A signature of one to four output fields, and a value for each."""
    fields = draw(st.lists(FIELDS, min_size=1, max_size=4))
    annotated = {f"out_{number}": (annotation, dspy.OutputField()) for number, (annotation, _) in enumerate(fields)}
    signature = dspy.Signature({"question": (str, dspy.InputField()), **annotated})
    return signature, {f"out_{number}": draw(values) for number, (_, values) in enumerate(fields)}


@given(signatures())
@settings(max_examples=EXAMPLES, deadline=None)
def test_predictions_validate_against_the_published_schema(drawn: tuple[Any, dict[str, Any]]) -> None:
    signature, values = drawn
    schema = program_schema(dspy.Predict(signature)).output_schema
    outputs = json.loads(json.dumps(outputs_of(dspy.Prediction(**values))))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(outputs, schema, cls=jsonschema.Draft202012Validator)


@given(signatures())
@settings(max_examples=EXAMPLES, deadline=None)
def test_what_comes_out_is_a_good_correction(drawn: tuple[Any, dict[str, Any]]) -> None:
    signature, values = drawn
    outputs = json.loads(json.dumps(outputs_of(dspy.Prediction(**values))))
    program_schema(dspy.Predict(signature)).check_outputs(outputs, "/correction")
