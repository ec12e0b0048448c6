"""Everything that is known of a trace, as one line of JSON."""

from __future__ import annotations

from dspyserve.encoding import encode
from dspyserve.models import Span
from dspyserve.tracing.documents import feedback_document, payload_document, span_document, trace_document
from dspyserve.tracing.export.reading import TraceRecord


def line(record: TraceRecord) -> bytes:
    """The trace as the API gives it, with its spans, their payloads where they may be told, and its feedback."""
    document = trace_document(record.trace, payloads=record.payloads)
    spans = [_span(span, payloads=record.payloads) for span in record.spans]
    feedback = [feedback_document(opinion, payloads=record.payloads) for opinion in record.feedback]
    return encode({**document, "spans": spans, "feedback": feedback}) + b"\n"


def _span(span: Span, *, payloads: bool) -> dict[str, object]:
    payload = payload_document(getattr(span, "payload", None)) if payloads else {}
    return {**span_document(span), **payload}
