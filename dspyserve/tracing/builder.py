"""From the record of a run to the rows of its trace: the same rows whatever door the run came through."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from dspyserve.conf import settings
from dspyserve.events import RUN_START, Event, RunRecord
from dspyserve.models import Program, Span
from dspyserve.tracing.rows import TraceRows
from dspyserve.tracing.sanitize import Sanitizer, clean_text

PREVIEW: Final = 200
_THOUGHTS: Final = frozenset({"reasoning", "trajectory"})
"""Fields that DSPy's ChainOfThought and ReAct put before the answer."""
MAX_SPANS: Final = 50_000
MAX_TOKENS: Final = 10**9
"""More than any execution takes. Providers say what they like; columns do not hold any number."""
_PAYLOAD_BASE: Final = 500
"""About what a trace takes beside its texts, in bytes."""

_TOKENS: Final = ("input_tokens", "output_tokens", "cached_tokens")
_UNKNOWN: Final[Mapping[str, int | None]] = dict.fromkeys(_TOKENS)
_SHAPE: Final = frozenset(
    {
        "inputs",
        "outputs",
        "messages",
        "usage",
        "cost",
        "cached",
        "duration_ms",
        "first_token_ms",
        "error_type",
        "model",
        "program",
        "version",
    }
)
"""What of an event's data has a column of its own, or none."""


def build(record: RunRecord) -> TraceRows:
    """The rows of the trace that `record` tells of."""
    sanitizer = Sanitizer()
    before = sanitizer.budget
    is_full = record.trace_level == Program.TraceLevel.FULL
    spans = _spans(record)
    rows = TraceRows(trace={})
    for sequence, span in enumerate(spans, start=1):
        rows.spans.append(_span_row(sequence, span, sanitizer))
        rows.payloads.append(_payload_row(span, sanitizer) if is_full else None)
    rows.trace = _trace_row(record, spans, sanitizer, is_full=is_full)
    rows.size = before - sanitizer.budget + _PAYLOAD_BASE * (1 + len(spans))
    return rows


class _Span:
    """A span while it is put together from its start and its end."""

    __slots__ = (
        "cost",
        "duration_ms",
        "end",
        "kind",
        "name",
        "parent_id",
        "span_id",
        "start",
        "started_at",
        "status",
        "usage",
    )

    def __init__(self, start: Event, kind: str) -> None:
        self.kind = kind
        self.span_id = start.span_id or ""
        self.parent_id = start.parent_id or ""
        self.name = start.name or kind
        self.started_at = start.at
        self.start: Mapping[str, Any] = start.data
        self.end: Mapping[str, Any] = {}
        self.status: str = Span.Status.UNFINISHED
        self.duration_ms: float | None = None
        self.usage: Mapping[str, int | None] = _UNKNOWN
        self.cost: float | None = None

    def finish(self, end: Event) -> None:
        self.end = end.data
        self.duration_ms = end.data.get("duration_ms")
        self.status = Span.Status.ERROR if "error_type" in end.data else Span.Status.OK
        if told := end.data.get("usage"):
            self.usage = {name: _count(told.get(name)) for name in _TOKENS}
        cost = end.data.get("cost")
        self.cost = cost if isinstance(cost, int | float) and math.isfinite(cost) else None


def _spans(record: RunRecord) -> list[_Span]:
    """In the order of their starts, the run itself first."""
    spans: dict[str, _Span] = {}
    for event in record.events:
        kind, _, moment = event.type.rpartition("_")
        if event.type == RUN_START:
            spans[event.span_id or ""] = _run_span(event, record)
        elif moment == "start" and len(spans) < MAX_SPANS:
            spans[event.span_id or ""] = _Span(event, kind)
        elif event.type == "adapter_parse_end" and "error_type" in event.data:
            spans[event.span_id or ""] = _parse_span(event)
        elif moment == "end" and (span := spans.get(event.span_id or "")) is not None:
            span.finish(event)
    for span_id, texts in record.streamed.items():
        # What a client has read of an answer that never was.
        if (span := spans.get(span_id)) is not None and span.status != Span.Status.OK:
            span.end = {**span.end, "partial_outputs": texts}
    return list(spans.values())


def _run_span(event: Event, record: RunRecord) -> _Span:
    span = _Span(event, "run")
    span.parent_id = record.caller.parent_span_id
    span.start = {"inputs": dict(record.inputs)}
    if record.failure is None:
        span.end = {"outputs": record.outputs}
        span.status = Span.Status.OK
    else:
        failure = record.failure
        span.end = {"error_type": failure.type, "error": failure.message, "traceback": failure.traceback}
        span.status = Span.Status.ERROR
    span.started_at = record.started_at
    span.duration_ms = _milliseconds(record.ended_at - record.started_at)
    return span


def _parse_span(event: Event) -> _Span:
    # An answer that was read tells nothing that its module's outputs do not; one that could not be is a step itself.
    span = _Span(event, "adapter")
    span.finish(event)
    span.started_at = event.at - (span.duration_ms or 0.0) / 1000
    return span


