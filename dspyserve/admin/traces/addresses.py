"""Addresses of the pages of traces, with the filter of the list that a reviewer came from."""

from __future__ import annotations

from typing import Any, Final

from django.http import HttpRequest, QueryDict
from django.urls import reverse

LIST_FILTERS: Final = "_changelist_filters"
"""The parameter that carries the query string of the list from page to page, as everywhere in Django's admin."""


def address(request: HttpRequest, page: str, *args: Any, query: str = "") -> str:
    """Where `page` is: `changelist`, `change`, `review`, `compare`, ..., in the admin site of the request."""
    match = request.resolver_match
    site = match.namespace if match is not None else "admin"
    found = reverse(f"admin:dspyserve_trace_{page}", args=args, current_app=site)
    return f"{found}?{query}" if query else found


def kept(request: HttpRequest, **more: str) -> str:
    """A query string with the list's filter, where there is one, and `more`; what is empty is left out."""
    query = QueryDict(mutable=True)
    for name, value in {**more, LIST_FILTERS: request.GET.get(LIST_FILTERS, "")}.items():
        if value:
            query[name] = value
    return query.urlencode()


def list_address(request: HttpRequest) -> str:
    """The list, as the reviewer left it."""
    return address(request, "changelist", query=request.GET.get(LIST_FILTERS, ""))
