"""The strictest Content-Security-Policy that a project may send with the pages of the admin, in all tests."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.utils.deprecation import MiddlewareMixin

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


class ContentSecurity(MiddlewareMixin):
    """Sends the policy with every answer of the admin."""

    def process_response(self, request: HttpRequest, response: Any) -> Any:
        """Add the header, where the view has no stricter one of its own."""
        if request.path.startswith("/admin/"):
            response.headers.setdefault("Content-Security-Policy", POLICY)
        return response
