"""The list of traces: a page of them, the search that chooses them, and what else stands around it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlencode

from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.forms import Media
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.template.response import TemplateResponse
from django.urls import path
from django.utils import timezone
from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from dspyserve.access.permissions import VIEW_PAYLOAD
from dspyserve.admin.plain_text import visible
from dspyserve.admin.traces import (
    compare,
    deleting,
    export,
    filter_form,
    list_rows,
    queue,
    review,
    saved_views,
    sessions,
)
from dspyserve.admin.traces.list_filter import SEARCH, UnreadableFilter, filter_of, query_of, said_of, text_of
from dspyserve.admin.traces.search_help import HELP
from dspyserve.models import Trace
from dspyserve.tracing.query_language import terms_of
from dspyserve.tracing.search import ANY_TIME, Cursor, TraceFilter, count_up_to, newer, page, page_before

SIZE: Final = 50
COUNT_CAP: Final = 10_000
NEWS_CAP: Final = 100
NEWS_SECONDS: Final = 5
"""How often an open list asks for news."""

AFTER, BEFORE, NEWEST = "after", "before", "newest"
STANDING_VIEWS: Final = [
    (gettext_lazy("All"), ""),
    (gettext_lazy("Failed"), "status:failed"),
    (gettext_lazy("Unreviewed"), "is:unreviewed"),
]
"""Views that everybody has."""


@dataclass(frozen=True, slots=True)
class Link:
    """A link of the page; the current one is where the reader is already."""

    text: Any
    url: str
    is_current: bool = False
    saved: Any = None
    may_delete: bool = False


@dataclass(frozen=True, slots=True)
class _Page:
    rows: list[Trace]
    newer: Cursor | None
    older: Cursor | None
    is_first: bool

    @property
    def is_all(self) -> bool:
        """Whether there is no other page."""
        return self.is_first and self.older is None


def urls(model_admin: Any) -> list[Any]:
    """The addresses that belong to the list."""
    wrap = model_admin.admin_site.admin_view
    kept = {"model_admin": model_admin}
    return [
        path("new/", wrap(news), kept, name="dspyserve_trace_news"),
        path("views/", wrap(save_view), kept, name="dspyserve_trace_save_view"),
        path("views/<int:pk>/delete/", wrap(delete_view), kept, name="dspyserve_trace_delete_view"),
    ]


def view(model_admin: Any, request: HttpRequest, extra_context: dict[str, Any]) -> HttpResponse:
    """The list; a POST deletes, or compares.

    Raises:
        PermissionDenied: the user may not see traces.
    """
    if not model_admin.has_view_permission(request):
        raise PermissionDenied
    if request.method == "POST":
        return _act(model_admin, request)
    try:
        wanted, errors = filter_of(request.GET), ()
    except UnreadableFilter as error:
        return _response(model_admin, request, {**_unreadable(request, error), **extra_context})
    if "" in request.GET.values():
        # A form was sent, with fields that nobody filled in: the address tells what is asked for, and no more.
        return HttpResponseRedirect(_address(query_of(wanted)))
    traces = _traces(model_admin, request, wanted)
    shown = _page(request, traces)
    if shown is None:
        return HttpResponseRedirect(_address(query_of(wanted)))
    context = {
        "errors": errors,
        "count": _counted(len(shown.rows) if shown.is_all else count_up_to(traces, COUNT_CAP)),
        "newer_url": _page_url(wanted, BEFORE, shown.newer),
        "older_url": _page_url(wanted, AFTER, shown.older),
        "first_url": "" if shown.is_first else _address(query_of(wanted)),
        "news": _news_url(wanted, shown.rows) if shown.is_first else "",
        **_found(request, wanted, shown.rows),
        **_around(request, wanted),
    }
    return _response(model_admin, request, {**context, **extra_context})


def news(request: HttpRequest, model_admin: Any) -> HttpResponse:
    """How many traces of the filter are newer than the cursor `newest`, as JSON; no more than a hundred are counted.

    Raises:
        PermissionDenied: the user may not see traces.
    """
    if not model_admin.has_view_permission(request):
        raise PermissionDenied
    newest = _cursor(request, NEWEST)
    traces = _traces(model_admin, request, filter_of(request.GET))
    count = 0 if newest is None else count_up_to(newer(traces, newest), NEWS_CAP)
    shown = min(count, NEWS_CAP)
    number = f"{shown}+" if count > NEWS_CAP else str(shown)
    text = ngettext("%s new trace", "%s new traces", shown) % number if shown else ""
    return JsonResponse({"count": shown, "text": text}, headers={"Cache-Control": "no-store"})


def save_view(request: HttpRequest, model_admin: Any) -> HttpResponse:
    """Keep a search under a name."""
    return saved_views.save(model_admin, request)


def delete_view(request: HttpRequest, model_admin: Any, pk: int) -> HttpResponse:
    """Forget a search."""
    return saved_views.delete(model_admin, request, pk)


def _act(model_admin: Any, request: HttpRequest) -> HttpResponse:
    if request.POST.get("action") != compare.ACTION:
        return deleting.act(model_admin, request)
    traces = deleting.chosen(model_admin, request)
    return compare.compare(model_admin, request, traces) or HttpResponseRedirect(request.get_full_path())


def _traces(model_admin: Any, request: HttpRequest, wanted: TraceFilter) -> QuerySet[Trace]:
    return wanted.apply(model_admin.get_queryset(request), payloads=request.user.has_perm(VIEW_PAYLOAD))


def _page(request: HttpRequest, traces: QuerySet[Trace]) -> _Page | None:
    """The page that the address asks for; None where it is better asked for without a cursor."""
    after, before = _cursor(request, AFTER), _cursor(request, BEFORE)
    if before is None:
        rows, older = page(traces, after, SIZE)
        if after is not None and not rows:
            return None
        return _Page(rows, None if after is None else Cursor.of(rows[0]), older, is_first=after is None)
    rows, newest = page_before(traces, before, SIZE)
    # A page that is not full, or has nothing before it, is the first one, which begins at its beginning.
    return None if newest is None else _Page(rows, newest, Cursor.of(rows[-1]), is_first=False)


def _cursor(request: HttpRequest, name: str) -> Cursor | None:
    try:
        return Cursor.parse(request.GET.get(name, ""))
    except (ValueError, OverflowError):
        return None


def _response(model_admin: Any, request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
    common = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "title": _("Traces"),
        "media": Media(css=model_admin.Media.css),
        "may_read": request.user.has_perm(VIEW_PAYLOAD),
        "may_delete": model_admin.has_delete_permission(request),
        "help": HELP,
        "poll_seconds": NEWS_SECONDS,
    }
    return TemplateResponse(request, "admin/dspyserve/trace/list.html", {**common, **context})


def _unreadable(request: HttpRequest, error: UnreadableFilter) -> dict[str, Any]:
    """Nothing is found, and nothing of what was asked is lost."""
    values = {name: str(value) for name, value in request.GET.items() if name != SEARCH}
    text = request.GET.get(SEARCH, "")
    form = filter_form.FilterForm({**values, SEARCH: text}, *filter_form.choices())
    return {
        "errors": error.errors,
        "text": text,
        "rows": [],
        "form": form,
        "carried": text,
        "form_is_open": bool(values),
        "windows": [],
        "views": _views(request, None),
    }


def _found(request: HttpRequest, wanted: TraceFilter, found: list[Trace]) -> dict[str, Any]:
    payloads = request.user.has_perm(VIEW_PAYLOAD)
    opinions = review.opinions_for(request.user)
    return {"rows": list_rows.rows(found, opinions, filters=query_of(wanted), payloads=payloads)}


def _around(request: HttpRequest, wanted: TraceFilter) -> dict[str, Any]:
    values = filter_form.values_of(wanted)
    query = query_of(wanted)
    return {
        "text": text_of(wanted),
        "query": query,
        "chips": list(_chips(wanted)),
        "windows": list(_windows(wanted)),
        "form": filter_form.FilterForm(values, *filter_form.choices()),
        "carried": values.get(SEARCH, ""),
        "views": _views(request, query),
        "unreviewed": queue.first_address(request, query),
        "conversation": sessions.session_address(request, wanted.session_id) if wanted.session_id else "",
        "exports": [Link(text, url) for text, url in export.links(request, query)],
    }


def _views(request: HttpRequest, current: str | None) -> list[Link]:
    standing = [(text, urlencode({SEARCH: search}) if search else "") for text, search in STANDING_VIEWS]
    shown = [Link(text, _address(query), query == current) for text, query in standing]
    for row in saved_views.views_of(request.user):
        may_delete = saved_views.may_change(request.user, row)
        shown.append(Link(visible(row.name), _address(row.query), row.query == current, row, may_delete))
    return shown


def _chips(wanted: TraceFilter) -> Iterator[Link]:
    """Every word of the search, with the address of the list without it."""
    terms = [str(term) for term in terms_of(said_of(wanted))]
    for number, text in enumerate(terms):
        rest = " ".join([*terms[:number], *terms[number + 1 :]])
        yield Link(visible(text), _address(urlencode({SEARCH: rest}) if rest else ""))


def _windows(wanted: TraceFilter) -> Iterator[Link]:
    is_open = wanted.since is None and wanted.until is None
    current = (wanted.window or ANY_TIME) if is_open else ""
    for name, title in filter_form.WINDOWS:
        query = query_of(replace(wanted, window=name, since=None, until=None))
        yield Link(title, _address(query), name == current)


def _address(query: str) -> str:
    return f"?{query}" if query else "?"


def _page_url(wanted: TraceFilter, name: str, cursor: Cursor | None) -> str:
    if cursor is None:
        return ""
    query = query_of(wanted)
    return f"?{query}{'&' if query else ''}{urlencode({name: cursor})}"


def _news_url(wanted: TraceFilter, found: list[Trace]) -> str:
    if wanted.until is not None:
        return ""
    newest = Cursor.of(found[0]) if found else Cursor(timezone.now(), uuid.UUID(int=0))
    return "new/" + _page_url(wanted, NEWEST, newest)


def _counted(count: int) -> str:
    if count > COUNT_CAP:
        return _("%s+ traces") % number_format(COUNT_CAP, force_grouping=True)
    return ngettext("%s trace", "%s traces", count) % number_format(count, force_grouping=True)
