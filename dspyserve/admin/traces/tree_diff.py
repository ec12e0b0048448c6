"""Two span trees beside each other: what stands at the same place in both, and what only one of them has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from dspyserve.admin.traces.span_tree import Row


@dataclass(slots=True)
class Node:
    """The row of a span with those below it."""

    row: Row
    children: list[Node] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Pair:
    """The rows at one place of both trees; one of them is None where the other tree has nothing there."""

    depth: int
    one: Row | None
    other: Row | None

    @property
    def row(self) -> Row:
        """The one that is there, of which kind and name are told."""
        found = self.one or self.other
        assert found is not None, "a pair of nothing"
        return found


def nodes(rows: Iterable[Row]) -> list[Node]:
    """The roots of the tree of these rows, parents before their children."""
    roots: list[Node] = []
    path: list[Node] = []
    for row in rows:
        del path[row.depth :]
        node = Node(row)
        (path[-1].children if path else roots).append(node)
        path.append(node)
    return roots


def aligned(one: list[Node], other: list[Node]) -> Iterator[Pair]:
    """All places of both trees, parents before their children.

    Rows belong together when their parents do and they are the same number of their kind and name among the siblings.
    """
    pending = [(0, ours, theirs) for ours, theirs in reversed(_paired(one, other))]
    # No recursion: trees may be deeper than Python's stack.
    while pending:
        depth, ours, theirs = pending.pop()
        yield Pair(depth, ours.row if ours else None, theirs.row if theirs else None)
        below = _paired(ours.children if ours else [], theirs.children if theirs else [])
        pending.extend((depth + 1, left, right) for left, right in reversed(below))


def _paired(one: list[Node], other: list[Node]) -> list[tuple[Node | None, Node | None]]:
    """Siblings side by side, in the order of `one`; what only `other` has stands where it stands there."""
    ours, theirs = _numbered(one), _numbered(other)
    places = {key: place for place, (key, _node) in enumerate(theirs)}
    known = {key for key, _node in ours}
    found: list[tuple[Node | None, Node | None]] = []
    at = 0
    for key, node in ours:
        place = places.get(key)
        if place is None:
            found.append((node, None))
            continue
        found += [(None, extra) for extra_key, extra in theirs[at:place] if extra_key not in known]
        at = max(at, place + 1)
        found.append((node, theirs[place][1]))
    return found + [(None, extra) for extra_key, extra in theirs[at:] if extra_key not in known]


def _numbered(siblings: list[Node]) -> list[tuple[tuple[str, str, int], Node]]:
    counts: dict[tuple[str, str], int] = {}
    found = []
    for node in siblings:
        name = (node.row.span.kind, node.row.span.name)
        counts[name] = counts.get(name, 0) + 1
        found.append(((*name, counts[name]), node))
    return found
