"""Inputs and outputs as named texts, for pages that show many of them: bounded, and harmless for the eye."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.utils.translation import gettext as _

from dspyserve.admin.plain_text import cut
from dspyserve.admin.traces.payloads import UNREADABLE
from dspyserve.admin.traces.raw import as_text

MAX_FIELDS: Final = 50
"""More fields are counted alone."""
MAX_TEXT: Final = 20_000
"""Characters of one field."""


@dataclass(frozen=True, slots=True)
class FieldText:
    """The text of one field, whose `name` is empty for what stands in none.

    `size` is the length of all of it where only the beginning is here, else 0. `turns` counts the messages of a
    conversation's history, which is long and repeats what stands above it; None for anything else.
    """

    name: str
    text: str
    size: int = 0
    turns: int | None = None


def field_texts(value: Any, limit: int = MAX_TEXT) -> list[FieldText]:
    """An object as its fields, anything else as one; nothing for nothing."""
    if value is None or value == {}:
        return []
    if value is UNREADABLE:
        return [FieldText("", _("This nests too deep to be shown here."))]
    return list(_fields(value if isinstance(value, Mapping) else {"": value}, limit))


def _fields(value: Mapping[str, Any], limit: int) -> Iterator[FieldText]:
    for name, item in list(value.items())[:MAX_FIELDS]:
        shown = cut(as_text(item), limit)
        yield FieldText(cut(str(name), 200).text, shown.text, shown.size, _turns(item))
    if len(value) > MAX_FIELDS:
        yield FieldText("…", f"+{len(value) - MAX_FIELDS}")


def _turns(value: Any) -> int | None:
    if isinstance(value, Mapping) and set(value) == {"messages"} and isinstance(value["messages"], list):
        return len(value["messages"])
    return None
