"""Which view answers at an address, remembered: Django tries all patterns of the project for each request."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from django.http import HttpRequest
from django.urls import LocalePrefixPattern, ResolverMatch, URLResolver, get_resolver
from django.utils.translation import get_language

_KNOWN: Final = 256
"""Addresses that are remembered. Those of programs are few; those of traces come and go."""


def match(request: HttpRequest) -> ResolverMatch:
    """The view of `request`, found by the project's own addresses.

    Raises:
        Resolver404: there is none. That is not remembered.
    """
    resolver = get_resolver()
    known: Any = _found(resolver, request.path_info, get_language() if _is_translated(resolver) else None)
    # Middleware may change what is given to the view: it is this request's own.
    return ResolverMatch(
        known.func,
        known.args,
        dict(known.kwargs),
        known.url_name,
        known.app_names,
        known.namespaces,
        known.route,
        known.tried,
        known.captured_kwargs,
        known.extra_kwargs,
    )


@lru_cache(maxsize=_KNOWN)
def _found(resolver: URLResolver, address: str, language: str | None) -> ResolverMatch:
    return resolver.resolve(address)


@lru_cache(maxsize=_KNOWN)
def _is_translated(resolver: URLResolver) -> bool:
    """Whether an address may be another one, or nobody's, in another language."""
    for pattern in (resolver, *resolver.url_patterns):
        route = pattern.pattern
        text = getattr(route, "_route", getattr(route, "_regex", None))
        if isinstance(route, LocalePrefixPattern) or not isinstance(text, str):
            return True
        if pattern is not resolver and isinstance(pattern, URLResolver) and _is_translated(pattern):
            return True
    return False
