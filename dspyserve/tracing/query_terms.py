"""The words of the search language: `key:value`, `key>value`, `meta.name=value`, `"quoted text"`, and minus signs.

Here they are told apart and written; `query_language` knows what they mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from django.utils.translation import gettext as _

from dspyserve.errors import Fault, InvalidInput

NAMED: Final = {"meta": ".", "feedback": ":"}
"""Keys that a name belongs to, and what stands before the name."""

_KEY: Final = re.compile(r"([A-Za-z_]+)(?=[.:=<>])")
_OPERATOR: Final = re.compile(r":?(>=|<=|>|<|=)|:")
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_NAME: Final = re.compile(r'[^\s":=<>]+')
_WORD: Final = re.compile(r"\S+")
_PLAIN: Final = re.compile(r'[^\s":=<>\\]+')
_PLAIN_VALUE: Final = re.compile(r'[^\s":=<>\\][^\s"\\]*')


class TermError(ValueError):
    """One word of a search cannot be understood. Do not raise it directly. `term` is the word as it was written."""

    def __init__(self, term: str, message: str) -> None:
        self.term = term
        self.message = message
        super().__init__(message)


class UnclosedQuote(TermError):
    """A quotation mark has no other."""


class UnknownKey(TermError):
    """Nothing of a trace has this name; `closest` is the one that was probably meant."""

    def __init__(self, term: str, message: str, closest: str | None) -> None:
        super().__init__(term, message)
        self.closest = closest


class BadValue(TermError):
    """What stands after the key is not what it takes."""


class Repeated(TermError):
    """A second word says something else than the first."""


class UnreadableSearch(InvalidInput):
    """A search that is not understood; `errors` are all that is wrong with it, in the order of its words."""

    def __init__(self, errors: list[TermError]) -> None:
        self.errors = tuple(errors)
        super().__init__([Fault("/query/q", f"{error.term}: {error.message}") for error in errors])


@dataclass(frozen=True, slots=True)
class Term:
    """One word. Free text has no key; `name` is that of the metadata or of the feedback."""

    key: str
    value: str
    operator: str = ":"
    name: str = ""
    is_quoted: bool = False
    is_negated: bool = False

    def __str__(self) -> str:
        minus = "-" if self.is_negated else ""
        if not self.key:
            is_plain = _PLAIN.fullmatch(self.value) and not self.value.startswith("-") and not self.is_quoted
            return minus + (self.value if is_plain else _quote(self.value))
        is_plain = not self.operator or (_PLAIN_VALUE.fullmatch(self.value) and not self.is_quoted)
        value = self.value if is_plain else _quote(self.value)
        return f"{minus}{self.key}{self._written_name()}{self.operator}{value}"

    def _written_name(self) -> str:
        if not self.name:
            return ""
        return NAMED[self.key] + (self.name if _PLAIN.fullmatch(self.name) else _quote(self.name))


def read_terms(text: str) -> Iterator[Term]:
    """The words of `text`.

    Raises:
        UnclosedQuote: a quotation mark has no other.
        BadValue: a word breaks off.
    """
    place = 0
    while place < len(text):
        if text[place].isspace():
            place += 1
        else:
            term, place = _read(text, place)
            yield term


def _read(text: str, start: int) -> tuple[Term, int]:
    is_negated = text[start] == "-" and text[start + 1 : start + 2].strip() != ""
    begin = start + is_negated
    found = _KEY.match(text, begin)
    if found is not None and not text.startswith("://", found.end()):
        key = found[1].lower()
        name, place = _named(key, text, found.end())
        if (operator := _OPERATOR.match(text, place)) is not None:
            value, is_quoted, end = _value(text, operator.end())
            return Term(key, value, operator[1] or ":", name, is_quoted, is_negated), end
        if name and key == "feedback":
            # Feedback may be asked for without anything said of it.
            return Term(key, "", "", name, False, is_negated), place
    value, is_quoted, end = _value(text, begin)
    return Term("", value, "", "", is_quoted, is_negated), end


def _named(key: str, text: str, place: int) -> tuple[str, int]:
    if key not in NAMED or not text.startswith(NAMED[key], place):
        return "", place
    if text.startswith('"', place + 1):
        name, _is_quoted, end = _value(text, place + 1)
        return name, end
    found = _NAME.match(text, place + 1)
    return (found[0], found.end()) if found is not None else ("", place)


def _value(text: str, place: int) -> tuple[str, bool, int]:
    if text.startswith('"', place):
        quoted = _QUOTED.match(text, place)
        if quoted is None:
            raise UnclosedQuote(text[place:], _("The quotation mark has no other."))
        return re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL), True, quoted.end()
    word = _WORD.match(text, place)
    return (word[0], False, word.end()) if word is not None else ("", False, place)


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