def _span_row(sequence: int, span: _Span, sanitizer: Sanitizer) -> dict[str, Any]:
    start, end = span.start, span.end
    return {
        "sequence": sequence,
        "span_id": span.span_id,
        "parent_id": span.parent_id,
        "kind": span.kind,
        "name": sanitizer.clean_name(span.name)[:200],
        "status": span.status,
        "started_at": _time(span.started_at),
        "duration_ms": span.duration_ms,
        "first_token_ms": end.get("first_token_ms"),
        "model": sanitizer.clean_name(str(end.get("model") or start.get("model") or ""))[:200],
        **span.usage,
        "cost": span.cost,
        "is_cached": bool(end.get("cached")),
        "error_type": str(end.get("error_type", ""))[:200],
    }


def _payload_row(span: _Span, sanitizer: Sanitizer) -> dict[str, Any] | None:
    start, end = span.start, span.end
    given = {
        "inputs": start.get("inputs"),
        "outputs": end.get("outputs"),
        "messages": start.get("messages"),
        "attributes": _attributes(start, end),
    }
    payload = {name: None if value is None else sanitizer.clean(value) for name, value in given.items()}
    return payload if any(value is not None and value != {} for value in payload.values()) else None


def _attributes(start: Mapping[str, Any], end: Mapping[str, Any]) -> dict[str, Any]:
    both = {**start, **end}
    return {key: value for key, value in both.items() if key not in _SHAPE and value is not None and value != ""}


def _trace_row(record: RunRecord, spans: list[_Span], sanitizer: Sanitizer, *, is_full: bool) -> dict[str, Any]:
    lm_spans = [span for span in spans if span.kind == "lm"]
    caller, failure = record.caller, record.failure
    first = record.first_token_at
    return {
        "id": record.trace_id.hex,
        "program_id": record.program_id,
        "program_name": record.program_name,
        "version_id": record.version_id,
        "version_number": record.version_number,
        "model": sanitizer.clean_name(record.model)[:200],
        "status": record.status,
        "transport": caller.transport,
        "user_id": caller.user_id,
        "api_key_id": caller.api_key_id,
        "batch_id": caller.batch_id,
        "linked_trace_id": record.linked_trace_id,
        "environment": settings().environment[:50],
        "session_id": clean_text(caller.session_id)[:200],
        "request_id": clean_text(caller.request_id)[:200],
        "tags": sanitizer.clean(list(caller.tags)),
        "metadata": sanitizer.clean(dict(caller.metadata)),
        "started_at": _time(record.started_at),
        "ended_at": _time(record.ended_at),
        "duration_ms": _milliseconds(record.ended_at - record.started_at),
        "first_token_ms": None if first is None else _milliseconds(first - record.started_at),
        "input_preview": _preview(record.inputs, sanitizer) if is_full else "",
        "output_preview": _preview(record.outputs or {}, sanitizer) if is_full else "",
        "error_type": failure.type[:200] if failure else "",
        "error_code": failure.code if failure else "",
        "error_message": sanitizer.clean(failure.message) if failure and is_full else "",
        "span_count": len(spans),
        "error_count": sum(span.status == Span.Status.ERROR for span in spans),
        "lm_calls": len(lm_spans),
        **{name: _total(span.usage[name] for span in lm_spans) for name in _TOKENS},
        "cost": _cost(lm_spans),
        "truncation": sanitizer.facts,
        "replay_of_id": caller.replay_of or None,
    }


def _preview(fields: Mapping[str, Any], sanitizer: Sanitizer) -> str:
    """The beginning of all fields in one line, without the name of the only one; what led to an answer comes last."""
    ordered = sorted(fields.items(), key=lambda item: item[0] in _THOUGHTS)
    cleaned = sanitizer.sibling(field_limit=PREVIEW, budget=4 * PREVIEW).clean(dict(ordered))
    texts = {name: value if isinstance(value, str) else repr(value) for name, value in cleaned.items()}
    line = next(iter(texts.values())) if len(texts) == 1 else " · ".join(f"{n}: {t}" for n, t in texts.items())
    line = " ".join(line.split())
    return line if len(line) <= PREVIEW else f"{line[: PREVIEW - 1]}…"


def _total(counts: Iterable[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return _count(sum(known)) if known else None


def _count(tokens: int | None) -> int | None:
    """`tokens` where they can be a count; otherwise nobody knows how many they were."""
    return tokens if tokens is not None and 0 <= tokens <= MAX_TOKENS else None


def _cost(lm_spans: list[_Span]) -> float | None:
    """The sum of all calls; unknown as soon as one of them is. A call that never ended may have cost something."""
    costs = [span.cost for span in lm_spans]
    return None if None in costs else float(sum(cost for cost in costs if cost is not None))


def _time(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def _milliseconds(seconds: float) -> float:
    return round(max(0.0, seconds) * 1000, 3)
