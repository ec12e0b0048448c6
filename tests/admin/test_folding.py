"""Texts of DSPy's own adapters, and of anybody else."""

from __future__ import annotations

import time
from typing import Any

import dspy
import pytest
from dspy.adapters.xml_adapter import XMLAdapter

from dspyserve.admin.traces.folding import folded, names_in, objective_in


class Plan(dspy.Signature):
    """Plan the answer.
    Be brief."""

    question: str = dspy.InputField()
    steps: list[str] = dspy.OutputField()
    note: str = dspy.OutputField()


VALUES = {"question": "Why <b>?", "steps": ["one", "two"], "note": "a note"}
ADAPTERS = [dspy.ChatAdapter(), dspy.JSONAdapter(), XMLAdapter()]


def pieces(text: str, *names: str) -> list[tuple[str, Any]]:
    return [(piece.name, piece.value) for piece in folded(text, frozenset(names)) if not piece.is_demand]


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: type(adapter).__name__)
def test_what_an_adapter_writes_is_read(adapter: Any) -> None:
    system, user = adapter.format(Plan, [], {"question": VALUES["question"]})
    names = names_in(system["content"])
    assert names == {"question", "steps", "note"}
    assert objective_in(system["content"]) == "Plan the answer.\nBe brief."
    asked = folded(user["content"], names)
    assert [(piece.name, piece.value) for piece in asked if not piece.is_demand] == [("question", "Why <b>?")]
    assert [piece.is_demand for piece in asked] == [False, True]
    assert asked[-1].value.startswith("Respond with")
    answer = adapter.format_assistant_message_content(Plan, VALUES)
    found = dict(pieces(answer, *names))
    assert found["note"] == "a note"
    if not isinstance(adapter, XMLAdapter):
        assert found["steps"] == ["one", "two"]


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "<b>bold</b> and <i>more</i>",
        "<script>alert(1)</script>",
        "{not json",
        "[1, 2]",
        "say [[ ## question ## ]] within a line",
        "{" * 5000,
    ],
)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert pieces(text, "question") == [("", text)]


def test_tags_are_fields_only_where_the_signature_has_them() -> None:
    assert pieces("<answer>a</answer>\n<b>x</b>", "answer") == [("", "<answer>a</answer>\n<b>x</b>")]
    assert pieces("<answer>a</answer>\n<b>x</b>", "answer", "b") == [("answer", "a"), ("b", "x")]


def test_json_in_a_fence_and_text_before_a_marker() -> None:
    assert pieces('```json\n{"answer": [1]}\n```') == [("answer", [1])]
    assert pieces("Sure!\n[[ ## answer ## ]]\nyes\n\n[[ ## completed ## ]]") == [("", "Sure!"), ("answer", "yes")]


@pytest.mark.parametrize(
    "text",
    ["<a>" * 66_000, "[[ ## " * 33_000, "Respond with " * 15_000, "1. `" * 50_000, "\n" * 199_000, "x" * 10_000_000],
)
def test_no_text_takes_long(text: str) -> None:
    start = time.thread_time()
    folded(text, frozenset({"a"}))
    names_in(text)
    objective_in(text)
    assert time.thread_time() - start < 5
