"""Images, recordings and files in messages, as what is known of them. Nothing is ever loaded or decoded."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.template.defaultfilters import filesizeformat

from dspyserve.admin.plain_text import visible

_NAMED: Final = re.compile(r"\A\[([\w.+-]+/[\w.+-]+), ([\w ]{1,30}), sha256 (\w{1,64})\]")
"""What the sanitiser leaves of embedded media."""
_DATA_URI: Final = re.compile(r"\Adata:([\w.+-]+/[\w.+-]+)?(?:;[\w=.-]+)*;base64,")
_CUT: Final = re.compile(r"… \[[\w ]+ of ([\w ]+)\]\Z")
_ADDRESS: Final = re.compile(r"\A[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_LONGEST: Final = 500


@dataclass(frozen=True, slots=True)
class Media:
    """What stands in place of a medium: what it is, how large, its hash, and where it is said to be. Any may be empty.

    `address` is text, and never to be made a link.
    """

    what: str
    kind: str = ""
    size: str = ""
    hash: str = ""
    address: str = ""


def media_of(part: Mapping[str, Any]) -> Media | None:
    """The medium of a content part in OpenAI's form or DSPy's; None for any other part."""
    what = str(part.get("type", ""))
    if what in ("image_url", "input_image", "image"):
        source = part.get("image_url", part.get("source"))
        return _medium("image", _first(source, "url", "data"), _first(source, "media_type"))
    if what in ("input_audio", "audio"):
        source = part.get("input_audio", part.get("source"))
        kind = _first(source, "format", "media_type")
        return _medium("audio", _first(source, "data"), kind if "/" in kind else f"audio/{kind}" if kind else "")
    if what in ("file", "input_file", "video_url", "video"):
        source = part.get("file") or part.get("video_url") or part
        found = _medium(what.partition("_")[0], _first(source, "file_data", "url"), "")
        name = _first(source, "filename", "file_id")
        return found if not name else Media(found.what, found.kind, found.size, found.hash, visible(name[:_LONGEST]))
    if what == "document" and _first(part.get("source"), "type") == "base64":
        return _medium("document", _first(part["source"], "data"), _first(part["source"], "media_type"))
    return None


def _medium(what: str, data: str, kind: str) -> Media:
    if named := _NAMED.match(data):
        return Media(what, named[1], named[2], named[3])
    if uri := _DATA_URI.match(data):
        return _encoded(what, data[uri.end() :], uri[1] or kind)
    if _ADDRESS.match(data):
        return Media(what, visible(kind), address=visible(data[:_LONGEST]))
    return _encoded(what, data, kind) if data else Media(what, visible(kind))


def _encoded(what: str, encoded: str, kind: str) -> Media:
    if whole := _CUT.search(encoded):
        # Of what was cut before it was stored nobody knows the hash any more.
        return Media(what, visible(kind), whole[1])
    digest = hashlib.sha256(encoded.encode(errors="replace")).hexdigest()[:16]
    return Media(what, visible(kind), filesizeformat(len(encoded) * 3 // 4), digest)


def _first(source: Any, *names: str) -> str:
    if isinstance(source, str):
        return source
    found = (source.get(name) for name in names) if isinstance(source, Mapping) else ()
    return next((value for value in found if isinstance(value, str) and value), "")
