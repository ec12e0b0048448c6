"""Who sent a request."""

from __future__ import annotations

from typing import Any

from django.conf import settings as django_settings
from django.http import HttpRequest
from ninja.utils import check_csrf

from dspyserve.api.responses import request_id
from dspyserve.events import Caller
from dspyserve.programs.options import RunOptions


async def user_of(request: HttpRequest) -> Any:
    """The user of the session, or None. Without a session cookie nothing is looked up.

    A state-changing request whose CSRF token is missing or wrong counts as anonymous: another site may have sent it in
    the user's name.
    """
    if django_settings.SESSION_COOKIE_NAME not in request.COOKIES:
        return None
    user = await request.auser()
    if not user.is_authenticated:
        return None
    if request.method not in ("GET", "HEAD", "OPTIONS") and check_csrf(request) is not None:
        return None
    return user


def caller(request: HttpRequest, user: Any, options: RunOptions, transport: str) -> Caller:
    """What the trace remembers of the request."""
    return Caller(
        transport=transport,
        user_id=user.pk if user is not None else None,
        session_id=options.session_id,
        tags=options.tags,
        metadata=options.metadata,
        request_id=request_id(request),
    )
