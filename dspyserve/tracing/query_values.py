"""The values of a search as people write them: amounts with their units, times, choices."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Final

from django.utils.dateparse import parse_date, parse_datetime
from django.utils.timezone import is_naive, make_aware
from django.utils.translation import gettext as _

from dspyserve.tracing.search import ANY_TIME, WINDOW

MAX_TEXT: Final = 500
MAX_NUMBER: Final = 10**12
DURATIONS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "min": 60_000, "h": 3_600_000}
"""Units of time in milliseconds."""
THOUSANDS: Final = {"": 1, "k": 1_000, "m": 1_000_000}
_AMOUNT: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]{1,3})?([a-z]*)", re.IGNORECASE)


def read_text(text: str) -> str:
    """A text that every database takes.

    Raises:
        ValueError: it is empty, too long, or holds what cannot be stored. As below, the message is for people.
    """
    if not text:
        raise ValueError(_("A value is needed."))
    if len(text) > MAX_TEXT:
        raise ValueError(_("At most %d characters are possible.") % MAX_TEXT)
    if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(_("It holds characters that no trace has."))
    return text


def read_duration(text: str) -> float:
    """Milliseconds."""
    return _amount(text, DURATIONS, _("such as 500ms, 2s or 1.5m"))


def read_count(text: str) -> float:
    """A whole number, also in thousands."""
    number = _amount(text, THOUSANDS, _("such as 100 or 1.5k"))
    if number != int(number):
        raise ValueError(_("%s is no whole number.") % _short(text))
    return number


def read_dollars(text: str) -> float:
    """US dollars."""
    return _amount(text.removeprefix("$").removesuffix("$"), {"": 1}, _("such as 0.01 or $2"))


def read_number(text: str) -> float:
    """Any finite number, such as a score.

    Raises:
        ValueError: it is none.
    """
    try:
        number = float(text)
    except ValueError:
        raise ValueError(_("%s is no number.") % _short(text)) from None
    if not math.isfinite(number):
        raise ValueError(_("%s is no number.") % _short(text))
    return number


def read_version(text: str) -> int:
    """The number of a version; `v3` is meant, too."""
    digits = text.removeprefix("v")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 9):
        raise ValueError(_("%s is no version such as 3.") % _short(text))
    return int(digits)


def read_window(text: str) -> str:
    """A time up to now."""
    if text == ANY_TIME or WINDOW.fullmatch(text):
        return text
    raise ValueError(_("%s is no time such as 90m, 24h, 7d or any.") % _short(text))


def read_moment(text: str) -> datetime.datetime:
    """A date or a time; without a zone it is one of the current time zone."""
    try:
        day = parse_date(text)
        moment = datetime.datetime.combine(day, datetime.time()) if day else parse_datetime(text)
        if moment is not None:
            # Not every database takes every offset from UTC.
            return (make_aware(moment) if is_naive(moment) else moment).astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError(_("%s is no time such as 2026-01-31 or 2026-01-31T12:00:00Z.") % _short(text))


def read_choice(text: str, choices: Collection[str]) -> str:
    """One of `choices`."""
    if text in choices:
        return text
    raise ValueError(
        _("%(text)s is none of %(choices)s.%(hint)s")
        % {"text": _short(text), "choices": ", ".join(choices), "hint": closest_hint(text, choices)}
    )


def closest(text: str, choices: Collection[str]) -> str | None:
    """The one of `choices` that was probably meant."""
    return next(iter(get_close_matches(text.lower(), choices, 1)), None)


def closest_hint(text: str, choices: Collection[str]) -> str:
    """A sentence that names it, with a space before; or nothing."""
    meant = closest(text, choices)
    return " " + _("Did you mean %s?") % meant if meant is not None else ""


def written_duration(milliseconds: float) -> str:
    """The shortest text that `read_duration` reads as just this."""
    return _written(milliseconds, {unit: DURATIONS[unit] for unit in ("h", "m", "s", "ms")})


def written_count(number: float) -> str:
    """Likewise for `read_count`."""
    return _written(number, {"m": 1_000_000, "k": 1_000, "": 1})


def written_number(number: float) -> str:
    """A number without a needless point."""
    return repr(int(number)) if number == int(number) and abs(number) < MAX_NUMBER else repr(float(number))


def _amount(text: str, units: Mapping[str, int], example: str) -> float:
    found = _AMOUNT.fullmatch(text)
    if found is None:
        raise ValueError(_("%(text)s is no number %(example)s.") % {"text": _short(text), "example": example})
    unit = found[3].lower()
    if unit not in units:
        known = ", ".join(filter(None, units))
        if not unit:
            raise ValueError(_("%(text)s needs a unit: %(units)s.") % {"text": _short(text), "units": known})
        wrong = _("%(unit)s is no unit here; %(example)s is possible.")
        raise ValueError(wrong % {"unit": _short(found[3]), "example": example})
    number = float(found[1] + (found[2] or "")) * units[unit]
    if number > MAX_NUMBER:
        raise ValueError(_("%s is too large.") % _short(text))
    return number


def _written(number: float, units: Mapping[str, int]) -> str:
    written = [
        written_number(number / size) + unit
        for unit, size in units.items()
        if number >= size and number / size * size == number and float(written_number(number / size)) * size == number
    ]
    last = written_number(number) + list(units)[-1]
    return min([*written, last], key=len)


def _short(text: str) -> str:
    shown = text if len(text) <= 40 else text[:39] + "…"
    return f"“{shown}”"
