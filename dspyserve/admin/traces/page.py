"""The page of one trace: its header, its spans as a tree with a waterfall, and one of them in detail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.contrib.admin.utils import quote
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from dspyserve.access.permissions import VIEW_PAYLOAD
from dspyserve.admin import wording
from dspyserve.admin.plain_text import visible
from dspyserve.admin.traces import payloads, review, span_tree
from dspyserve.admin.traces.addresses import kept
from dspyserve.admin.traces.json_tree import Budget, fields
from dspyserve.admin.traces.replay import may_replay, replays_of
from dspyserve.admin.traces.span import Failure, detail, failure_of, section
from dspyserve.admin.traces.span_views import addresses, value_node
from dspyserve.models import Span, Trace
from dspyserve.tracing.search import ANY_TIME

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing about the trace, with an address where there is more of it."""

    name: str
    value: str
    url: str = ""


def context(trace: Trace, request: HttpRequest, model_admin: ModelAdmin[Trace]) -> dict[str, Any]:
    """What the page's template shows of `trace`; `?span=` chooses the span whose details stand beside the tree."""
    may_read = request.user.has_perm(VIEW_PAYLOAD)
    spans = list(trace.spans.order_by("sequence")[: span_tree.MAX_SPANS])
    picture = span_tree.picture(trace, spans)
    hidden = max(trace.span_count - len(spans), 0)
    root = next((span for span in spans if span.kind == "run"), spans[0] if spans else None)
    chosen = _chosen(trace, spans, request.GET.get("span", ""), hidden)
    wanted = [span for span in (root, chosen) if span is not None]
    found = payloads.read(*wanted) if may_read and wanted else {}
    outputs = found[root.pk].outputs if root is not None and root.pk in found else None
    return {
        "trace": trace,
        "program_name": visible(trace.program_name),
        "facts": facts(trace, model_admin),
        "tags": [(visible(str(tag)), _list(model_admin, tag=tag)) for tag in trace.tags],
        "may_read": may_read,
        "picture": picture,
        "replays": replays_of(model_admin.get_queryset(request), trace),
        "may_replay": trace.program_id is not None and may_replay(request),
        "width": span_tree.WIDTH,
        "hidden_spans": hidden,
        "hidden_errors": max(trace.error_count - picture.errors, 0) if hidden else 0,
        "first_token": _first_token(trace, picture),
        "kept": kept(request),
        **_run(trace, root, found, may_read=may_read),
        "run": addresses(model_admin, request, root) if root is not None else {},
        **_panel(chosen, found, request, model_admin, may_read=may_read),
        "review": review.context(model_admin, request, trace, outputs),
    }


def moment(time: Any) -> str:
    """A point in time in the reader's time zone, to the second."""
    return date_format(timezone.localtime(time), "Y-m-d H:i:s")


def _chosen(trace: Trace, spans: list[Span], span_id: str, hidden: int) -> Span | None:
    if not span_id:
        return None
    found = next((span for span in spans if span.span_id == span_id), None)
    if found is None and hidden:
        found = trace.spans.filter(span_id=span_id[:16]).order_by("sequence").first()
    return found


def _run(trace: Trace, root: Span | None, found: Mapping[int, payloads.Payload], *, may_read: bool) -> dict[str, Any]:
    """The header: what went into the run and what came out of it."""
    budget = Budget()
    run = found.get(root.pk) if root is not None else None
    attributes = run.attributes if run is not None and isinstance(run.attributes, Mapping) else {}
    failure = failure_of(root, attributes, budget) if root is not None and trace.error_type else None
    if trace.error_type and failure is None:
        failure = Failure(visible(trace.error_type))
    if failure is not None and may_read and not failure.message.text:
        failure = replace(failure, message=budget.take(trace.error_message))
    return {
        "failure": failure,
        "run_inputs": section(_("Inputs"), run.inputs, "inputs", budget) if run else None,
        "run_outputs": section(_("Outputs"), run.outputs, "outputs", budget) if run else None,
        "metadata": fields(trace.metadata, "", budget) if may_read else [],
    }


