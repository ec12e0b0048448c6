"""Values that any database takes, that fit their limits, and that hold no secret."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, Final

from django.utils.module_loading import import_string

from dspyserve.conf import settings
from dspyserve.secret_patterns import SECRET_NAME, without_secrets

MAX_DEPTH: Final = 32
MAX_ITEMS: Final = 10_000
REDACTED: Final = "[redacted]"

_MEDIA: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w=.-]+)*;base64,([A-Za-z0-9+/=\s]{64,})")
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
_SHORTEST_SECRET: Final = 8
_ALTERED: Final = re.compile(
    r"… \[\d+ (?:bytes|KB) of \d+ (?:bytes|KB)\]$|^\[nested deeper than \d+ levels\]$|^\[\d+ more\]$"
    r"|\[redacted\]|\[[\w.+-]+/[\w.+-]+, \d+ (?:bytes|KB), sha256 [0-9a-f]{16}\]"
)
"""What is put in the place of what is not kept."""


@dataclass(slots=True)
class Sanitizer:
    """Sanitises the values of one trace, and counts what it had to cut from it."""

    field_limit: int = field(default_factory=lambda: settings().trace_field_limit)
    budget: int = field(default_factory=lambda: settings().trace_limit)
    cut_fields: int = 0
    cut_bytes: int = 0

    def clean(self, value: Any, key: str = "") -> Any:
        """A copy of `value`, which is plain data, as it may be stored under `key`."""
        return self._clean(value, key, 0, mask())

    @property
    def facts(self) -> dict[str, int]:
        """What was cut: how many fields and bytes. Empty where nothing was."""
        return {"fields": self.cut_fields, "bytes": self.cut_bytes} if self.cut_fields else {}

    def _clean(self, value: Any, key: str, depth: int, masked: Mask | None) -> Any:
        if masked is not None:
            value = masked(key, value)
        if value is not None and key and SECRET_NAME.search(key) and not isinstance(value, bool | int | float):
            return REDACTED
        if isinstance(value, str):
            return self._text(value)
        if value is None or isinstance(value, bool | int):
            return self._integer(value)
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if depth >= MAX_DEPTH:
            return self._cut(f"[nested deeper than {MAX_DEPTH} levels]", 0)
        if isinstance(value, Mapping):
            return self._object(value, depth, masked)
        if isinstance(value, list | tuple | set | frozenset):
            return self._array(list(value), key, depth, masked)
        return self._text(str(value))

    def _object(self, value: Mapping[Any, Any], depth: int, masked: Mask | None) -> dict[str, Any]:
        items = list(value.items())[:MAX_ITEMS]
        cleaned = {name: self._clean(item, name, depth + 1, masked) for name, item in self._named(items)}
        if len(value) > len(items):
            cleaned["…"] = self._cut(f"[{len(value) - len(items)} more]", 0)
        return cleaned

    def _named(self, items: list[tuple[Any, Any]]) -> list[tuple[str, Any]]:
        return [(clean_text(str(name))[:1_000], item) for name, item in items]

    def _array(self, value: list[Any], key: str, depth: int, masked: Mask | None) -> list[Any]:
        cleaned = [self._clean(item, key, depth + 1, masked) for item in value[:MAX_ITEMS]]
        if len(value) > MAX_ITEMS:
            cleaned.append(self._cut(f"[{len(value) - MAX_ITEMS} more]", 0))
        return cleaned

    def _text(self, text: str) -> str:
        text = clean_text(text)
        size = len(text) if text.isascii() else len(text.encode())
        limit = min(self.field_limit, self.budget)
        if size > limit:
            kept = text.encode()[:limit].decode("utf-8", "ignore")
            self.budget -= len(kept)
            return self._cut(f"{kept}… [{_kilobytes(limit)} of {_kilobytes(size)}]", size - limit)
        self.budget -= size
        return text

    def _cut(self, text: str, lost: int) -> str:
        self.cut_fields += 1
        self.cut_bytes += lost
        return text

    @staticmethod
    def _integer(value: int | bool | None) -> int | bool | str | None:
        # SQLite reads JSON integers as 64 bits; a longer one would come back as another number.
        return value if value is None or -(2**63) <= value < 2**63 else str(value)


def is_altered(value: Any) -> bool:
    """Whether a stored value shows that something of it was cut, hidden or named instead of kept."""
    if isinstance(value, str):
        return _ALTERED.search(value) is not None
    if isinstance(value, Mapping):
        return any(is_altered(item) for item in value.values())
    return isinstance(value, list) and any(is_altered(item) for item in value)


def clean_text(text: str) -> str:
    """`text` without what databases refuse, without secrets and with embedded media named instead of kept."""
    if not text.isprintable():
        text = _UNSTORABLE.sub("", text)
    if len(text) < _SHORTEST_SECRET:
        return text
    if ";base64," in text:
        text = _MEDIA.sub(_name_media, text)
    for secret in secrets():
        if secret in text:
            text = text.replace(secret, REDACTED)
    return without_secrets(text, REDACTED)


Mask = Callable[[str, Any], Any]


def mask() -> Mask | None:
    """The function that the setting `TRACE_MASK` names."""
    return _import_mask(settings().trace_mask) if settings().trace_mask else None


@cache
def _import_mask(path: str) -> Mask:
    found: Mask = import_string(path)
    return found


def secrets() -> tuple[str, ...]:
    """The values of all environment variables that language models may take their keys from."""
    return _secrets(settings().api_key_env)


@cache
def _secrets(patterns: tuple[str, ...]) -> tuple[str, ...]:
    found = {value for name, value in os.environ.items() if any(fnmatchcase(name, pattern) for pattern in patterns)}
    return tuple(sorted((value for value in found if len(value) >= _SHORTEST_SECRET), key=len, reverse=True))


def _name_media(match: re.Match[str]) -> str:
    kind, encoded = match.group(1) or "application/octet-stream", match.group(2)
    digest = hashlib.sha256(encoded.encode()).hexdigest()[:16]
    return f"[{kind}, {_kilobytes(len(encoded) * 3 // 4)}, sha256 {digest}]"


def _kilobytes(size: int) -> str:
    return f"{size} bytes" if size < 1024 else f"{size // 1024} KB"
