"""Streams of language models: their way from the socket to whoever is told the texts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from functools import wraps
from importlib import import_module
from typing import Any

import dspy
from dspy.clients import execution
from dspy.clients.engines.streaming import ListenerBridge

_TEXTS = frozenset({"text", "thinking"})


class DirectBridge(ListenerBridge):  # type: ignore[misc]
    """DSPy's way from an event to a chunk, which gives texts to a stream that takes them as they are.

    The first text goes DSPy's way, which notes that there was one; the others would be made into three dictionaries
    each, looked up in DSPy's settings, and handed to a coroutine. The stream offers `texts()`: what takes the kind and
    the text of a piece of the call that is under way, or None.
    """

    _take: Callable[[str, str], None] | None = None
    _has_begun = False

    def chunk(self, event: Any) -> Any:
        """The chunk that is to be sent on; None where there is none, or where it was told already."""
        if event.type != "delta" or event.delta.type not in _TEXTS:
            return super().chunk(event)
        if self._take is None:
            texts = getattr(dspy.settings.send_stream, "texts", None) if self._has_begun else None
            self._has_begun = True
            self._take = texts() if texts is not None else None
        if self._take is None:
            return super().chunk(event)
        self._take(event.delta.type, event.delta.text)
        return None


def tell_texts_directly() -> None:
    """Take `DirectBridge` for the streams of all language models."""
    _ = execution.ListenerBridge
    execution.ListenerBridge = DirectBridge


def split_lines_at_once() -> None:
    """Split what comes from a provider into its lines in one go, instead of cutting each off the rest."""
    types = import_module("dspy._vendor.lm15.transports._types")
    for kind, name, splitting in (
        (types.TransportResponse, "iter_lines", _lines),
        (types.AsyncTransportResponse, "aiter_lines", _alines),
    ):
        setattr(kind, name, wraps(getattr(kind, name))(splitting))


def _lines(response: Any) -> Iterator[bytes]:
    rest = b""
    for chunk in response:
        *lines, rest = _split(rest, chunk)
        yield from lines
    if rest:
        yield rest


async def _alines(response: Any) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in response:
        *lines, rest = _split(rest, chunk)
        for line in lines:
            yield line
    if rest:
        yield rest


def _split(rest: bytes, chunk: bytes) -> list[bytes]:
    """The lines with their ends, and what is left behind the last of them."""
    lines = (rest + chunk).split(b"\n")
    lines[:-1] = [line + b"\n" for line in lines[:-1]]
    return lines


def decode_chunks_at_once() -> None:
    """Take the chunks of a response out of what was received in one go, instead of copying the rest for each."""
    decoder = import_module("dspy._vendor.lm15.transports._http11").ChunkedDecoder
    feed = decoder.feed
    at_size = decoder.SIZE

    @wraps(feed)
    def feed_at_once(self: Any, data: bytes) -> Iterator[bytes]:
        if self._state == at_size and not self._buf:
            # Whole chunks, as they mostly come; what is left is the decoder's own affair.
            pieces, data = _whole_chunks(data)
            if pieces:
                yield b"".join(pieces)
            if not data:
                return
        yield from feed(self, data)

    decoder.feed = feed_at_once


def _whole_chunks(data: bytes) -> tuple[list[bytes], bytes]:
    """The contents of the chunks that `data` begins with, as far as they are whole and plain, and the rest."""
    pieces: list[bytes] = []
    position = 0
    while (end := data.find(b"\r\n", position)) > 0:
        digits = data[position:end]
        if len(digits) > 8 or not digits.isalnum():
            break
        try:
            size = int(digits, 16)
        except ValueError:
            break
        start, stop = end + 2, end + 2 + size
        if size == 0 or data[stop : stop + 2] != b"\r\n":
            break
        pieces.append(data[start:stop])
        position = stop + 2
    return pieces, data[position:]


ALL = (tell_texts_directly, split_lines_at_once, decode_chunks_at_once)
