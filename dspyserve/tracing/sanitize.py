"""Values that any database takes, that fit their limits, and that hold no secret."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from typing import Any, Final

from django.utils.module_loading import import_string

from dspyserve.conf import settings
from dspyserve.events import Constant
from dspyserve.secret_patterns import SECRET_NAME, without_secrets

MAX_DEPTH: Final = 32
MAX_ITEMS: Final = 10_000
_ENDLESS: Final = 2**62
"""A limit of texts, in bytes, that none exceeds."""
REDACTED: Final = "[redacted]"

_MEDIA: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w=.-]+)*;base64,([A-Za-z0-9+/=\s]{64,})")
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
_SHORTEST_SECRET: Final = 8
_KNOWN_NAMES: Final = 4_096
_LONGEST_KNOWN_NAME: Final = 64
"""How many names are remembered, and how long they may be, so that clients cannot fill the memory with them."""
_CUT: Final = re.compile(
    r"… \[\d+ (?:bytes|KB) of \d+ (?:bytes|KB)\]$|^\[nested deeper than \d+ levels\]$|^\[\d+ more\]$"
)
_HIDDEN: Final = re.compile(r"\[redacted\]")
_NAMED: Final = re.compile(r"\[[\w.+-]+/[\w.+-]+, \d+ (?:bytes|KB), sha256 [0-9a-f]{16}\]")
"""What is put in the place of what is not kept: of what is too long, of secrets, and of media."""


class Sanitizer:
    """Sanitises the values of one trace, and counts what it had to cut from it.

    The same text stands in a trace several times, in the inputs of the run, of its modules, in prompts and outputs:
    what became of it is remembered, and the pieces of one trace share that memory.
    """

    __slots__ = ("_mask", "_names", "_secrets", "_texts", "budget", "cut_bytes", "cut_fields", "field_limit")

    def __init__(self, field_limit: int | None = None, budget: int | None = None) -> None:
        """`field_limit` is the largest text, and `budget` what all of them together may take, in bytes.

        Without them the settings `TRACE_FIELD_LIMIT` and `TRACE_LIMIT` say.
        """
        self.field_limit = settings().trace_field_limit if field_limit is None else field_limit
        self.budget = settings().trace_limit if budget is None else budget
        self.cut_fields = 0
        self.cut_bytes = 0
        self._mask = mask()
        self._secrets = secrets()
        self._names = _names(self._secrets)
        self._texts: dict[str, tuple[str, int]] = {}

    def sibling(self, *, field_limit: int, budget: int) -> Sanitizer:
        """Another one for texts of the same trace, with limits of its own."""
        other = Sanitizer(field_limit, budget)
        other._texts = self._texts
        return other

    def clean(self, value: Any, key: str = "") -> Any:
        """A copy of `value`, which is plain data, as it may be stored under `key`."""
        return self._clean(value, key, key != "" and self._name(key)[1], 0)

    def clean_name(self, name: str) -> str:
        """`name`, which stands in many traces, as it may be stored."""
        return self._name(name)[0]

    @property
    def facts(self) -> dict[str, int]:
        """What was cut: how many fields and bytes. Empty where nothing was."""
        return {"fields": self.cut_fields, "bytes": self.cut_bytes} if self.cut_fields else {}

    def _clean(self, value: Any, key: str, is_secret: bool, depth: int) -> Any:
        if self._mask is not None:
            value = self._mask(key, value)
        # What there is most of, before the questions that take time.
        kind = type(value)
        if kind is str:
            return REDACTED if is_secret else self._text(value)
        if value is None or kind is bool:
            return value
        if depth < MAX_DEPTH and not is_secret:
            if kind is dict:
                return self._object(value, depth + 1)
            if kind is list:
                return self._array(value, key, depth + 1)
            if kind is Constant:
                return self._constant(value, depth)
        return self._clean_rare(value, key, is_secret, depth)

    def _clean_rare(self, value: Any, key: str, is_secret: bool, depth: int) -> Any:
        if isinstance(value, int):
            return self._integer(value)
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if is_secret:
            return REDACTED
        if isinstance(value, str):
            return self._text(value)
        if depth >= MAX_DEPTH:
            return self._cut(f"[nested deeper than {MAX_DEPTH} levels]", 0)
        if isinstance(value, Mapping):
            return self._object(value, depth + 1)
        if isinstance(value, list | tuple | set | frozenset):
            return self._array(list(value), key, depth + 1)
        return self._text(str(value))

    def _constant(self, value: Constant, depth: int) -> dict[str, Any]:
        """What became of `value` is remembered with it, unless something had to be cut, which is each trace's own."""
        if self._mask is not None:
            return self._object(value, depth + 1)
        known: tuple[Any, dict[str, Any], int] | None = getattr(value, "cleaned", None)
        if known is None or known[0] is not self._secrets:
            # As deep as anything that holds it here, and never cut.
            whole = self.sibling(field_limit=_ENDLESS, budget=_ENDLESS)
            known = value.cleaned = self._secrets, whole._object(value, depth + 1), _ENDLESS - whole.budget
        _, cleaned, size = known
        if size > min(self.field_limit, self.budget):
            return self._object(value, depth + 1)
        self.budget -= size
        return cleaned

    def _object(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        cleaned = {}
        for given, item in value.items() if len(value) <= MAX_ITEMS else list(value.items())[:MAX_ITEMS]:
            name, is_secret = self._name(given if type(given) is str else str(given))
            cleaned[name] = self._clean(item, name, is_secret, depth)
        if len(value) > MAX_ITEMS:
            cleaned["…"] = self._cut(f"[{len(value) - MAX_ITEMS} more]", 0)
        return cleaned

    def _array(self, value: list[Any], key: str, depth: int) -> list[Any]:
        # Under a secret name there would be no array.
        cleaned = [self._clean(item, key, False, depth) for item in value[:MAX_ITEMS]]
        if len(value) > MAX_ITEMS:
            cleaned.append(self._cut(f"[{len(value) - MAX_ITEMS} more]", 0))
        return cleaned

    def _name(self, name: str) -> tuple[str, bool]:
        """A name as it may be stored, and whether what stands under it is a secret."""
        known = self._names.get(name)
        if known is None:
            cleaned = _cleaned(name, self._secrets)[:1_000]
            known = cleaned, SECRET_NAME.search(cleaned) is not None
            if len(name) <= _LONGEST_KNOWN_NAME:
                if len(self._names) >= _KNOWN_NAMES:
                    self._names.clear()
                self._names[name] = known
        return known

    def _text(self, text: str) -> str:
        known = self._texts.get(text)
        if known is None:
            cleaned = _cleaned(text, self._secrets)
            known = self._texts[text] = cleaned, len(cleaned) if cleaned.isascii() else len(cleaned.encode())
        cleaned, size = known
        if size <= self.field_limit and size <= self.budget:
            self.budget -= size
            return cleaned
        limit = min(self.field_limit, self.budget)
        kept = cleaned.encode()[:limit].decode("utf-8", "ignore")
        self.budget -= len(kept)
        return self._cut(f"{kept}… [{_kilobytes(limit)} of {_kilobytes(size)}]", size - limit)

    def _cut(self, text: str, lost: int) -> str:
        self.cut_fields += 1
        self.cut_bytes += lost
        return text

    @staticmethod
    def _integer(value: int) -> int | str:
        # SQLite reads JSON integers as 64 bits; a longer one would come back as another number.
        return value if -(2**63) <= value < 2**63 else str(value)


def is_altered(value: Any) -> bool:
    """Whether a stored value shows that something of it was cut, hidden or named instead of kept."""
    return _shows(value, (_CUT, _HIDDEN, _NAMED))


def is_cut(value: Any) -> bool:
    """Whether a stored value shows that it was too long to be kept."""
    return _shows(value, (_CUT,))


def names_media(value: Any) -> bool:
    """Whether a stored value names images or the like that were not kept."""
    return _shows(value, (_NAMED,))


def _shows(value: Any, marks: tuple[re.Pattern[str], ...]) -> bool:
    # No recursion: rows that were not written here may nest deeper than Python's stack.
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            if any(mark.search(item) for mark in marks):
                return True
        elif isinstance(item, Mapping):
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
    return False


def clean_text(text: str) -> str:
    """`text` without what databases refuse, without secrets and with embedded media named instead of kept."""
    return _cleaned(text, secrets())


def _cleaned(text: str, secrets: tuple[str, ...]) -> str:
    text = _storable(text)
    if len(text) < _SHORTEST_SECRET:
        return text
    if ";base64," in text:
        text = _MEDIA.sub(_name_media, text)
    for secret in secrets:
        if secret in text:
            text = text.replace(secret, REDACTED)
    return without_secrets(text, REDACTED)


def _storable(text: str) -> str:
    # The pattern looks at every character, and takes fifty times as long as these two.
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return _UNSTORABLE.sub("", text)
    return text.replace("\x00", "") if "\x00" in text else text


@lru_cache(maxsize=8)
def _names(secrets: tuple[str, ...]) -> dict[str, tuple[str, bool]]:
    """What became of names where these are the secrets, for all traces: the same few names are in each of them."""
    return {}


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
