"""Connections to providers: what they cost beside the bytes that they carry.

Every call of the system lets other threads go on in between, which the event loop then has to wait for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from types import SimpleNamespace
from typing import Any, Final

_FRESH: Final = 1.0
"""Seconds for which a connection counts as just used: no server closes one as early as that, unless it stops."""
_TAKEN: Final = "_dspyserve_taken"


def send_in_one_piece() -> None:
    """Send the head of a request and its body together, from the event loop and from threads."""
    for name, kind, gathering in (("_async", "StdlibAsyncTransport", _stream), ("_sync", "StdlibTransport", _socket)):
        transport = getattr(import_module(f"dspy._vendor.lm15.transports.{name}"), kind)
        transport._send_request = _at_once(transport._send_request, gathering)


def _at_once(send: Callable[..., Any], gathering: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    @wraps(send)
    def send_at_once(self: Any, conn: Any, request: Any, *args: Any, **named: Any) -> Any:
        return send(self, gathering(conn, request), request, *args, **named)

    return send_at_once


def _stream(conn: Any, request: Any) -> Any:
    return SimpleNamespace(writer=SimpleNamespace(write=_whole(conn.writer.write, request), drain=conn.writer.drain))


def _socket(conn: Any, request: Any) -> Any:
    sock = conn.sock
    return SimpleNamespace(sock=SimpleNamespace(sendall=_whole(sock.sendall, request), settimeout=sock.settimeout))


def _whole(send: Callable[[bytes], None], request: Any) -> Callable[[bytes], None]:
    """What takes the pieces of `request`, and sends them once it has them all."""
    pieces: list[bytes] = []

    def take(data: bytes) -> None:
        pieces.append(data)
        if len(pieces) == (2 if request.body else 1):
            send(b"".join(pieces))

    return take


def trust_what_was_just_used() -> None:
    """Ask the system whether a provider has closed a connection only where that was not in use a moment ago.

    Otherwise the event loop knows, which reads from it all the time.
    """
    connection = import_module("dspy._vendor.lm15.transports._async")._AsyncConnection
    ask: Callable[[Any], bool] = connection.is_stale

    @wraps(ask)
    def is_stale(self: Any) -> bool:
        reader, now = self.reader, time.monotonic()
        before = getattr(reader, _TAKEN, now - _FRESH)
        setattr(reader, _TAKEN, now)
        unread: bytes | None = getattr(reader, "_buffer", None)
        if now - before >= _FRESH or unread is None:
            return ask(self)
        return bool(self.closed or unread or reader.at_eof() or reader.exception())

    connection.is_stale = is_stale


ALL = (send_in_one_piece, trust_what_was_just_used)
