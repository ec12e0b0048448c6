"""OpenTelemetry's protocol as JSON lines: each line is the `TracesData` of one trace, as the OTLP file exporter writes.

In the protocol's JSON, ids are hexadecimal, 64-bit numbers are text, and enumerations are numbers.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

from dspyserve.encoding import encode
from dspyserve.models import Feedback, Span, Trace
from dspyserve.tracing import otel_names as names
from dspyserve.tracing.export.otlp_attributes import attributes_of, exception_of, feedback_attributes
from dspyserve.tracing.export.reading import TraceRecord

SCOPE: Final = "dspyserve"
INTERNAL, SERVER, CLIENT = 1, 2, 3
"""Of the enumeration `SpanKind`."""
UNSET, OK, ERROR = 0, 1, 2
"""Of the enumeration `StatusCode`."""

_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND: Final = datetime.timedelta(microseconds=1)
_KINDS: Final = {"run": SERVER, "lm": CLIENT}
_STATUS: Final = {Span.Status.OK: OK, Span.Status.ERROR: ERROR}


def line(record: TraceRecord) -> bytes:
    """The trace as one resource with its spans."""
    spans = {"scope": {"name": SCOPE}, "spans": [_span(record, span) for span in record.spans]}
    resource = {"attributes": _pairs(_resource(record.trace))}
    return encode({"resourceSpans": [{"resource": resource, "scopeSpans": [spans]}]}) + b"\n"


def _resource(trace: Trace) -> Iterator[tuple[str, Any]]:
    # The name that the deployment's other telemetry has.
    yield names.SERVICE_NAME, os.environ.get("OTEL_SERVICE_NAME", SCOPE)
    yield names.ENVIRONMENT, trace.environment or None


def _span(record: TraceRecord, span: Span) -> dict[str, Any]:
    start = _nanoseconds(span.started_at)
    parent = {"parentSpanId": span.parent_id} if span.parent_id else {}
    return {
        "traceId": record.trace.id.hex,
        "spanId": span.span_id,
        **parent,
        "name": span.name,
        "kind": _KINDS.get(span.kind, INTERNAL),
        "startTimeUnixNano": str(start),
        "endTimeUnixNano": str(_end(record, span, start)),
        "attributes": _pairs(attributes_of(record, span)),
        "events": list(_events(record, span)),
        "status": {"code": _STATUS.get(Span.Status(span.status), UNSET)},
    }


def _end(record: TraceRecord, span: Span, start: int) -> int:
    if span.duration_ms is not None:
        return start + round(span.duration_ms * 1_000_000)
    # It was still under way when the run was over.
    return max(start, _nanoseconds(record.trace.ended_at or span.started_at))


def _events(record: TraceRecord, span: Span) -> Iterator[dict[str, Any]]:
    if exception := exception_of(record, span):
        ended = _end(record, span, _nanoseconds(span.started_at))
        yield {"timeUnixNano": str(ended), "name": names.EXCEPTION, "attributes": _pairs(exception)}
    for opinion in record.feedback:
        if opinion.span_id == span.span_id or (opinion.span_id == "" and span.kind == "run"):
            yield _opinion(opinion)


def _opinion(opinion: Feedback) -> dict[str, Any]:
    return {
        "timeUnixNano": str(_nanoseconds(opinion.updated_at)),
        "name": names.EVALUATION,
        "attributes": _pairs(feedback_attributes(opinion)),
    }


def _nanoseconds(time: datetime.datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND * 1000


def _pairs(attributes: Iterator[tuple[str, Any]] | list[tuple[str, Any]]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in attributes if value not in (None, "", [])]


def _value(value: Any) -> Mapping[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list | tuple):
        return {"arrayValue": {"values": [_value(item) for item in value]}}
    return {"stringValue": str(value)}