def _panel(
    chosen: Span | None,
    found: Mapping[int, payloads.Payload],
    request: HttpRequest,
    model_admin: Any,
    *,
    may_read: bool,
) -> dict[str, Any]:
    if chosen is None:
        return {"detail": None}
    payload = found.get(chosen.pk, payloads.Payload()) if may_read else None
    node = value_node(chosen, request.GET, payload) if payload is not None and "at" in request.GET else None
    return {"detail": detail(chosen, payload), "node": node, **addresses(model_admin, request, chosen)}


def _first_token(trace: Trace, picture: span_tree.Picture) -> float | None:
    """Where the run's first token stands on the waterfall."""
    if trace.first_token_ms is None or not picture.total_ms:
        return None
    return round(min(trace.first_token_ms / picture.total_ms, 1.0) * span_tree.WIDTH, 2)


def facts(trace: Trace, model_admin: ModelAdmin[Trace]) -> list[Fact]:
    """The trace in a few words, without what is empty."""
    user = trace.user.get_username() if trace.user is not None else ""
    transport = str(Trace.Transport(trace.transport).label) if trace.transport in Trace.Transport else trace.transport
    replayed = trace.replay_of_id.hex if trace.replay_of_id else ""
    found = [
        Fact(_("Duration"), wording.duration(trace.duration_ms)),
        Fact(_("First token"), wording.duration(trace.first_token_ms) if trace.first_token_ms is not None else ""),
        Fact(_("Tokens"), wording.tokens(trace.input_tokens, trace.output_tokens)),
        Fact(_("Cached tokens"), str(trace.cached_tokens) if trace.cached_tokens else ""),
        Fact(_("Cost"), wording.cost(trace.cost)),
        Fact(_("LM calls"), str(trace.lm_calls)),
        Fact(_("Spans"), str(trace.span_count)),
        Fact(_("Errors"), str(trace.error_count) if trace.error_count else ""),
        Fact(_("Model"), trace.model, _list(model_admin, model=trace.model)),
        Fact(_("Started"), moment(trace.started_at)),
        Fact(_("Environment"), trace.environment, _list(model_admin, environment=trace.environment)),
        Fact(_("Transport"), transport, _list(model_admin, transport=trace.transport)),
        Fact(_("User"), user, _list(model_admin, user=user)),
        Fact(_("API key"), str(trace.api_key or "")),
        Fact(_("Session"), trace.session_id, _session(model_admin, trace)),
        Fact(_("Batch"), trace.batch_id, _list(model_admin, batch=trace.batch_id)),
        Fact(_("Request"), trace.request_id),
        Fact(_("Linked trace"), trace.linked_trace_id, _trace(model_admin, trace.linked_trace_id)),
        Fact(_("Replay of"), replayed, _trace(model_admin, replayed)),
    ]
    return [Fact(fact.name, visible(fact.value), fact.url) for fact in found if fact.value]


def _session(model_admin: ModelAdmin[Trace], trace: Trace) -> str:
    """Where the trace stands in the conversation that it belongs to."""
    if not trace.session_id:
        return ""
    address = reverse(f"{model_admin.admin_site.name}:dspyserve_trace_session", args=[quote(trace.session_id)])
    return f"{address}?at={trace.pk.hex}#trace-{trace.pk.hex}"


def _trace(model_admin: ModelAdmin[Trace], trace_id: str) -> str:
    return reverse(f"{model_admin.admin_site.name}:dspyserve_trace_change", args=[trace_id]) if trace_id else ""


def _list(model_admin: ModelAdmin[Trace], **wanted: Any) -> str:
    """The address of the list of traces, filtered; whatever their age, for this trace may be an old one."""
    address = reverse(f"{model_admin.admin_site.name}:dspyserve_trace_changelist")
    return f"{address}?{urlencode({**wanted, 'window': ANY_TIME})}"
