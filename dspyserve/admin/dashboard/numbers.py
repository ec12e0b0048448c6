"""Sums and parts as people read them; a dash where nobody knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.utils.formats import number_format
from django.utils.translation import gettext as _

UNKNOWN: Final = "–"
_UNITS: Final = ((1e9, "G"), (1e6, "M"), (1e4, "k"))


@dataclass(frozen=True, slots=True)
class Change:
    """How a figure differs from that of the window before."""

    text: str
    mood: str
    """`good`, `bad` or `even`."""
    before: str


def count(number: float | None) -> str:
    """A whole number, from ten thousand on in thousands, millions and so on."""
    if number is None:
        return UNKNOWN
    for size, unit in _UNITS:
        if number >= size:
            scaled = number / (1e3 if unit == "k" else size)
            return f"{_plain(scaled, 0 if scaled >= 100 else 1)}{unit}"
    return str(number_format(round(number), force_grouping=True))


def dollars(amount: float | None, *, unpriced: int = 0) -> str:
    """An amount of money; at least this much where `unpriced` traces cost nobody knows what."""
    if amount is None:
        return UNKNOWN
    least = "≥ " if unpriced else ""
    if amount >= 10_000:
        return f"{least}${count(amount)}"
    if 0 < amount < 0.0001:
        return f"{least}<${number_format(0.0001)}"
    return f"{least}${number_format(amount, 2 if amount >= 0.1 or amount == 0 else 4)}"


def mark(number: float, unit: str = "") -> str:
    """A round number beside an axis."""
    return f"{unit}{_plain(number, 4)}" if number < 10_000 else f"{unit}{count(number)}"


def time_mark(milliseconds: float) -> str:
    """A round time beside an axis."""
    for size, unit in ((60_000, "min"), (1_000, "s"), (1, "ms")):
        if milliseconds >= 2 * size or (unit != "min" and milliseconds >= size):
            return f"{_plain(milliseconds / size, 2)} {unit}"
    return "0" if milliseconds == 0 else f"{_plain(milliseconds, 3)} ms"


def share(part: float, whole: float) -> str:
    """A part in per cent."""
    if not whole:
        return UNKNOWN
    percent = 100 * part / whole
    return _("%s %%") % number_format(percent, 0 if percent >= 10 or percent == 0 else 1)


def change(now: float | None, before: float | None, shown: str, *, more_is: str = "even") -> Change | None:
    """The difference in per cent, where `more_is` what more of it means; None where there is nothing to compare."""
    if now is None or not before:
        return None
    percent = round(100 * (now - before) / before)
    text = "±0 %" if percent == 0 else f"{'+' if percent > 0 else '−'}{number_format(abs(percent), 0)} %"
    return Change(text, _mood(percent, more_is), shown)


def points(now: tuple[int, int], before: tuple[int, int]) -> Change | None:
    """The difference of two parts of wholes, in percentage points; more is worse."""
    if not now[1] or not before[1]:
        return None
    difference = round(100 * (now[0] / now[1] - before[0] / before[1]), 1)
    sign = "±" if difference == 0 else "+" if difference > 0 else "−"
    text = _("%s points") % f"{sign}{number_format(abs(difference), 1 if difference else 0)}"
    return Change(text, _mood(difference, "bad"), share(*before))


def _mood(difference: float, more_is: str) -> str:
    if difference == 0 or more_is == "even":
        return "even"
    return more_is if difference > 0 else {"bad": "good", "good": "bad"}[more_is]


def _plain(number: float, digits: int) -> str:
    """With at most so many digits behind the point, and none of them a zero at the end."""
    rounded = round(number, digits)
    needed = next(places for places in range(digits + 1) if round(rounded, places) == rounded)
    return str(number_format(rounded, needed))
