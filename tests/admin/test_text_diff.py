"""What changed from one text to another."""

from __future__ import annotations

import random
import time

import pytest

from dspyserve.admin.traces.text_diff import Piece, Work, difference


def test_words_are_compared_not_letters() -> None:
    assert difference("the quick brown fox", "the slow brown fox") == [
        Piece("same", "the "),
        Piece("removed", "quick"),
        Piece("added", "slow"),
        Piece("same", " brown fox"),
    ]


@pytest.mark.parametrize(
    ("one", "other", "kinds"),
    [
        ("", "", []),
        ("a", "a", ["same"]),
        ("", "a", ["added"]),
        ("a", "", ["removed"]),
        ("a b", "a  b", ["same", "removed", "added", "same"]),
        ("colour, please", "colour please", ["same", "removed", "same"]),
    ],
)
def test_kinds(one: str, other: str, kinds: list[str]) -> None:
    assert [piece.kind for piece in difference(one, other)] == kinds


@pytest.mark.parametrize("seed", range(20))
def test_pieces_make_up_both_texts(seed: int) -> None:
    chance = random.Random(seed)
    one, other = ("".join(chance.choices("ab \n.ü👋\u202e<&", k=chance.randrange(200))) for _ in range(2))
    pieces = difference(one, other)
    assert "".join(piece.text for piece in pieces if piece.kind != "added") == one
    assert "".join(piece.text for piece in pieces if piece.kind != "removed") == other


def test_long_texts_are_compared_by_lines_and_longer_ones_as_a_whole() -> None:
    lines = [f"line {number} of some words" for number in range(500)]
    changed = [f"{line}!" if number % 2 else line for number, line in enumerate(lines)]
    by_lines = difference("\n".join(lines), "\n".join(changed))
    assert {piece.text.count("line") for piece in by_lines if piece.kind == "removed"} == {1}
    assert all(piece.text.endswith(("words\n", "words")) for piece in by_lines if piece.kind == "removed")
    whole = difference("a\nb " * 5_000, "b\na " * 5_000)
    assert [piece.kind for piece in whole] == ["removed", "added"]


def test_a_page_does_so_much_and_no_more() -> None:
    work = Work(left=100)
    assert len(difference("a b c d", "d c b a", work)) > 2
    assert [piece.kind for piece in difference("a b c d e", "e d c b a", work)] == ["removed", "added"]


def test_the_worst_texts_take_no_time_to_speak_of() -> None:
    chance = random.Random(1)
    one, other = (" ".join(chance.choices("abcdefghij", k=5_000)) for _ in range(2))
    work = Work()
    start = time.thread_time()
    for _ in range(50):
        difference(one[:990], other[:990], work)
        difference(one, other, work)
    assert time.thread_time() - start < 5
