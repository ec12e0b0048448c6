"""Traces, spans and feedback as JSON: what the API gives and what an export holds."""

from __future__ import annotations

from typing import Any

from dspyserve.models import Feedback, Span, SpanPayload, Trace


def trace_document(trace: Trace, *, payloads: bool) -> dict[str, Any]:
    """`trace` without its spans; the beginnings of its texts only with `payloads`."""
    document = {
        "id": trace.id.hex,
        "program": trace.program_name,
        "version": trace.version_number,
        "status": trace.status,
        "transport": trace.transport,
        "model": trace.model,
        "user_id": None if trace.user_id is None else str(trace.user_id),
        "api_key_id": trace.api_key_id,
        "environment": trace.environment,
        "session_id": trace.session_id,
        "request_id": trace.request_id,
        "batch_id": trace.batch_id,
        "linked_trace_id": trace.linked_trace_id,
        "tags": trace.tags,
        "metadata": trace.metadata,
        "started_at": trace.started_at,
        "ended_at": trace.ended_at,
        "duration_ms": trace.duration_ms,
        "first_token_ms": trace.first_token_ms,
        "error_type": trace.error_type,
        "error_code": trace.error_code,
        "span_count": trace.span_count,
        "error_count": trace.error_count,
        "lm_calls": trace.lm_calls,
        "input_tokens": trace.input_tokens,
        "output_tokens": trace.output_tokens,
        "cached_tokens": trace.cached_tokens,
        "cost": trace.cost,
        "truncation": trace.truncation,
    }
    if payloads:
        texts = ("input_preview", "output_preview", "error_message")
        document |= {name: getattr(trace, name) for name in texts}
    return document


def span_document(span: Span) -> dict[str, Any]:
    """`span` without its payload."""
    return {
        "span_id": span.span_id,
        "parent_id": span.parent_id,
        "sequence": span.sequence,
        "kind": span.kind,
        "name": span.name,
        "status": span.status,
        "started_at": span.started_at,
        "duration_ms": span.duration_ms,
        "first_token_ms": span.first_token_ms,
        "model": span.model,
        "input_tokens": span.input_tokens,
        "output_tokens": span.output_tokens,
        "cached_tokens": span.cached_tokens,
        "cost": span.cost,
        "is_cached": span.is_cached,
        "error_type": span.error_type,
    }


def payload_document(payload: SpanPayload | None) -> dict[str, Any]:
    """What went into a span and what came out; all None where nothing was kept."""
    names = ("inputs", "outputs", "messages", "attributes")
    return {name: getattr(payload, name, None) for name in names}


def feedback_document(feedback: Feedback, *, payloads: bool) -> dict[str, Any]:
    """One opinion; only with `payloads` its correction, which repeats texts of the trace."""
    document = {
        "name": feedback.name,
        "span_id": feedback.span_id,
        "author": feedback.author,
        "score": feedback.score,
        "label": feedback.label,
        "comment": feedback.comment,
        "created_at": feedback.created_at,
        "updated_at": feedback.updated_at,
    }
    return {**document, "correction": feedback.correction} if payloads else document
