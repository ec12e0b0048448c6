"""Hostile text made harmless for the eye: what would hide, reorder or fake what stands on a page becomes visible.

Escaping for HTML is the templates' part; this is about characters that a browser obeys in plain text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_UNSEEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls but for tab and newline; ESC begins the colours of terminals
    "\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff"  # bidirectional controls, and spaces without width
    "\ud800-\udfff"  # lone surrogates, which have no bytes to be sent as
    "\U000e0000-\U000e007f]"  # tags: letters that models read and people do not see
)
_PICTURES: Final = 0x2400
"""Where Unicode begins its pictures of the control characters 0 to 31."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The beginning of a text, made visible: `shown` of its `size` characters; `size` is 0 where nothing was cut."""

    text: str
    shown: int = 0
    size: int = 0


NOTHING: Final = Cut("")
"""No text at all."""


def visible(text: str) -> str:
    """`text` with a sign in place of every character that is obeyed instead of shown."""
    if text.isascii() and text.isprintable():
        return text
    return _UNSEEN.sub(_sign, text.replace("\r\n", "\n"))


def cut(text: str, limit: int) -> Cut:
    """At most `limit` characters of `text`, made visible."""
    return Cut(visible(text[:limit]), min(len(text), limit), len(text) if len(text) > limit else 0)


def _sign(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(_PICTURES + code)
    return "\u2421" if code == 0x7F else f"[U+{code:04X}]"
