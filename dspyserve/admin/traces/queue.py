"""From trace to trace through the list that a reviewer came from: neighbours, and what nobody has reviewed yet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.urls import URLPattern, path
from django.utils.translation import gettext as _

from dspyserve.access.permissions import VIEW_PAYLOAD
from dspyserve.admin.traces.addresses import LIST_FILTERS, address, kept, list_address
from dspyserve.admin.traces.list_filter import UnreadableFilter, filter_of
from dspyserve.models import Trace
from dspyserve.tracing.search import Cursor, TraceFilter, neighbours, page, trace_id_of


def urls(model_admin: Any) -> list[URLPattern]:
    """The address of the queue."""

    def view(request: HttpRequest) -> HttpResponse:
        return next_unreviewed(model_admin, request)

    wrapped = model_admin.admin_site.admin_view(view)
    return [path("unreviewed/", wrapped, name="dspyserve_trace_unreviewed")]


def links(model_admin: Any, request: HttpRequest, trace: Trace) -> dict[str, str]:
    """Addresses of the trace's neighbours in the list, empty at its ends, of the list, and of the queue."""
    newer, older = neighbours(_apply(model_admin, request, _wanted(request)), trace)
    return {
        "newer": _page_of(request, newer),
        "older": _page_of(request, older),
        "list": list_address(request),
        "unreviewed": next_address(request, trace),
    }


def first_address(request: HttpRequest, filters: str) -> str:
    """Where the queue of the list with the query string `filters` begins."""
    return address(request, "unreviewed", query=urlencode({LIST_FILTERS: filters}) if filters else "")


def next_address(request: HttpRequest, trace: Trace) -> str:
    """Where the queue goes on after `trace`."""
    return address(request, "unreviewed", query=kept(request, after=trace.id.hex))


def next_unreviewed(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """Go to the newest trace of the list that nobody has reviewed, or to the next one after the trace `after`."""
    if not model_admin.has_view_permission(request):
        raise PermissionDenied
    waiting = _apply(model_admin, request, replace(_wanted(request), is_reviewed=False))
    after = _place(request.GET.get("after", ""))
    found, _cursor = page(waiting, after, 1)
    if not found and after is not None:
        # Those that were passed over, and those that came meanwhile.
        found, _cursor = page(waiting, None, 1)
    if not found:
        messages.success(request, _("Everything in this list is reviewed."))
        return HttpResponseRedirect(list_address(request))
    if after is not None and found[0].pk == after.trace_id:
        messages.info(request, _("This is the last one that is not reviewed."))
    return HttpResponseRedirect(_page_of(request, found[0]))


def _wanted(request: HttpRequest) -> TraceFilter:
    try:
        return filter_of(QueryDict(request.GET.get(LIST_FILTERS, "")))
    except UnreadableFilter:
        # The list says what is wrong with it; a page that was reached some other way is no worse for it.
        return filter_of(QueryDict(""))


def _apply(model_admin: Any, request: HttpRequest, wanted: TraceFilter) -> QuerySet[Trace]:
    return wanted.apply(model_admin.get_queryset(request), payloads=request.user.has_perm(VIEW_PAYLOAD))


def _place(text: str) -> Cursor | None:
    wanted = trace_id_of(text)
    trace = Trace.objects.only("started_at").filter(pk=wanted).first() if wanted is not None else None
    return None if trace is None else Cursor.of(trace)


def _page_of(request: HttpRequest, trace: Trace | None) -> str:
    return "" if trace is None else address(request, "change", trace.pk, query=kept(request))
