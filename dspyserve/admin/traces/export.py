"""The traces of the list as a file, exactly those that its filter leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Final
from urllib.parse import urlencode

from asgiref.sync import sync_to_async
from django.core.exceptions import BadRequest, PermissionDenied
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_GET

from dspyserve.access.permissions import VIEW_PAYLOAD, Right
from dspyserve.admin.traces.list_filter import filter_of
from dspyserve.tracing.export import FORMATS, finished, lines, with_feedback

JUDGED: Final = "judged"
"""The parameter that leaves only traces with feedback: `any`, or `positive`."""


def urls(model_admin: Any) -> list[URLPattern]:
    """The address of the export."""

    @require_GET
    def view(request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
        return export(model_admin, request)

    return [path("export/", model_admin.admin_site.admin_view(view), name="dspyserve_trace_export")]


def links(request: HttpRequest, query: str) -> list[tuple[Any, str]]:
    """Names and addresses of what the user may export of the list with this query string."""
    if not request.user.has_perm(Right.EXPORT.permission):
        return []
    may_read = request.user.has_perm(VIEW_PAYLOAD)
    offered = [(form.title, {"format": name}) for name, form in FORMATS.items() if may_read or not form.needs_payloads]
    if may_read:
        offered.append((_("DSPy examples that were liked or corrected"), {"format": "dspy", JUDGED: "positive"}))
    return [(title, f"export/?{urlencode(asked)}{'&' if query else ''}{query}") for title, asked in offered]


def export(model_admin: Any, request: HttpRequest) -> StreamingHttpResponse:
    """Send the traces in the format of `?format=`, some hundred at a time; texts only to those who may see them.

    Raises:
        PermissionDenied: the user may not export.
        BadRequest: there is no such format, or the filter is not understood.
    """
    if not model_admin.has_view_permission(request) or not request.user.has_perm(Right.EXPORT.permission):
        raise PermissionDenied
    form, payloads = FORMATS.get(request.GET.get("format", "")), request.user.has_perm(VIEW_PAYLOAD)
    if form is None:
        raise BadRequest(_("One of %(names)s is needed as format.") % {"names": ", ".join(FORMATS)})
    if form.needs_payloads and not payloads:
        raise PermissionDenied
    traces = filter_of(request.GET).apply(model_admin.get_queryset(request).select_related(None), payloads=payloads)
    if (judged := request.GET.get(JUDGED)) in ("any", "positive"):
        traces = with_feedback(traces, judged)
    chunks = finished(lines(traces, form, payloads=payloads), form)
    # Under ASGI Django would gather a synchronous iterator before it sends the first piece.
    body = _awaited(chunks) if isinstance(request, ASGIRequest) else chunks
    response = StreamingHttpResponse(body, content_type=form.content_type)
    name = f"traces-{timezone.localtime():%Y-%m-%d-%H%M}.{form.extension}"
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    response["Cache-Control"] = "no-store"
    return response


async def _awaited(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    # In the thread of the request, which has its connection to the database.
    following = sync_to_async(lambda: next(chunks, None))
    while (chunk := await following()) is not None:
        yield chunk
