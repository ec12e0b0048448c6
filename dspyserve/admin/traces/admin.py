"""The list and the page of traces."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from dspyserve.access.permissions import VIEW_PAYLOAD
from dspyserve.admin import wording
from dspyserve.admin.traces import page
from dspyserve.admin.traces.filters import ErrorFilter, ProgramFilter, TransportFilter, WindowFilter
from dspyserve.admin.traces.paginator import CappedPaginator
from dspyserve.admin.traces.span_views import SpanViews
from dspyserve.models import Trace
from dspyserve.tracing import retention
from dspyserve.tracing.search import with_text

SYMBOLS = {
    Trace.Status.SUCCEEDED: "✓",
    Trace.Status.FAILED: "✕",
    Trace.Status.CANCELLED: "⊘",
    Trace.Status.TIMED_OUT: "◷",
    Trace.Status.RUNNING: "…",
    Trace.Status.ABANDONED: "?",
}
"""Beside the word, so that colour says nothing alone."""


@admin.register(Trace)
class TraceAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Traces are read, never made or changed here."""

    list_display = (
        "time",
        "program_version",
        "badge",
        "took",
        "token_counts",
        "price",
        "preview",
        "steps",
        "first_token",
        "transport",
        "who",
    )
    list_filter = (WindowFilter, ProgramFilter, "status", TransportFilter, ErrorFilter)
    list_per_page = 50
    list_select_related = ("user", "api_key")
    ordering = ("-started_at", "-id")
    paginator = CappedPaginator
    search_fields = ("id",)
    search_help_text = _("A trace id or batch id, or text in inputs, outputs, errors and sessions of the chosen time.")
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    actions = ("delete_traces",)

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

    def get_list_display(self, request: HttpRequest) -> Any:
        """Without the texts for those who may not see payloads."""
        hidden = () if request.user.has_perm(VIEW_PAYLOAD) else ("preview",)
        return [name for name in self.list_display if name not in hidden]

    def get_sortable_by(self, request: HttpRequest) -> Any:
        """By time alone: no other order has an index."""
        return []

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Trace], search_term: str
    ) -> tuple[QuerySet[Trace], bool]:
        """By id first; by text only within the time window, and only for those who may see texts."""
        term = search_term.strip()
        payloads = request.user.has_perm(VIEW_PAYLOAD)
        return (queryset.filter(with_text(term, payloads=payloads)) if term else queryset), False

    @admin.display(description=_("time"))
    def time(self, trace: Trace) -> Any:
        """When it began."""
        return page.moment(trace.started_at)

    @admin.display(description=_("program"))
    def program_version(self, trace: Trace) -> str:
        """The program, with the version of its state where it has one."""
        version = f" v{trace.version_number}" if trace.version_number else ""
        return f"{trace.program_name}{version}"

    @admin.display(description=_("status"))
    def badge(self, trace: Trace) -> str:
        """How it ended."""
        return status_badge(trace)

    @admin.display(description=_("input › output"))
    def preview(self, trace: Trace) -> str:
        """How the texts begin."""
        answer = trace.output_preview or trace.error_type
        return format_html(
            '<span class="dspyserve-preview"><span>{}</span> <b aria-label="output">›</b> <span>{}</span></span>',
            trace.input_preview,
            answer,
        )

    @admin.display(description=_("duration"))
    def took(self, trace: Trace) -> str:
        """From admission to outcome."""
        return wording.duration(trace.duration_ms)

    @admin.display(description=_("first token"))
    def first_token(self, trace: Trace) -> str:
        """From admission."""
        return wording.duration(trace.first_token_ms)

    @admin.display(description=_("tokens"))
    def token_counts(self, trace: Trace) -> str:
        """In and out."""
        return wording.tokens(trace.input_tokens, trace.output_tokens)

    @admin.display(description=_("cost"))
    def price(self, trace: Trace) -> str:
        """In US dollars."""
        return wording.cost(trace.cost)

    @admin.display(description=_("spans"))
    def steps(self, trace: Trace) -> str:
        """How many, and how many of them failed."""
        errors = ngettext("%d error", "%d errors", trace.error_count) % trace.error_count
        return f"{trace.span_count} · {errors}" if trace.error_count else str(trace.span_count)

    @admin.display(description=_("caller"))
    def who(self, trace: Trace) -> str:
        """The user or the API key, and the session that they named."""
        caller = trace.user or trace.api_key
        return " · ".join(filter(None, (str(caller) if caller else "", trace.session_id))) or "–"

    # The page

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """The page of one trace; `?span=` chooses the span whose payload is shown."""
        trace = self.get_object(request, unquote(object_id))
        if trace is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)  # type: ignore[attr-defined,no-any-return]
        if not self.has_view_permission(request, trace):
            raise PermissionDenied
        context = {
            **self.admin_site.each_context(request),
            **page.context(trace, request, self),
            "badge": status_badge(trace),
            **(extra_context or {}),
            "opts": self.opts,
            "title": f"{trace.program_name} · {trace.id.hex}",
            "crumb": trace.id.hex,
            "has_delete_permission": self.has_delete_permission(request, trace),
            "media": self.media,
        }
        return TemplateResponse(request, "admin/dspyserve/trace/page.html", context)

    def get_urls(self) -> Any:
        """With the pieces of the page that are loaded on demand."""
        return [*SpanViews(self).urls, *super().get_urls()]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Trace]:
        """With the user and the key, which list and page show."""
        return super().get_queryset(request).select_related("user", "api_key")

    # Deleting

    def get_actions(self, request: HttpRequest) -> Any:
        """Without Django's own deletion, which loads every span."""
        actions = super().get_actions(request)
        actions.pop("delete_selected", None)
        return actions

    @admin.action(description=_("Delete the selected traces"), permissions=["delete"])
    def delete_traces(self, request: HttpRequest, queryset: QuerySet[Trace]) -> HttpResponse | None:
        """Delete, after a question."""
        if request.POST.get("post"):
            count = retention.delete(queryset.order_by())
            self.message_user(request, _("%d traces were deleted.") % count, messages.SUCCESS)
            return None
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": _("Delete traces?"),
            "count": CappedPaginator(queryset, 1).count,
            "cap": CappedPaginator.CAP,
            "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
            "select_across": request.POST.get("select_across", "0"),
            "media": self.media,
        }
        return TemplateResponse(request, "admin/dspyserve/trace/delete.html", context)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """What the page that asks before deleting one trace says: counts, not the spans themselves."""
        traces = list(objs)
        spans = sum(trace.span_count for trace in traces)
        return [str(trace) for trace in traces], {"traces": len(traces), "spans": spans}, set(), []

    def delete_model(self, request: HttpRequest, obj: Trace) -> None:
        """One trace."""
        retention.delete(Trace.objects.filter(pk=obj.pk))


def status_badge(trace: Trace) -> str:
    """Symbol, word and class."""
    return wording.badge(trace.status, SYMBOLS.get(Trace.Status(trace.status), ""), trace.get_status_display())
