"""Rows that commands make or change, so that running a command twice changes nothing the second time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError
from django.db.models import Model

from dspyserve.models import Program


def save(row: Model, values: Mapping[str, Any]) -> str:
    """Set `values` on `row`, validate and save it; says `created`, `updated` or `unchanged`.

    Raises:
        CommandError: in one line, where a value is refused.
    """
    is_new = row._state.adding
    changed = {name: value for name, value in values.items() if getattr(row, name) != value}
    if not is_new and not changed:
        return "unchanged"
    for name, value in changed.items():
        setattr(row, name, value)
    try:
        row.full_clean()
    except ValidationError as error:
        raise CommandError(_one_line(error)) from None
    row.save()
    return "created" if is_new else "updated"


def given(options: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The options that were given, by the names of the columns: `names` maps options to columns."""
    return {column: options[option] for option, column in names.items() if options.get(option) is not None}


def seconds(text: str) -> float:
    """The argument of a time limit.

    Raises:
        CommandError: it is no number, or one that never ends.
    """
    try:
        if math.isfinite(number := float(text)):
            return number
    except ValueError:
        pass
    raise CommandError(f"{text!r} is no number of seconds")


def _one_line(error: ValidationError) -> str:
    parts = [f"{name}: {' '.join(messages)}" for name, messages in error.message_dict.items()]
    return "; ".join(parts).replace("__all__: ", "")


def program_row(name: str) -> Program:
    """The program of this name.

    Raises:
        CommandError: there is none.
    """
    row = Program.objects.filter(name=name).first()
    if row is None:
        known = ", ".join(Program.objects.order_by("name").values_list("name", flat=True))
        raise CommandError(f"there is no program named {name!r}; there are: {known or 'none'}")
    return row
