"""The list and the page of traces."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path

from dspyserve.admin.dashboard import view as dashboard
from dspyserve.admin.traces import compare, export, page, queue, review, review_actions, sessions
from dspyserve.admin.traces import list as trace_list
from dspyserve.admin.traces.replay import replay
from dspyserve.admin.traces.span_views import SpanViews
from dspyserve.admin.traces.status import status_badge
from dspyserve.models import Trace
from dspyserve.tracing import retention


@admin.register(Trace)
class TraceAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Traces are read, never made or changed here."""

    ordering = ("-started_at", "-id")

    class Media:
        css = {"all": ["dspyserve/admin/base.css", "dspyserve/admin/list.css", "dspyserve/admin/trace.css"]}

    # Who may

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody: executions make traces."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody: what happened, happened."""
        return False

    # The list

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """The list, in place of Django's own, which counts and sorts the whole table."""
        return trace_list.view(self, request, extra_context or {})

    # The page

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """The page of one trace; `?span=` chooses the span whose payload is shown."""
        trace = self.get_object(request, unquote(object_id))
        if not self.has_view_permission(request, trace):
            raise PermissionDenied
        if trace is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)  # type: ignore[attr-defined,no-any-return]
        context = {
            **self.admin_site.each_context(request),
            **page.context(trace, request, self),
            "badge": status_badge(trace),
            **(extra_context or {}),
            "opts": self.opts,
            "title": f"{trace.program_name} · {trace.id.hex}",
            "crumb": trace.id.hex,
            "has_delete_permission": self.has_delete_permission(request, trace),
            "media": self.media + review.MEDIA,
        }
        return TemplateResponse(request, "admin/dspyserve/trace/page.html", context)

    def get_urls(self) -> list[Any]:
        """With the pages beside the list, and the pieces of the page that are loaded on demand."""
        parts = (trace_list, review_actions, queue, sessions, compare, export, dashboard)
        own = [url for part in parts for url in part.urls(self)]
        replaying = self.admin_site.admin_view(partial(replay, self))
        own.append(path("<str:object_id>/replay/", replaying, name="dspyserve_trace_replay"))
        return [*SpanViews(self).urls, *own, *super().get_urls()]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Trace]:
        """With the user and the key, which list and page show."""
        return super().get_queryset(request).select_related("user", "api_key")

    # Deleting

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """What the page that asks before deleting one trace says: counts, not the spans themselves."""
        traces = list(objs)
        spans = sum(trace.span_count for trace in traces)
        return [str(trace) for trace in traces], {"traces": len(traces), "spans": spans}, set(), []

    def delete_model(self, request: HttpRequest, obj: Trace) -> None:
        """One trace."""
        retention.delete(Trace.objects.filter(pk=obj.pk))
