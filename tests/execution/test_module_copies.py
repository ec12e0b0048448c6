"""Copies of modules are those that `copy.deepcopy` makes."""

from __future__ import annotations

import copy
from typing import Any

import dspy
import pytest

from dspyserve.execution import module_copies
from dspyserve.execution.module_copies import deep_copy


class NeitherTrueNorEqual:
    """As arrays are."""

    def __bool__(self) -> bool:
        raise ValueError

    __eq__ = __hash__ = None  # type: ignore[assignment]


class Nested(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.steps = [dspy.Predict("question -> answer"), {"deep": dspy.ChainOfThought("question -> answer")}]
        self.notes = ["a", {"b": [1, 2]}]
        self.same = self.notes
        self.empty: list[Any] = []
        self.same_empty = self.empty
        self.itself = self
        self.kind = dict
        self.limits = (1, 2.5, None)
        self.names = {"x"}
        self.nothing = ()
        self.odd = NeitherTrueNorEqual()


class CopiedItsOwnWay(dspy.Module):
    def __deepcopy__(self, memo: dict[int, Any]) -> CopiedItsOwnWay:
        return self


class StateOfItsOwn(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lock: Any = object()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "lock": "left behind"}


class Slotted(dspy.Module):
    __slots__ = ("slot",)

    def __init__(self) -> None:
        super().__init__()
        self.slot = ["in a slot"]


def tool(query: str) -> str:
    """A tool."""
    return query


def shape(value: Any, seen: dict[int, int]) -> Any:
    """Everything in `value`, with the same number for the same object."""
    if isinstance(value, str | int | float | type | None | tuple):
        return value
    if id(value) in seen:
        return seen[id(value)]
    seen[id(value)] = len(seen)
    if isinstance(value, dict):
        return {key: shape(item, seen) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item, seen) for item in value]
    held = vars(value) if hasattr(value, "__dict__") else {}
    return type(value), {name: shape(item, seen) for name, item in sorted(held.items())}


MODULES: list[Any] = [
    lambda: dspy.Predict("question -> answer", temperature=0.5),
    lambda: dspy.ChainOfThought("question -> answer"),
    lambda: dspy.ReAct("question -> answer", tools=[tool]),
    Nested,
    StateOfItsOwn,
    Slotted,
]


@pytest.mark.parametrize("make", MODULES)
def test_is_what_deepcopy_makes(make: Any) -> None:
    module = make()
    for _, part in module.named_sub_modules():
        part.demos = [dspy.Example(question="q", answer="a").with_inputs("question")]
        part.history, part.callbacks = ["an entry"], ["a callback"]
    ours, theirs = deep_copy(module, {}), copy.deepcopy(module)
    assert shape(ours, {}) == shape(theirs, {})
    assert ours.history == ours.callbacks == []


def test_nothing_that_can_change_is_shared() -> None:
    module = Nested()
    copied = deep_copy(module, {})
    assert copied.itself is copied
    assert copied.same is copied.notes is not module.notes
    assert copied.same_empty is copied.empty is not module.empty
    assert copied.steps[0] is not module.steps[0]
    assert copied.steps[0].signature is module.steps[0].signature
    copied.notes[1]["b"].append(3)
    assert module.notes == ["a", {"b": [1, 2]}]


def test_what_is_known_already_is_taken() -> None:
    module = Nested()
    instead = dspy.Predict("x -> y")
    memo = {id(module.steps[0]): instead, id(module.empty): ["known"]}
    copied = deep_copy(module, memo)
    assert copied.steps[0] is instead
    assert copied.empty == ["known"]


def test_modules_that_say_how_they_are_copied_are_copied_so() -> None:
    module = CopiedItsOwnWay()
    assert deep_copy(module, {}) is module
    assert deep_copy(StateOfItsOwn(), {}).lock == "left behind"


def test_dspys_own_modules_take_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    stock: list[Any] = []
    monkeypatch.setattr(module_copies.copy, "deepcopy", lambda value, memo: stock.append(value))
    deep_copy(dspy.Predict("question -> answer"), {})
    assert stock == []
