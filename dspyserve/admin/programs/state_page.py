"""States of programs as people read them: instructions, fields and demos of each predictor, and what differs."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from dspyserve.admin.plain_text import visible
from dspyserve.programs.state import predictor_states

MAX_DEMOS: Final = 50
"""More demos of a predictor are counted, not shown."""
MAX_LENGTH: Final = 10_000
"""Longer instructions are compared line by line: by words it would take too long."""

_KNOWN: Final = frozenset({"signature", "demos", "traces", "train", "lm"})


@dataclass(frozen=True, slots=True)
class Demos:
    """A table: `rows` have a text for each of `columns`; `hidden` more are not shown."""

    columns: list[str]
    rows: list[list[str]]
    hidden: int = 0

    @property
    def count(self) -> int:
        """All of them."""
        return len(self.rows) + self.hidden


@dataclass(frozen=True, slots=True)
class Predictor:
    """What a state says of one predictor. `fields` are headings and descriptions, `rest` what else it holds."""

    name: str
    instructions: str
    fields: list[tuple[str, str]]
    demos: Demos
    rest: str


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of two texts: `mark` is `+` where only the second has it, `-` where only the first, else empty."""

    mark: str
    text: str


@dataclass(frozen=True, slots=True)
class Difference:
    """One predictor in two states. `only_first` and `only_second` are demos that the other state lacks.

    `is_in` is `-` for a predictor that only the first state has, `+` for one that only the second has, else empty.
    """

    name: str
    instructions: list[Piece]
    fields: list[tuple[str, str, str]]
    only_first: Demos
    only_second: Demos
    shared_demos: int
    is_in: str

    @property
    def is_same(self) -> bool:
        """Whether nothing differs."""
        has_pieces = any(piece.mark for piece in self.instructions)
        return not (has_pieces or self.fields or self.only_first.rows or self.only_second.rows or self.is_in)


def predictors(state: Mapping[str, Any]) -> list[Predictor]:
    """The predictors of `state`, in its order."""
    return [_predictor(name, entry) for name, entry in predictor_states(state).items()]


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    """Every predictor of two states, and how it differs."""
    olds, news = predictor_states(first), predictor_states(second)
    return [
        _difference(name, olds.get(name), news.get(name), "" if name in olds and name in news else "-+"[name in news])
        for name in dict.fromkeys([*olds, *news])
    ]


def pieces(old: str, new: str) -> list[Piece]:
    """What of two texts is the same and what is not, by words where they are not too long."""
    by_words = len(old) + len(new) < MAX_LENGTH
    before, after = (_words(text) if by_words else text.splitlines(keepends=True) for text in (old, new))
    found = []
    for kind, i, j, k, m in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind == "equal":
            found.append(Piece("", "".join(before[i:j])))
        else:
            found += [Piece("-", "".join(before[i:j])), Piece("+", "".join(after[k:m]))]
    return [piece for piece in found if piece.text]


def _words(text: str) -> list[str]:
    return re.findall(r"\S+\s*|\s+", text)


def _predictor(name: str, entry: Any) -> Predictor:
    rest = {key: value for key, value in _object(entry).items() if key not in _KNOWN and value}
    return Predictor(
        name=name,
        instructions=_instructions(entry),
        fields=_fields(entry),
        demos=demos(_demos(entry)),
        rest=json.dumps(rest, indent=2, ensure_ascii=False) if rest else "",
    )


def _difference(name: str, old: Any, new: Any, is_in: str) -> Difference:
    before, after = (dict(_fields(entry)) for entry in (old, new))
    keys = dict.fromkeys([*before, *after])
    olds, news = ({_key(demo) for demo in _demos(entry)} for entry in (old, new))
    return Difference(
        name=name,
        instructions=pieces(_instructions(old), _instructions(new)),
        fields=[(key, before.get(key, ""), after.get(key, "")) for key in keys if before.get(key) != after.get(key)],
        only_first=demos([demo for demo in _demos(old) if _key(demo) not in news]),
        only_second=demos([demo for demo in _demos(new) if _key(demo) not in olds]),
        shared_demos=len(olds & news),
        is_in=is_in,
    )


def demos(given: list[Any]) -> Demos:
    """Demos as a table. Whether a demo is `augmented`, made by an optimizer, is the last column."""
    shown = [_object(demo) for demo in given[:MAX_DEMOS]]
    columns = sorted(dict.fromkeys(name for demo in shown for name in demo), key=lambda name: name == "augmented")
    rows = [[_text(demo[name]) if name in demo else "" for name in columns] for demo in shown]
    return Demos(columns, rows, max(0, len(given) - MAX_DEMOS))


def _text(value: Any) -> str:
    return visible(value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False))


def _key(demo: Any) -> str:
    return json.dumps(demo, sort_keys=True, default=str)


def _instructions(entry: Any) -> str:
    return visible(str(_object(_object(entry).get("signature")).get("instructions") or ""))


def _fields(entry: Any) -> list[tuple[str, str]]:
    fields = _object(_object(entry).get("signature")).get("fields")
    given = [_object(field) for field in fields] if isinstance(fields, list) else []
    return [(str(field.get("prefix", "")).rstrip(": "), _description(field)) for field in given]


def _description(field: Mapping[str, Any]) -> str:
    # DSPy writes "${question}" where nobody described the field.
    text = str(field.get("description") or field.get("desc") or "")
    return "" if re.fullmatch(r"\$\{\w+\}", text) else text


def _demos(entry: Any) -> list[Any]:
    found = _object(entry).get("demos")
    return found if isinstance(found, list) else []


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
