"""Who sent a request, how much they may still ask for, and what their trace remembers."""

from __future__ import annotations

import re
from typing import Any, Final

from django.conf import settings as django_settings
from django.http import HttpRequest
from ninja.utils import check_csrf

from dspyserve.access.identity import ANONYMOUS, Identity
from dspyserve.access.keys import keys
from dspyserve.access.throttling import QuotaExceeded, spend
from dspyserve.api.responses import request_id, set_quota
from dspyserve.errors import Unauthenticated
from dspyserve.events import Caller
from dspyserve.programs.options import RunOptions

_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?"
)
"""W3C Trace Context: version, trace id, parent id, flags; later versions may add more."""


async def identify(request: HttpRequest) -> Identity:
    """Who calls: the holder of the bearer token, else the user of the session, else nobody known.

    Without a session cookie no session is looked up. A state-changing request whose CSRF token is missing or wrong
    counts as anonymous: another site may have sent it in the user's name. A token needs no CSRF token, since no browser
    sends one unasked.

    Raises:
        Unauthenticated: the token is not good.
    """
    if (known := await keys.aidentify(request.META.get("HTTP_AUTHORIZATION", ""))) is not None:
        return known
    user = await _session_user(request)
    return ANONYMOUS if user is None else Identity(user=user)


async def admit(request: HttpRequest, cost: int = 1) -> Identity:
    """`identify`, and count `cost` requests of the caller's quota. Tries with a bad token count as anonymous.

    Raises:
        Unauthenticated: the token is not good.
        Throttled: the caller has no more left.
    """
    try:
        identity = await identify(request)
    except Unauthenticated:
        await charge(request, ANONYMOUS, cost)
        raise
    await charge(request, identity, cost)
    return identity


async def charge(request: HttpRequest, identity: Identity, cost: int) -> None:
    """Count `cost` more requests of the caller's quota; raises as `admit` does."""
    try:
        set_quota(request, await spend(identity, request.META.get("REMOTE_ADDR", ""), cost))
    except QuotaExceeded as error:
        set_quota(request, error.quota)
        raise


def caller(
    request: HttpRequest, identity: Identity, options: RunOptions, transport: str, *, batch_id: str = ""
) -> Caller:
    """What the trace remembers of the request."""
    given = request.META.get("HTTP_TRACEPARENT")
    parent = _TRACEPARENT.fullmatch(given) if given else None
    return Caller(
        transport=transport,
        owner=identity.name,
        user_id=identity.user_id,
        api_key_id=identity.key_id,
        batch_id=batch_id,
        trace_id=parent[1] if parent else "",
        parent_span_id=parent[2] if parent else "",
        session_id=options.session_id,
        tags=options.tags,
        metadata=options.metadata,
        request_id=request_id(request),
    )


async def _session_user(request: HttpRequest) -> Any:
    if django_settings.SESSION_COOKIE_NAME not in request.COOKIES:
        return None
    user = await request.auser()
    if not user.is_authenticated:
        return None
    if request.method not in ("GET", "HEAD", "OPTIONS") and check_csrf(request) is not None:
        return None
    return user
