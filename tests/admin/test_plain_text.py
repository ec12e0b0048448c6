"""Characters that are obeyed instead of shown."""

from __future__ import annotations

import pytest

from dspyserve.admin.plain_text import cut, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\nof two lines", "plain\ttext\nof two lines"),
        ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
        ("a\x00b\x07c\x7f", "a␀b␇c␡"),
        ("a\r\nb\rc", "a\nb␍c"),
        ("exe\u202egpj.cod", "exe[U+202E]gpj.cod"),
        ("\u2066a\u2069\u200e\u061c", "[U+2066]a[U+2069][U+200E][U+061C]"),
        ("pay\u200bload\ufeff\u2028", "pay[U+200B]load[U+FEFF][U+2028]"),
        ("\U000e0041\x9b", "[U+E0041][U+009B]"),
        ("\ud800", "[U+D800]"),
        ("héllo 😀 שלום 👩\u200d👩", "héllo 😀 שלום 👩\u200d👩"),
    ],
)
def test_they_become_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_a_cut_says_how_much_there_is() -> None:
    assert (cut("abcdef", 6).text, cut("abcdef", 6).size) == ("abcdef", 0)
    found = cut("abc\x00def", 4)
    assert (found.text, found.shown, found.size) == ("abc␀", 4, 7)
