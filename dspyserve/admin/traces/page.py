"""The page of one trace: its header, and what of its spans it shows."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext_lazy as _

from dspyserve.access.permissions import VIEW_PAYLOAD
from dspyserve.admin import wording
from dspyserve.admin.traces import payloads, span_tree
from dspyserve.models import Span, SpanPayload, Trace


def context(trace: Trace, request: HttpRequest) -> dict[str, Any]:
    """What the page's template shows of `trace`; `?span=` chooses the span whose details stand beside the tree."""
    spans = list(trace.spans.order_by("sequence")[: span_tree.MAX_SPANS + 1])
    rows = span_tree.rows(trace, spans[: span_tree.MAX_SPANS])
    may_read = request.user.has_perm(VIEW_PAYLOAD)
    chosen = next((row.span for row in rows if row.span.span_id == request.GET.get("span")), None)
    root = rows[0].span if rows else None
    run = _payload(root) if may_read and root is not None else None
    payload = (run if chosen == root else _payload(chosen)) if may_read and chosen is not None else None
    return {
        "trace": trace,
        "facts": _facts(trace),
        "rows": rows,
        "hidden_spans": max(trace.span_count - len(rows), 0),
        "may_read": may_read,
        "inputs": payloads.fields(run.inputs) if run else [],
        "outputs": payloads.fields(run.outputs) if run else [],
        "chosen": chosen,
        "messages_of_span": payloads.messages(payload) if payload else [],
        "sections": payloads.sections(payload) if payload else [],
        "width": span_tree.WIDTH,
    }


def moment(time: Any) -> str:
    """A point in time in the reader's time zone, to the second."""
    return date_format(timezone.localtime(time), "Y-m-d H:i:s")


def _payload(span: Span) -> SpanPayload | None:
    return SpanPayload.objects.filter(pk=span.pk).first()


def _facts(trace: Trace) -> list[tuple[Any, Any]]:
    facts = [
        (_("Duration"), wording.duration(trace.duration_ms)),
        (_("First token"), wording.duration(trace.first_token_ms)),
        (_("Tokens"), wording.tokens(trace.input_tokens, trace.output_tokens)),
        (_("Cost"), wording.cost(trace.cost)),
        (_("Model"), trace.model),
        (_("LM calls"), trace.lm_calls),
        (_("Spans"), trace.span_count),
        (_("Errors"), trace.error_count),
        (_("Started"), moment(trace.started_at)),
        (_("Transport"), Trace.Transport(trace.transport).label if trace.transport in Trace.Transport else ""),
        (_("User"), trace.user),
        (_("Session"), trace.session_id),
        (_("Tags"), ", ".join(map(str, trace.tags))),
        (_("Request"), trace.request_id),
        (_("API key"), trace.api_key),
        (_("Batch"), trace.batch_id),
        (_("Linked trace"), trace.linked_trace_id),
    ]
    return [(name, value) for name, value in facts if value not in (None, "")]
