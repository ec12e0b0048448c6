"""The open demo programs, kept to this machine."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from functools import lru_cache
from typing import Any

Scope = MutableMapping[str, Any]
Application = Callable[[Scope, Any, Any], Awaitable[None]]

_NAMES = frozenset({"localhost", ".localhost"})


@lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Whether `host` can only mean this machine."""
    name = host.strip("[]")
    try:
        return name in _NAMES or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def are_loopback(hosts: Iterable[str]) -> bool:
    """Whether all of `hosts`, as in `ALLOWED_HOSTS`, can only mean this machine."""
    return all(is_loopback(host) for host in hosts)


def loopback_only(application: Application) -> Application:
    """`application`, for clients on this machine; others are refused, whatever host they ask for."""

    async def serve(scope: Scope, receive: Any, send: Any) -> None:
        client = scope.get("client")
        if scope["type"] == "lifespan" or client is None or is_loopback(str(client[0])):
            await application(scope, receive, send)
        elif scope["type"] == "http":
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            text = "The demo programs are open, so this server answers its own machine only. Set ALLOWED_HOSTS.\n"
            await send({"type": "http.response.body", "body": text.encode()})
        else:
            await receive()
            await send({"type": "websocket.close", "code": 4403})

    return serve
