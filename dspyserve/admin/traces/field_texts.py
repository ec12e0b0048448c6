"""Inputs and outputs as named texts, for pages that show many of them: bounded, and harmless for the eye."""

from __future__ import annotations

from collections.abc import Mapping
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
    named = by_name(value)
    found = [field_text(name, item, limit) for name, item in list(named.items())[:MAX_FIELDS]]
    return [*found, left_out(len(named) - MAX_FIELDS)] if len(named) > MAX_FIELDS else found


def by_name(value: Any) -> Mapping[str, Any]:
    """An object as it is, anything else under the empty name; nothing for nothing."""
    return {} if value is None else value if isinstance(value, Mapping) else {"": value}


def field_text(name: str, value: Any, limit: int = MAX_TEXT) -> FieldText:
    """One field with at most `limit` characters of its text."""
    name = cut(str(name), 200).text
    if value is UNREADABLE:
        return FieldText(name, _("This nests too deep to be shown here."))
    shown = cut(as_text(value), limit)
    return FieldText(name, shown.text, shown.size, _turns(value))


def left_out(count: int) -> FieldText:
    """What stands in place of `count` more fields."""
    return FieldText("…", f"+{count}")


def _turns(value: Any) -> int | None:
    if isinstance(value, Mapping) and set(value) == {"messages"} and isinstance(value["messages"], list):
        return len(value["messages"])
    return None
