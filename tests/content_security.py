"""The strictest Content-Security-Policy that a project may send with the pages of the admin, in all tests."""

from __future__ import annotations

from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any

from django.http import HttpRequest
from django.utils.decorators import sync_and_async_middleware

POLICY = "; ".join(
    (
        "default-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
"""No inline scripts, styles or handlers, nothing from elsewhere, nothing of `data:`."""


@sync_and_async_middleware
def content_security(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Sends the policy with every answer of the admin. It takes no thread, as those that tests of the API count."""
    if iscoroutinefunction(get_response):

        async def acall(request: HttpRequest) -> Any:
            return _with_policy(request, await get_response(request))

        return acall
    return lambda request: _with_policy(request, get_response(request))


def _with_policy(request: HttpRequest, response: Any) -> Any:
    if request.path.startswith("/admin/"):
        # Some views send a stricter one of their own.
        response.headers.setdefault("Content-Security-Policy", POLICY)
    return response
