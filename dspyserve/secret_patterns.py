"""How secrets look: by the names that values stand under, and by the text itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

SECRET_NAME: Final = re.compile(
    r"(?:api[-_ ]?key|authorization|(?:^|[-_])token$|access[-_]?token|refresh[-_]?token|auth[-_]?token"
    r"|secret|passw(?:or)?d|passphrase|cookie|credential|private[-_]?key)",
    re.IGNORECASE,
)
"""Names of values that are secrets, whatever they are."""

SECRET_TEXT: Final = re.compile(
    r"(?i:\bbearer\s+)[A-Za-z0-9._~+/=-]{8,}"
    r"|\bsk-[A-Za-z0-9_-]{16,}"
    r"|\bdsk_[0-9a-f]{12}\.[A-Za-z0-9_-]{16,}"
    r"|(?i:\b(?:api[-_]?key|password|passwd|secret)\s*[=:]\s*)[^\s,;&\"']{4,}"
)
"""Pieces of text that are secrets, wherever they stand."""

_HINTS: Final = ("bearer", "sk-", "dsk_", "apikey", "api_key", "api-key", "password", "passwd", "secret")
"""One of these, whatever its case, is in every text that `SECRET_TEXT` finds something in."""


def without_secrets(text: str, replacement: str) -> str:
    """`text` with `replacement` in place of what looks like a secret."""
    # The pattern takes a millisecond for 10,000 characters, and this a hundredth of that.
    folded = _folded(text)
    for hint in _HINTS:
        if hint in folded:
            return SECRET_TEXT.sub(replacement, text)
    return text


def _folded(text: str) -> str:
    """`text` such that letters are equal which are equal to a pattern that ignores the case."""
    folded = text.casefold()
    # The Turkish letters are an i to a pattern, and letters of their own to `casefold`.
    return folded if text.isascii() else folded.replace("i\u0307", "i").replace("\u0131", "i")


def secrets_in(value: Any, name: str = "") -> Iterator[str]:
    """The names, with dots between them, under which secrets stand in `value`, which is JSON."""
    if name and isinstance(value, str) and (SECRET_NAME.search(name.rpartition(".")[2]) or SECRET_TEXT.search(value)):
        yield name
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from secrets_in(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for item in value:
            yield from secrets_in(item, name)
