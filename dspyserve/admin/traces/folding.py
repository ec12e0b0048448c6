"""The texts that DSPy's adapters write and read, taken apart into the fields that they are made of."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from dspyserve.encoding import decode
from dspyserve.errors import MalformedBody

_MARKER: Final = re.compile(r"^\[\[ ## (\w{1,200}) ## \]\][ \t]*\n?", re.MULTILINE)
_CLOSING: Final = "completed"
_LISTED: Final = re.compile(r"^\d{1,4}\. `(\w{1,200})` ?\(", re.MULTILINE)
"""How the system's message lists the fields of a signature."""
_DEMAND: Final = re.compile(r"^Respond with (?:the corresponding output fields|a JSON object in)[ ,]", re.MULTILINE)
"""How the adapters end the last message of the user."""
_OBJECTIVE: Final = "your objective is:"
_FENCED: Final = re.compile(r"\A```(?:json)?[ \t]*\n(.*)\n```\Z", re.DOTALL)
_TAG: Final = re.compile(r"\s*<(\w{1,200})>")
MAX_LENGTH: Final = 200_000
"""Characters of the longest text that is taken apart: of longer ones only the beginning is shown anyhow."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a message: a field's `value` under its `name`, or text outside of any, whose name is empty.

    `is_demand` is what an adapter adds to ask for its format.
    """

    name: str
    value: Any
    is_demand: bool = False


def names_in(system: str) -> frozenset[str]:
    """The fields that a system message announces."""
    return frozenset(_LISTED.findall(system))


def objective_in(system: str) -> str:
    """The signature's instructions within a system message; empty where there are none."""
    _, _, objective = system.rpartition(_OBJECTIVE)
    return "\n".join(line.strip() for line in objective.strip().splitlines()) if _OBJECTIVE in system else ""


def folded(text: str, names: frozenset[str] = frozenset()) -> list[Piece]:
    """`text` as the fields that it is made of, in the format of whichever adapter wrote it; else in one piece.

    XML is taken for an adapter's only where its tags are among `names`: a text about HTML stays a text.
    """
    if len(text) > MAX_LENGTH:
        return [Piece("", text)]
    demand = _DEMAND.search(text)
    body = text[: demand.start()] if demand else text
    pieces = (
        _by_markers(body) or _by_json(body) or _by_tags(body, names) or [Piece("", body.strip() if demand else text)]
    )
    pieces = [piece for piece in pieces if piece.name or piece.value != ""]
    return [*pieces, Piece("", text[demand.start() :].strip(), is_demand=True)] if demand else pieces


def _by_markers(text: str) -> list[Piece]:
    start, *rest = _MARKER.split(text)
    if not rest:
        return []
    found = [Piece("", start.strip())]
    for name, body in zip(rest[::2], rest[1::2], strict=True):
        if name != _CLOSING or body.strip():
            found.append(Piece("" if name == _CLOSING else name, _value(body.strip())))
    return found


def _by_json(text: str) -> list[Piece]:
    text = text.strip()
    fenced = _FENCED.match(text)
    text = fenced[1].strip() if fenced else text
    value = _value(text) if text.startswith("{") else None
    return [Piece(str(name), item) for name, item in value.items()] if isinstance(value, Mapping) else []


def _value(text: str) -> Any:
    """What `text` is JSON of, where that is an object or an array; else the text."""
    if not text.startswith(("{", "[")):
        return text
    try:
        return decode(text)
    except MalformedBody:
        return text


def _by_tags(text: str, names: frozenset[str]) -> list[Piece]:
    found = list(_tags(text, names))
    return [] if None in found else [piece for piece in found if piece is not None]


def _tags(text: str, names: frozenset[str]) -> Iterator[Piece | None]:
    """Elements side by side; None where there is anything else."""
    position = 0
    while match := _TAG.match(text, position):
        name = match[1]
        end = text.find(f"</{name}>", match.end()) if name in names else -1
        if end < 0:
            yield None
            return
        yield Piece(name, _value(text[match.end() : end].strip()))
        position = end + len(name) + 3
    if text[position:].strip():
        yield None
