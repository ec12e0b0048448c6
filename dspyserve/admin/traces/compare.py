"""Two traces side by side: their facts, what went in and came out, and their spans."""

from __future__ import annotations

import uuid
from typing import Any, Final

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.translation import gettext as _

from dspyserve.access.permissions import VIEW_PAYLOAD
from dspyserve.admin.plain_text import visible
from dspyserve.admin.traces import comparison, payloads, span_tree, tree_diff
from dspyserve.admin.traces.addresses import address
from dspyserve.admin.traces.status import status_badge
from dspyserve.admin.traces.text_diff import Work
from dspyserve.models import Span, Trace
from dspyserve.tracing.search import trace_id_of

MEDIA: Final = forms.Media(css={"all": ["dspyserve/admin/compare.css"]})
_NOTHING: Final = payloads.Payload()
ACTION: Final = "compare"
"""The button of the list."""
SIDES: Final = ("a", "b")
"""The parameters of the address, and what the page calls the two."""


def urls(model_admin: Any) -> list[URLPattern]:
    """The address of comparisons."""

    def view(request: HttpRequest) -> HttpResponse:
        return show(model_admin, request)

    return [path("compare/", model_admin.admin_site.admin_view(view), name="dspyserve_trace_compare")]


def compare(model_admin: Any, request: HttpRequest, queryset: QuerySet[Trace]) -> HttpResponse | None:
    """Two rows of the list side by side, the older one on the left; a word to the user where they are not two."""
    chosen = list(queryset.order_by("started_at", "pk").values_list("pk", flat=True)[: len(SIDES) + 1])
    if len(chosen) != len(SIDES):
        model_admin.message_user(request, _("Choose two traces to compare them."), messages.WARNING)
        return None
    return HttpResponseRedirect(compare_address(request, *chosen))


def compare_address(request: HttpRequest, one: uuid.UUID, other: uuid.UUID) -> str:
    """Where two traces stand side by side."""
    return address(request, "compare", query=f"a={one.hex}&b={other.hex}")


def show(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """The comparison of the traces `a` and `b`; a form where one of them is missing."""
    if not model_admin.has_view_permission(request):
        raise PermissionDenied
    given = {side: request.GET.get(side, "").strip()[:100] for side in SIDES}
    wanted = {side: trace_id_of(text) for side, text in given.items()}
    known = model_admin.get_queryset(request).in_bulk({pk for pk in wanted.values() if pk is not None})
    found = {side: known.get(pk) for side, pk in wanted.items()}
    context = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "title": _("Compare two traces"),
        "given": {side: visible(text) for side, text in given.items()},
        "missing": [side for side in SIDES if given[side] and found[side] is None],
        "media": model_admin.media + MEDIA,
    }
    one, other = found["a"], found["b"]
    if one is not None and other is not None:
        context |= _comparison(request, one, other)
    return TemplateResponse(request, "admin/dspyserve/trace/compare.html", context)


def _comparison(request: HttpRequest, one: Trace, other: Trace) -> dict[str, Any]:
    both, may_read = (one, other), request.user.has_perm(VIEW_PAYLOAD)
    spans = _spans(*both)
    found = payloads.read(*(own[0] for own in spans if own)) if may_read and any(spans) else {}
    ours, theirs = (found.get(own[0].pk, _NOTHING) if own else _NOTHING for own in spans)
    work = Work()
    trees = (_tree(trace, own) for trace, own in zip(both, spans, strict=True))
    return {
        "sides": [_side(request, side, trace) for side, trace in zip("AB", both, strict=True)],
        "swapped": compare_address(request, other.pk, one.pk),
        "is_same": one.pk == other.pk,
        "may_read": may_read,
        "facts": comparison.facts(one, other),
        "texts": [
            (_("Inputs"), comparison.fields(ours.inputs, theirs.inputs, work)),
            (_("Outputs"), comparison.fields(ours.outputs, theirs.outputs, work)),
        ],
        "rows": [comparison.SpanRow(pair) for pair in tree_diff.aligned(*trees)],
        "hidden_spans": sum(max(trace.span_count - len(own), 0) for trace, own in zip(both, spans, strict=True)),
    }


def _side(request: HttpRequest, name: str, trace: Trace) -> dict[str, Any]:
    url = address(request, "change", trace.pk)
    return {"name": name, "trace": trace, "url": url, "badge": status_badge(trace)}


def _spans(one: Trace, other: Trace) -> list[list[Span]]:
    # Spans are numbered from 1, so that this is a limit for each of the two.
    found = Span.objects.filter(trace__in={one.pk, other.pk}, sequence__lte=span_tree.MAX_SPANS)
    ordered = list(found.order_by("trace", "sequence"))
    return [[span for span in ordered if span.trace_id == trace.pk] for trace in (one, other)]


def _tree(trace: Trace, spans: list[Span]) -> list[tree_diff.Node]:
    return tree_diff.nodes(span_tree.picture(trace, spans).rows)
