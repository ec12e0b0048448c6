"""A session as a conversation: what was asked and answered, in the order of time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from django import forms
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Q, QuerySet, Sum
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from dspyserve.access.permissions import VIEW_PAYLOAD
from dspyserve.admin import wording
from dspyserve.admin.plain_text import visible
from dspyserve.admin.traces import payloads
from dspyserve.admin.traces.addresses import address
from dspyserve.admin.traces.field_texts import FieldText, field_texts
from dspyserve.admin.traces.status import status_badge
from dspyserve.models import Span, Trace
from dspyserve.tracing.search import ANY_TIME, Cursor, newer, older, page, trace_id_of

PAGE: Final = 25
"""Turns of one page."""
MEDIA: Final = forms.Media(css={"all": ["dspyserve/admin/session.css"]})
TOTALS_CAP: Final = 10_000
"""Totals are those of so many traces at most, and the page says so."""
_NOBODY: Final = gettext_lazy("There is no trace of this session.")
MAX_TEXT: Final = 8_000
"""Characters of one field of a turn; its trace has all of it."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One execution: what it was asked, and what it answered."""

    trace: Trace
    url: str
    badge: str
    inputs: list[FieldText]
    outputs: list[FieldText]
    facts: list[str]
    caller: str
    caller_url: str

    @property
    def error(self) -> str:
        """What kind of error ended it; empty where none did."""
        return visible(self.trace.error_type)


@dataclass(frozen=True, slots=True)
class Page:
    """Some traces of a session, the oldest first, and whether there are older and newer ones."""

    traces: list[Trace]
    has_earlier: bool
    has_later: bool


def urls(model_admin: Any) -> list[URLPattern]:
    """The address of sessions, whose ids are quoted as Django's admin quotes primary keys."""

    def view(request: HttpRequest, session_id: str) -> HttpResponse:
        return show(model_admin, request, unquote(session_id))

    wrapped = model_admin.admin_site.admin_view(view)
    return [path("session/<path:session_id>/", wrapped, name="dspyserve_trace_session")]


def session_address(request: HttpRequest, session_id: str, query: str = "") -> str:
    """Where the conversation of a session is."""
    return address(request, "session", quote(session_id), query=query)


def show(model_admin: Any, request: HttpRequest, session_id: str) -> HttpResponse:
    """A page of the conversation: `?after=` and `?before=` go on from a place, `?at=` shows what is around a trace."""
    if not model_admin.has_view_permission(request):
        raise PermissionDenied
    if "\x00" in session_id:
        # Databases either cannot hold it or cannot be asked for it.
        raise Http404(_NOBODY)
    traces = of_session(model_admin.get_queryset(request), session_id)
    found = _page(traces, request)
    totals = _totals(traces)
    if not totals["count"]:
        raise Http404(_NOBODY)
    may_read = request.user.has_perm(VIEW_PAYLOAD)
    context = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "title": _("Session %s") % visible(session_id),
        "session_id": visible(session_id),
        "may_read": may_read,
        "turns": _turns(request, found.traces, may_read=may_read),
        "facts": _facts(totals),
        "links": _links(request, session_id, found),
        "media": model_admin.media + MEDIA,
    }
    return TemplateResponse(request, "admin/dspyserve/trace/session.html", context)


def of_session(traces: QuerySet[Trace], session_id: str) -> QuerySet[Trace]:
    """Those of `traces` that belong to a session."""
    # The empty one is ruled out in so many words, because the index leaves it out.
    return traces.filter(session_id=session_id).exclude(session_id="").select_related("user", "api_key")


def traces_of_user(request: HttpRequest, user_id: Any) -> str:
    """The list of all traces of a user."""
    return address(request, "changelist", query=urlencode({"user": user_id, "window": ANY_TIME}))


def _page(traces: QuerySet[Trace], request: HttpRequest) -> Page:
    after, before = _cursor(request, "after"), _cursor(request, "before")
    if before is not None:
        # Pages of a conversation run the other way than those of the list.
        rows, more = page(traces, before, PAGE)
        if rows:
            return Page(rows[::-1], has_earlier=more is not None, has_later=True)
    if (found := _trace(traces, request.GET.get("at", ""))) is not None:
        return _around(traces, found)
    rows = list(newer(traces, after)[: PAGE + 1]) if after is not None else []
    if not rows:
        # Nothing comes after the end: from the beginning, then.
        after, rows = None, list(traces.order_by("started_at", "pk")[: PAGE + 1])
    return Page(rows[:PAGE], has_earlier=after is not None, has_later=len(rows) > PAGE)


