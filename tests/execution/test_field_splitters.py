"""The deltas of a text field add up to what the adapter reads, however the text is cut into chunks."""

from __future__ import annotations

import json
from typing import Any

import dspy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspyserve.execution.field_splitters import FieldSplitter, splitter_for

SIGNATURE = dspy.Signature(
    "question -> reasoning: str, count: int, table: dict[str, list[str]], answer: str, good: bool, last: str"
)
TEXTS = ("reasoning", "answer", "last")
PIECES = [
    *"ab [#]\n\r\t\"'\\{},:u0",
    *("\x0b", "\x85", "\u2028", "é", "e\u0301", "😀", "👩\u200d🚀"),
    *(
        "[[ ## ",
        " ## ]]",
        "[[ ## answer ## ]]",
        "\n[[ ## answer ## ]] ",
        "\n[[ ## completed ## ]]",
        "\n[[ ## other ## ]]",
    ),
    *('"answer": "', '"}', "\\n", "\\u00e9", "\\ud83d", "```json"),
]
TRICKY = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)
CUTS = st.one_of(st.lists(st.integers(1, 9)), st.just([1] * 2000))
TABLE = {"answer": ['"}', "[[ ## answer ## ]]", "</answer> & \\"]}


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
    @settings(max_examples=300)
    @given(TRICKY, TRICKY, TRICKY, CUTS)
    def test_adds_up_to_what_the_adapter_reads(self, reasoning: str, answer: str, last: str, cuts: list[int]) -> None:
        text = chat(reasoning=reasoning, count=3, table=json.dumps(TABLE), answer=answer, good=True, last=last)
        try:
            read = dspy.ChatAdapter().parse(SIGNATURE, text)
        except dspy.utils.exceptions.AdapterParseError:
            return
        found = feed(splitter_for(dspy.ChatAdapter(), SIGNATURE), text, cuts)
        assert found == {name: read[name] for name in TEXTS if read[name]}

    def test_streams_before_a_line_ends(self) -> None:
        splitter = splitter_for(dspy.ChatAdapter(), SIGNATURE)
        list(splitter.feed("[[ ## reasoning ## ]]\n"))
        assert list(splitter.feed("because")) == [("reasoning", "because")]

    def test_a_marker_within_a_line_is_text(self) -> None:
        text = chat(reasoning="see [[ ## answer ## ]] there", count=1, answer="x")
        assert feed(splitter_for(dspy.ChatAdapter(), SIGNATURE), text, [1] * 200)["reasoning"].startswith("see [[ ## a")


class TestJson:
    @settings(max_examples=300)
    @given(TRICKY, TRICKY, TRICKY, st.booleans(), st.sampled_from([None, 2]), CUTS)
    def test_adds_up_to_what_the_adapter_reads(
        self, reasoning: str, answer: str, last: str, ascii_only: bool, indent: int | None, cuts: list[int]
    ) -> None:
        values = {"reasoning": reasoning, "count": 3, "table": TABLE, "answer": answer, "good": True, "last": last}
        text = json.dumps({"more": [{"answer": "no"}], **values}, ensure_ascii=ascii_only, indent=indent)
        read = dspy.JSONAdapter().parse(SIGNATURE, text)
        found = feed(splitter_for(dspy.JSONAdapter(), SIGNATURE), text, cuts)
        assert found == {name: read[name] for name in TEXTS if read[name]} == {n: values[n] for n in TEXTS if values[n]}

    @pytest.mark.parametrize(
        ("written", "read"),
        [
            (r"a\ud83d\ude00b", "a😀b"),
            (r"\uD83D\uDE00", "😀"),
            (r"\"quoted\" and \\\"", '"quoted" and \\"'),
            (r"\u005c\u0022", '\\"'),
            (r"\b\f\n\r\t\/", "\b\f\n\r\t/"),
            (r"\ud83d", "?"),
            (r"\ude00", "?"),
            (r"\ud83d\n", "?\n"),
            (r"\ud83d plain", "? plain"),
            (r"\ud83d\ud83d\ude00", "?😀"),
            (r"\ud83d\u0041", "?A"),
        ],
    )
    def test_escapes_in_pieces_of_every_size(self, written: str, read: str) -> None:
        text = f'{{"reasoning": "{written}", "count": 1, "answer": "next"}}'
        for size in range(1, len(text) + 1):
            found = feed(splitter_for(dspy.JSONAdapter(), SIGNATURE), text, [size] * len(text))
            assert found == {"reasoning": read, "answer": "next"}

    @pytest.mark.parametrize("count", ["3", '{"a": [1]}', '"3"', "[]"])
    def test_what_follows_the_object_is_no_text(self, count: str) -> None:
        text = f'{{"reasoning": "r", "count": {count}}}\n``` "answer": "leaked" {{"last": "leaked"}}'
        assert feed(splitter_for(dspy.JSONAdapter(), SIGNATURE), text, [1] * 99) == {"reasoning": "r"}

    @pytest.mark.parametrize("lead", ["", "```json\n", "Here you are:\n"])
    def test_what_stands_before_the_object_is_passed_over(self, lead: str) -> None:
        text = f'{lead}{{"reasoning": "r", "answer": "a"}}\n```'
        assert feed(splitter_for(dspy.JSONAdapter(), SIGNATURE), text, [1] * 99) == {"reasoning": "r", "answer": "a"}


def xml(**fields: Any) -> str:
    """What a model writes for XMLAdapter."""
    return "\n\n".join(f"<{name}>\n{value}\n</{name}>" for name, value in fields.items())


def escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


MARKUP = [
    *(piece for piece in PIECES if piece != "\x0b"),
    "&",
    "<",
    ">",
    "</answer>",
    "<b>",
    "&amp;",
    "&#128512;",
    "&lt;",
    "]]>",
    "<![CDATA[",
    "<answer>",
]
MARKED = st.lists(st.sampled_from(MARKUP), max_size=40).map("".join)


class TestXML:
    @settings(max_examples=300)
    @given(MARKED, MARKED, MARKED, CUTS)
    def test_adds_up_to_what_the_adapter_reads(self, reasoning: str, answer: str, last: str, cuts: list[int]) -> None:
        table = "<entry key='answer'><item>no</item></entry><answer>no</answer>"
        fields = {"reasoning": escaped(reasoning), "count": 3, "table": table, "answer": escaped(answer)}
        text = xml(**fields, good=True, last=escaped(last))
        found = feed(splitter_for(dspy.XMLAdapter(), SIGNATURE), text, cuts)
        try:
            read = dspy.XMLAdapter().parse(SIGNATURE, text)
        except dspy.utils.exceptions.AdapterParseError:
            return
        assert found == {name: read[name] for name in TEXTS if read[name]}

    @pytest.mark.parametrize(
        ("written", "read"),
        [
            ("a ]]&gt; b", "a ]]> b"),
            ("&#128512;&#x1F600;&amp;lt;", "😀😀&lt;"),
            ("&quot;&apos;", "\"'"),
            ("<![CDATA[a ]] > <b> &amp; ]]>!", "a ]] > <b> &amp; !"),
            ("<!-- not this -->a", "a"),
        ],
    )
    def test_entities_and_sections_in_pieces_of_every_size(self, written: str, read: str) -> None:
        text = f"<reasoning>\n{written}\n</reasoning>\n<count>1</count>\n<answer>next</answer>"
        for size in range(1, len(text) + 1):
            found = feed(splitter_for(dspy.XMLAdapter(), SIGNATURE), text, [size] * len(text))
            assert found == {"reasoning": read, "answer": "next"}

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
