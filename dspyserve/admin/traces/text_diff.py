"""What changed from one text to another, word by word, in bounded time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final, Literal

_WORD: Final = re.compile(r"\s+|\w+|[^\w\s]")
_LINE: Final = re.compile(r"[^\n]*\n|[^\n]+")
MAX_WORK: Final = 1_000_000
"""Words of one text times words of the other that are compared word by word; longer texts are compared by lines, and
texts of as many lines as a whole.
"""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of text that both have, or only one of them."""

    kind: Literal["same", "removed", "added"]
    text: str


@dataclass(slots=True)
class Work:
    """What is left of the comparing that one page may do."""

    left: int = 4 * MAX_WORK

    def allows(self, one: Sequence[str], other: Sequence[str]) -> bool:
        """Whether these may be compared, which is then counted."""
        cost = len(one) * len(other)
        if cost > min(self.left, MAX_WORK):
            return False
        self.left -= cost
        return True


def difference(one: str, other: str, work: Work | None = None) -> list[Piece]:
    """The pieces of both texts in their order: without `added`, they make up `one`; without `removed`, `other`."""
    return [piece for piece in _compare(one, other, work or Work()) if piece.text]


def _compare(one: str, other: str, work: Work) -> Iterator[Piece]:
    for unit in (_WORD, _LINE):
        ours, theirs = unit.findall(one), unit.findall(other)
        start = _common(ours, theirs)
        end = _common(ours[start:][::-1], theirs[start:][::-1])
        middle, their_middle = ours[start : len(ours) - end], theirs[start : len(theirs) - end]
        if work.allows(middle, their_middle):
            yield Piece("same", "".join(ours[:start]))
            yield from _matched(middle, their_middle)
            yield Piece("same", "".join(ours[len(ours) - end :]))
            return
    yield Piece("removed", one)
    yield Piece("added", other)


def _matched(ours: list[str], theirs: list[str]) -> Iterator[Piece]:
    for kind, a, b, c, d in SequenceMatcher(None, ours, theirs).get_opcodes():
        if kind == "equal":
            yield Piece("same", "".join(ours[a:b]))
        else:
            yield Piece("removed", "".join(ours[a:b]))
            yield Piece("added", "".join(theirs[c:d]))


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many elements are the same at the beginning of both."""
    for index, (ours, theirs) in enumerate(zip(one, other, strict=False)):
        if ours != theirs:
            return index
    return min(len(one), len(other))