def _around(traces: QuerySet[Trace], middle: Trace) -> Page:
    place, half = Cursor.of(middle), PAGE // 2
    earlier = list(older(traces, place)[: half + 1])
    later = list(newer(traces, place)[: PAGE - half])
    shown = [*earlier[:half][::-1], middle, *later[: PAGE - half - 1]]
    return Page(shown, has_earlier=len(earlier) > half, has_later=len(later) == PAGE - half)


def _cursor(request: HttpRequest, name: str) -> Cursor | None:
    try:
        return Cursor.parse(request.GET.get(name, ""))
    except ValueError:
        return None


def _trace(traces: QuerySet[Trace], text: str) -> Trace | None:
    wanted = trace_id_of(text)
    return None if wanted is None else traces.filter(pk=wanted).first()


def _totals(traces: QuerySet[Trace]) -> dict[str, Any]:
    newest = traces.select_related(None).order_by("-started_at", "-pk")[: TOTALS_CAP + 1]
    return newest.aggregate(
        count=Count("pk"),
        failures=Count("pk", filter=~Q(status=Trace.Status.SUCCEEDED)),
        unpriced=Count("pk", filter=Q(cost__isnull=True)),
        cost=Sum("cost"),
        input_tokens=Sum("input_tokens"),
        output_tokens=Sum("output_tokens"),
        duration=Sum("duration_ms"),
    )


def _facts(totals: dict[str, Any]) -> list[tuple[Any, Any]]:
    count, unpriced = totals["count"], totals["unpriced"]
    is_capped = count > TOTALS_CAP
    cost = wording.cost(totals["cost"])
    if unpriced and totals["cost"] is not None:
        cost = _("%(cost)s and %(count)d of unknown cost") % {"cost": cost, "count": unpriced}
    facts = [
        (_("Turns"), _("more than %d") % TOTALS_CAP if is_capped else count),
        (_("Not succeeded"), totals["failures"] or None),
        (_("Tokens"), wording.tokens(totals["input_tokens"], totals["output_tokens"])),
        (_("Cost"), cost),
        (_("Time spent"), wording.duration(totals["duration"])),
        (_("Totals of"), _("the newest %d turns") % (TOTALS_CAP + 1) if is_capped else None),
    ]
    return [(name, value) for name, value in facts if value is not None]


def _links(request: HttpRequest, session_id: str, shown: Page) -> dict[str, str]:
    traces = shown.traces
    earlier = f"before={Cursor.of(traces[0])}" if traces and shown.has_earlier else ""
    later = f"after={Cursor.of(traces[-1])}" if traces and shown.has_later else ""
    return {
        "first": session_address(request, session_id),
        "earlier": session_address(request, session_id, earlier) if earlier else "",
        "later": session_address(request, session_id, later) if later else "",
    }


def _turns(request: HttpRequest, traces: list[Trace], *, may_read: bool) -> list[Turn]:
    texts = _texts(traces) if may_read else {}
    return [
        Turn(
            trace=trace,
            url=address(request, "change", trace.pk),
            badge=status_badge(trace),
            inputs=field_texts(texts.get(trace.pk, payloads.Payload()).inputs, MAX_TEXT),
            outputs=field_texts(texts.get(trace.pk, payloads.Payload()).outputs, MAX_TEXT),
            facts=_turn_facts(trace),
            caller=visible(str(trace.user or trace.api_key or "")),
            caller_url=traces_of_user(request, trace.user_id) if trace.user else "",
        )
        for trace in traces
    ]


def _texts(traces: list[Trace]) -> dict[Any, payloads.Payload]:
    # The run itself is the first span of every trace.
    runs = list(Span.objects.filter(trace__in=[trace.pk for trace in traces], sequence=1))
    found = payloads.read(*runs)
    return {run.trace_id: found[run.pk] for run in runs if run.pk in found}


def _turn_facts(trace: Trace) -> list[str]:
    version = f" v{trace.version_number}" if trace.version_number else ""
    facts = [
        f"{trace.program_name}{version}",
        wording.duration(trace.duration_ms),
        _("%s tokens") % wording.tokens(trace.input_tokens, trace.output_tokens),
        wording.cost(trace.cost) if trace.cost is not None else "",
    ]
    return [visible(fact) for fact in facts if fact]
