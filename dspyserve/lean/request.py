"""A request whose headers are looked up one by one."""

from __future__ import annotations

from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.http.request import HttpHeaders
from django.utils.functional import cached_property


class LeanRequest(ASGIRequest):
    """`ASGIRequest` without the work that most calls have no use for."""

    @cached_property
    def headers(self) -> HttpHeaders:  # type: ignore[override]
        """As Django's."""
        return _Headers(self.META)


class _Headers(HttpHeaders):
    """Django's headers, found in `META` under their names there: all of them are only collected for who wants all."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self._environ = environ

    @cached_property
    def _store(self) -> Any:  # type: ignore[override]
        """Where Django's class keeps them."""
        return HttpHeaders(self._environ)._store  # type: ignore[attr-defined]

    def __getitem__(self, key: str) -> str:
        found: str = self._environ[self.to_wsgi_name(key)]
        return found

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.to_wsgi_name(key) in self._environ

    def get(self, key: str, default: Any = None) -> Any:
        """The header, without the exception that a missing one costs."""
        return self._environ.get(self.to_wsgi_name(key), default)
