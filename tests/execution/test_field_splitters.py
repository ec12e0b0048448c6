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


def xml(**fields: Any) -> str:
    """What a model writes for XMLAdapter."""
    return "\n\n".join(f"<{name}>\n{value}\n</{name}>" for name, value in fields.items())


def escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


MARKUP = [*PIECES, "&", "<", ">", "</answer>", "<b>", "&amp;", "]]>", "<![CDATA["]


class TestXML:
    @given(
        st.lists(st.sampled_from(MARKUP), max_size=40).map("".join),
        st.lists(st.sampled_from(MARKUP), max_size=40).map("".join),
        st.lists(st.integers(1, 9)),
    )
    def test_adds_up_to_what_the_adapter_reads(self, reasoning: str, answer: str, cuts: list[int]) -> None:
        text = xml(reasoning=escaped(reasoning), count=3, answer=escaped(answer))
        found = feed(splitter_for(dspy.XMLAdapter(), SIGNATURE), text, cuts)
        try:
            read = dspy.XMLAdapter().parse(SIGNATURE, text)
        except dspy.utils.exceptions.AdapterParseError:
            return
        for name in ("reasoning", "answer"):
            assert found.get(name, "") == read[name]
        assert "count" not in found

    def test_streams_before_an_element_ends(self) -> None:
        splitter = splitter_for(dspy.XMLAdapter(), SIGNATURE)
        list(splitter.feed("<reasoning>\n"))
        assert list(splitter.feed("because")) == [("reasoning", "because")]
        assert list(splitter.feed(" of &am")) == [("reasoning", " of")]
        assert list(splitter.feed("p; that")) == [("reasoning", " &"), ("reasoning", " that")]

    def test_sections_of_raw_text_are_text(self) -> None:
        text = "<reasoning><![CDATA[a < b]]></reasoning>"
        assert feed(splitter_for(dspy.XMLAdapter(), SIGNATURE), text, [3] * 20) == {"reasoning": "a < b"}

    @pytest.mark.parametrize("text", ["no markup", "<reasoning>a</answer>", "<reasoning>a & b</reasoning>", "<<<<"])
    def test_what_is_no_xml_ends_the_stream(self, text: str) -> None:
        splitter = splitter_for(dspy.XMLAdapter(), SIGNATURE)
        found = feed(splitter, text, [1] * 50)
        assert set(found) <= {"reasoning"}
        assert list(splitter.feed("<answer>x</answer>")) in ([], [("answer", "x")])


def test_an_unknown_adapter_streams_whole_fields() -> None:
    class Own(dspy.XMLAdapter):
        pass

    assert feed(splitter_for(Own(), SIGNATURE), "<answer>a</answer>", [1, 2]) == {}
