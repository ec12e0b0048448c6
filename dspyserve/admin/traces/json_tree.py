"""JSON as a tree that a page can hold: bounded in depth, breadth and length, and what is left out is stated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from dspyserve.admin.plain_text import Cut, cut, visible
from dspyserve.admin.traces.raw import as_text

MAX_DEPTH: Final = 6
"""Deeper values are loaded on demand."""
MAX_CHILDREN: Final = 100
"""Of one object or array at a time."""
MAX_TEXT: Final = 4_000
"""Characters of one text."""
_OPEN: Final = 8
"""Objects and arrays with more than these are closed at first."""
_SHORT: Final = 80
"""Characters of a text that stands in one line with its name."""


@dataclass(slots=True)
class Budget:
    """What one answer of the server may hold in all: nodes, and characters of texts."""

    nodes: int = 1_500
    characters: int = 200_000

    def take(self, text: str, limit: int = MAX_TEXT) -> Cut:
        """As much of `text` as there is room for."""
        found = cut(text, max(min(limit, self.characters), 0))
        self.characters -= found.shown
        return found


@dataclass(slots=True)
class Node:
    """A value under its name. `address` is where it can be loaded from (`payloads.at`), empty where it cannot.

    `rest` counts the children that are not here; the first of them has the position `next`.
    """

    name: str
    kind: str
    address: str = ""
    text: Cut | None = None
    count: int = 0
    children: list[Node] = field(default_factory=list)
    rest: int = 0
    next: int = 0
    is_open: bool = False

    @property
    def is_branch(self) -> bool:
        """Whether it is an object or an array with something in it."""
        return self.kind in ("object", "array") and self.count > 0

    @property
    def is_deferred(self) -> bool:
        """Whether its children are yet to be loaded."""
        return self.is_branch and not self.children

    @property
    def is_block(self) -> bool:
        """Whether its text wants lines of its own."""
        return (
            self.kind == "string"
            and self.text is not None
            and (bool(self.text.size) or len(self.text.text) > _SHORT or "\n" in self.text.text)
        )


def tree(value: Any, address: str, name: str = "", *, start: int = 0, budget: Budget | None = None) -> Node:
    """`value` as a node, with its children from the position `start` on."""
    return _node(value, address, visible(name[:200]), 0, start, budget or Budget())


def fields(value: Any, address: str, budget: Budget | None = None) -> list[Node]:
    """An object's values as nodes of their own; anything else as one node; nothing for nothing."""
    if value is None or value == {}:
        return []
    budget = budget or Budget()
    node = tree(value, address, budget=budget)
    return node.children if isinstance(value, Mapping) and not node.rest else [node]


def _node(value: Any, address: str, name: str, depth: int, start: int, budget: Budget) -> Node:
    budget.nodes -= 1
    if isinstance(value, Mapping | list):
        return _branch(value, address, name, depth, start, budget)
    if isinstance(value, str):
        return Node(name, "string", address, budget.take(value))
    kind = "null" if value is None else "boolean" if isinstance(value, bool) else "number"
    return Node(name, kind, address, Cut(as_text(value)))


def _branch(
    value: Mapping[str, Any] | list[Any], address: str, name: str, depth: int, start: int, budget: Budget
) -> Node:
    kind = "object" if isinstance(value, Mapping) else "array"
    node = Node(name, kind, address, count=len(value), rest=len(value))
    node.is_open = depth < 3 and node.count <= _OPEN
    if not node.count:
        node.text = Cut("{}" if kind == "object" else "[]")
    elif depth < MAX_DEPTH and budget.nodes > 0:
        items = _items(value)[start : start + MAX_CHILDREN]
        for position, (key, item) in enumerate(items, start=start):
            if budget.nodes <= 0:
                break
            place = f"{address}.{position}" if address else ""
            node.children.append(_node(item, place, visible(key[:200]), depth + 1, 0, budget))
        node.next = start + len(node.children)
        node.rest = node.count - node.next
    elif not address:
        # Nothing can be loaded from nowhere: as text, then.
        return Node(name, "string", text=budget.take(as_text(value)))
    return node


def _items(value: Mapping[str, Any] | list[Any]) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [(str(key), item) for key, item in value.items()]
    return [(str(position), item) for position, item in enumerate(value)]
