"""The payload of a span as the database holds it: read as text and decoded here, however deep it nests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.db.models import TextField
from django.db.models.functions import Cast

from dspyserve.encoding import decode
from dspyserve.errors import MalformedBody
from dspyserve.models import Span, SpanPayload

COLUMNS: Final = ("inputs", "outputs", "messages", "attributes")


MAX_POSITION: Final = 9_999_999
"""Of a child within its parent."""


class Unreadable:
    """Stands for a column whose JSON nests deeper than any parser goes; its text can still be had."""


UNREADABLE: Final = Unreadable()


@dataclass(frozen=True, slots=True)
class Payload:
    """What went into a span and what came out: JSON values, each None where nothing was kept, or `UNREADABLE`."""

    inputs: Any = None
    outputs: Any = None
    messages: Any = None
    attributes: Any = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all was kept."""
        return all(getattr(self, name) in (None, {}) for name in COLUMNS)

    def column(self, name: str) -> Any:
        """One of `COLUMNS`."""
        return getattr(self, name)


def read(*spans: Span) -> dict[int, Payload]:
    """The payloads of `spans` by the primary keys of these, without those that have none. One query."""
    # Django's own decoding stops with a RecursionError at values that databases take.
    texts = _as_texts(COLUMNS)
    rows = SpanPayload.objects.filter(pk__in={span.pk for span in spans}).annotate(**texts).values_list("pk", *texts)
    return {pk: Payload(*map(_decoded, columns)) for pk, *columns in rows}


def text_of(span: Span, column: str) -> str:
    """A column of the payload as the JSON text that the database holds; empty where there is none. One query."""
    texts = _as_texts((column,))
    found = SpanPayload.objects.filter(pk=span.pk).annotate(**texts).values_list(*texts, flat=True).first()
    return found or ""


def at(payload: Payload, address: str) -> Any:
    """The value at `address`: a column, then the positions of what lies within, such as `outputs.0.2`.

    Positions, not names: names may be of any length and hold anything.

    Raises:
        LookupError: there is nothing there.
    """
    column, *positions = address.split(".")
    if column not in COLUMNS:
        raise LookupError(address)
    value = payload.column(column)
    for position in positions:
        if not position.isdecimal() or len(position) > len(str(MAX_POSITION)):
            raise LookupError(address)
        value = _child(value, int(position))
    return value


def _child(value: Any, position: int) -> Any:
    if isinstance(value, Mapping):
        value = list(value.values())
    if not isinstance(value, list):
        raise LookupError(position)
    return value[position]


def _as_texts(columns: tuple[str, ...]) -> dict[str, Cast]:
    return {f"{name}_text": Cast(name, TextField()) for name in columns}


def _decoded(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return decode(text)
    except MalformedBody:
        return UNREADABLE
