"""Two trees beside each other."""

from __future__ import annotations

from dspyserve.admin.traces.span_tree import Row
from dspyserve.admin.traces.tree_diff import Node, aligned, nodes
from dspyserve.models import Span


def tree(*lines: str) -> list[Node]:
    """The tree of names that are indented by two blanks a level."""
    spans = [Span(name=line.strip(), kind="lm", sequence=number) for number, line in enumerate(lines, start=1)]
    return nodes(Row(span, (len(line) - len(line.lstrip())) // 2) for span, line in zip(spans, lines, strict=True))


def drawn(one: list[Node], other: list[Node]) -> list[str]:
    """`=`, `-` or `+` before each name, indented."""
    signs = {(True, True): "=", (True, False): "-", (False, True): "+"}
    drawing = []
    for pair in aligned(one, other):
        sign = signs[pair.one is not None, pair.other is not None]
        drawing.append(f"{sign}{'  ' * pair.depth}{pair.row.span.name}")
    return drawing


def test_what_both_have_stands_together() -> None:
    one = tree("run", "  predict", "    lm", "  tool")
    assert drawn(one, one) == ["=run", "=  predict", "=    lm", "=  tool"]


def test_what_one_lacks_stands_where_the_other_has_it() -> None:
    one = tree("run", "  first", "    lm", "  third")
    other = tree("run", "  first", "  second", "    lm", "  third", "  fourth")
    assert drawn(one, other) == ["=run", "=  first", "-    lm", "+  second", "+    lm", "=  third", "+  fourth"]


def test_repeated_names_are_told_apart_by_their_number() -> None:
    one, other = tree("run", "  lm", "  lm", "  lm"), tree("run", "  lm", "  tool", "  lm")
    assert drawn(one, other) == ["=run", "=  lm", "+  tool", "=  lm", "-  lm"]
    numbers = [tuple(row and row.span.sequence for row in (pair.one, pair.other)) for pair in aligned(one, other)]
    assert numbers == [(1, 1), (2, 2), (None, 3), (3, 4), (4, None)]


def test_another_order_loses_nothing() -> None:
    found = drawn(tree("a", "b", "c"), tree("c", "x", "a", "b"))
    assert sorted(found) == ["+x", "=a", "=b", "=c"]


def test_names_count_only_with_their_kinds_and_parents() -> None:
    one, other = tree("a", "  x"), tree("b", "  x")
    assert drawn(one, other) == ["-a", "-  x", "+b", "+  x"]


def test_depth_and_breadth_have_no_limit() -> None:
    deep = tree(*("  " * level + "x" for level in range(3_000)))
    assert len(drawn(deep, deep)) == 3_000
    wide = tree("run", *("  x" for _ in range(20_000)))
    assert len(drawn(wide, wide)) == 20_001


def test_nothing_and_something() -> None:
    assert drawn([], []) == []
    assert drawn([], tree("run")) == ["+run"]
