"""What the trace page loads of one span: its details, more of a value, and values as plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import URLPattern, path, reverse

from dspyserve.access.permissions import VIEW_PAYLOAD
from dspyserve.admin.traces import json_tree, payloads
from dspyserve.admin.traces.addresses import kept
from dspyserve.admin.traces.raw import as_text
from dspyserve.admin.traces.span import detail
from dspyserve.models import Span, Trace

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin

_NAME = "dspyserve_trace_span"
_LONGEST_ADDRESS = 10_000


class SpanViews:
    """The views of spans in the admin of traces."""

    def __init__(self, model_admin: ModelAdmin[Trace]) -> None:
        self._admin = model_admin

    @property
    def urls(self) -> list[URLPattern]:
        """To stand before the admin's own."""
        wrap = self._admin.admin_site.admin_view
        span = "<uuid:trace_id>/span/<str:span_id>/"
        return [
            path(span, wrap(self.detail), name=_NAME),
            path(f"{span}value/", wrap(self.value), name=f"{_NAME}_value"),
            path(f"{span}raw/", wrap(self.raw), name=f"{_NAME}_raw"),
        ]

    def detail(self, request: HttpRequest, trace_id: UUID, span_id: str) -> HttpResponse:
        """The details of a span, a piece of the trace page."""
        span = self._span(request, trace_id, span_id)
        may_read = request.user.has_perm(VIEW_PAYLOAD)
        payload = payloads.read(span).get(span.pk, payloads.Payload()) if may_read else None
        shown = {"detail": detail(span, payload), "may_read": may_read, **addresses(self._admin, request, span)}
        return render(request, "admin/dspyserve/trace/span.html", shown)

    def value(self, request: HttpRequest, trace_id: UUID, span_id: str) -> HttpResponse:
        """More of a value: `?at=` says where, `&from=` from which child on."""
        span = self._span(request, trace_id, span_id, payload=True)
        node = value_node(span, request.GET)
        if node is None:
            raise Http404
        return render(
            request, "admin/dspyserve/trace/value.html", {"node": node, **addresses(self._admin, request, span)}
        )

    def raw(self, request: HttpRequest, trace_id: UUID, span_id: str) -> HttpResponse:
        """A value as text, all of it; a browser shows it and never takes it for anything else."""
        span = self._span(request, trace_id, span_id, payload=True)
        address = request.GET.get("at", "")[:_LONGEST_ADDRESS]
        try:
            value = payloads.at(payloads.read(span).get(span.pk, payloads.Payload()), address)
        except LookupError:
            raise Http404 from None
        text = payloads.text_of(span, address) if value is payloads.UNREADABLE else as_text(value)
        response = HttpResponse(text.encode(errors="replace"), content_type="text/plain; charset=utf-8")
        name = f"{trace_id.hex}-{span.pk}-{address[:60]}.txt"
        response["Content-Disposition"] = f'inline; filename="{name}"'
        response["Content-Security-Policy"] = "default-src 'none'; sandbox"
        response["X-Content-Type-Options"] = "nosniff"
        return response

    def _span(self, request: HttpRequest, trace_id: UUID, span_id: str, *, payload: bool = False) -> Span:
        traces = self._admin.get_queryset(request).filter(pk=trace_id)
        spans = Span.objects.select_related("trace").filter(trace__in=traces.values("pk"), span_id=span_id)
        span = spans.first()
        if not self._admin.has_view_permission(request, span.trace if span is not None else None):
            raise PermissionDenied
        if payload and not request.user.has_perm(VIEW_PAYLOAD):
            raise PermissionDenied
        if span is None:
            raise Http404
        return span


def addresses(model_admin: ModelAdmin[Trace], request: HttpRequest, span: Span) -> dict[str, str]:
    """What the templates of a span need to link to it: its own address, and its place in that of the page."""
    name = f"{model_admin.admin_site.name}:{_NAME}"
    return {
        "span_url": reverse(name, args=[span.trace_id, span.span_id]),
        "span_id": span.span_id,
        "span_query": kept(request, span=span.span_id),
    }


def value_node(span: Span, asked: Any, payload: payloads.Payload | None = None) -> json_tree.Node | None:
    """The value that `?at=` and `&from=` ask for; None where there is none."""
    address, start = asked.get("at", "")[:_LONGEST_ADDRESS], asked.get("from", "0")
    if not start.isdecimal() or len(start) > len(str(payloads.MAX_POSITION)):
        return None
    payload = payload or payloads.read(span).get(span.pk, payloads.Payload())
    try:
        value = payloads.at(payload, address)
    except LookupError:
        return None
    if value is payloads.UNREADABLE:
        return None
    node = json_tree.tree(value, address, start=int(start))
    node.is_open = True
    return node
