"""Values as trees, however large."""

from __future__ import annotations

from typing import Any

import pytest

from dspyserve.admin.traces import json_tree
from dspyserve.admin.traces.json_tree import Budget, Node, fields, tree
from dspyserve.admin.traces.raw import as_text


def every(node: Node) -> list[Node]:
    return [node, *(found for child in node.children for found in every(child))]


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (None, "null", "null"),
        (True, "boolean", "true"),
        (1.5, "number", "1.5"),
        ("a", "string", "a"),
        ({}, "object", "{}"),
    ],
)
def test_leaves(value: Any, kind: str, text: str) -> None:
    node = tree(value, "inputs")
    assert node.text is not None
    assert (node.kind, node.text.text, node.is_branch) == (kind, text, False)


def test_addresses_are_positions() -> None:
    node = tree({"a": [1, {"b\x00": "x"}]}, "inputs")
    assert [(child.name, child.address) for child in every(node)] == [
        ("", "inputs"),
        ("a", "inputs.0"),
        ("0", "inputs.0.0"),
        ("1", "inputs.0.1"),
        ("b␀", "inputs.0.1.0"),
    ]


def test_depth_is_left_for_later() -> None:
    value: Any = "bottom"
    for _ in range(500):
        value = [value]
    found = every(tree(value, "inputs"))
    assert len(found) == json_tree.MAX_DEPTH + 1
    assert (found[-1].is_deferred, found[-1].address) == (True, "inputs" + ".0" * json_tree.MAX_DEPTH)


def test_breadth_is_left_for_later() -> None:
    node = tree(list(range(250)), "inputs", start=200)
    assert (node.count, len(node.children), node.rest) == (250, 50, 0)
    node = tree(list(range(250)), "inputs")
    assert (len(node.children), node.rest, node.next) == (100, 150, 100)


def test_texts_are_cut_and_say_so() -> None:
    node = tree("x" * 5_000_000, "inputs")
    assert node.text is not None
    assert (node.text.shown, node.text.size, node.is_block) == (json_tree.MAX_TEXT, 5_000_000, True)


def test_no_value_is_more_than_the_budget() -> None:
    budget = Budget()
    nodes = every(tree([["y" * 4_000] * 100] * 100, "inputs", budget=budget))
    assert len(nodes) <= 1_500 + json_tree.MAX_CHILDREN
    assert sum(node.text.shown for node in nodes if node.text) == 200_000
    assert nodes[0].rest + len(nodes[0].children) == 100


def test_an_object_is_its_fields() -> None:
    assert [node.name for node in fields({"a": 1, "b": {}}, "outputs")] == ["a", "b"]
    assert [node.name for node in fields("text", "outputs")] == [""]
    assert fields(None, "outputs") == fields({}, "outputs") == []
    assert [node.count for node in fields(dict.fromkeys(map(str, range(300))), "outputs")] == [300]


def test_raw_text_has_all_of_it() -> None:
    assert as_text("a\x00b") == "a\x00b"
    assert as_text({"a": [1]}) == '{\n  "a": [\n    1\n  ]\n}'
    deep: Any = {"k": "é"}
    for _ in range(3_000):
        deep = [deep, 2**80]
    text = as_text(deep)
    assert text.startswith("[" * 3_000 + '{"k": "\\u00e9"}, 1208925819614629174706176]')
    assert text.count("]") == 3_000
