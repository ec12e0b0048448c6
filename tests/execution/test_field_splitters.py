"""The deltas of a text field add up to what the adapter reads, however the text is cut into chunks."""

from __future__ import annotations

import json
from typing import Any

import dspy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspyserve.execution.field_splitters import FieldSplitter, splitter_for

SIGNATURE = dspy.Signature("question -> reasoning: str, count: int, answer: str")
PIECES = [*'ab [#]\n\r\t"\\{},:', "\x0b", "\x85", "\u2028", "é", "😀", "[[ ## ", " ## ]]", "[[ ## answer ## ]]"]
TRICKY = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)


def feed(splitter: FieldSplitter, text: str, cuts: list[int]) -> dict[str, str]:
    """The sum of the deltas of each field, with `text` cut at `cuts`."""
    found: dict[str, str] = {}
    position = 0
    for size in [*cuts, len(text)]:
        for name, delta in splitter.feed(text[position : position + size]):
            found[name] = found.get(name, "") + delta
        position += size
    return found


def chat(**fields: Any) -> str:
    """What a model writes for ChatAdapter."""
    return "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in fields.items()) + "\n\n[[ ## completed ## ]]\n"


class TestChat:
    @given(TRICKY, TRICKY, st.lists(st.integers(1, 9)))
    def test_adds_up_to_what_the_adapter_reads(self, reasoning: str, answer: str, cuts: list[int]) -> None:
        text = chat(reasoning=reasoning, count=3, answer=answer)
        try:
            read = dspy.ChatAdapter().parse(SIGNATURE, text)
        except dspy.utils.exceptions.AdapterParseError:
            return
        found = feed(splitter_for(dspy.ChatAdapter(), SIGNATURE), text, cuts)
        for name in ("reasoning", "answer"):
            if "[[ ## " not in read[name]:
                assert found.get(name, "") == read[name]
        assert "count" not in found

    def test_streams_before_a_line_ends(self) -> None:
        splitter = splitter_for(dspy.ChatAdapter(), SIGNATURE)
        list(splitter.feed("[[ ## reasoning ## ]]\n"))
        assert list(splitter.feed("because")) == [("reasoning", "because")]

    def test_a_marker_within_a_line_is_text(self) -> None:
        text = chat(reasoning="see [[ ## answer ## ]] there", count=1, answer="x")
        assert feed(splitter_for(dspy.ChatAdapter(), SIGNATURE), text, [1] * 200)["reasoning"].startswith("see [[ ## a")


class TestJson:
    @given(TRICKY, TRICKY, st.booleans(), st.lists(st.integers(1, 9)))
    def test_adds_up_to_the_values(self, reasoning: str, answer: str, ascii_only: bool, cuts: list[int]) -> None:
        values = {"reasoning": reasoning, "count": 3, "nested": {"answer": ["no", {"a": '"}'}]}, "answer": answer}
        text = json.dumps(values, ensure_ascii=ascii_only)
        found = feed(splitter_for(dspy.JSONAdapter(), SIGNATURE), text, cuts)
        assert found == {name: values[name] for name in ("reasoning", "answer") if values[name]}

    @pytest.mark.parametrize("lead", ["", "```json\n", "Here you are:\n"])
    def test_what_stands_before_the_object_is_passed_over(self, lead: str) -> None:
        text = f'{lead}{{"reasoning": "r", "answer": "a"}}\n```'
        assert feed(splitter_for(dspy.JSONAdapter(), SIGNATURE), text, [1] * 99) == {"reasoning": "r", "answer": "a"}


def test_an_unknown_adapter_streams_whole_fields() -> None:
    assert feed(splitter_for(dspy.XMLAdapter(), SIGNATURE), "<answer>a</answer>", [1, 2]) == {}
