"""The operations on traces."""

from __future__ import annotations

from typing import Any, Final

from dspyserve.api.openapi.components import ref
from dspyserve.api.openapi.operations import PROBLEMS, Operations, answer, body
from dspyserve.api.traces import FILTERS, MAX_AMOUNT, MAX_PAGE, PAGE
from dspyserve.models import Trace
from dspyserve.tracing.export import FORMATS
from dspyserve.tracing.export.formats import JSON_LINES
from dspyserve.tracing.search import CURSOR

_TEXT: Final = {"type": "string", "maxLength": 500, "pattern": "^[^\\u0000]*$"}
_AMOUNT: Final = {"type": "number", "minimum": 0, "maximum": MAX_AMOUNT}
_SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    "version": {"type": "integer", "minimum": 0, "maximum": 999_999_999},
    "status": {"type": "string", "enum": Trace.Status.values},
    "transport": {"type": "string", "enum": Trace.Transport.values},
    "has_errors": {"type": "boolean"},
    "has_feedback": {"type": "boolean"},
    "is_reviewed": {"type": "boolean"},
    "metadata": {"type": "string", "maxLength": 500, "pattern": "^[^=\\u0000]+=[^\\u0000]*$"},
    **{f"{end}_{measure}": _AMOUNT for end in ("min", "max") for measure in ("duration_ms", "tokens", "cost")},
    "since": {"type": "string", "format": "date-time"},
    "until": {"type": "string", "format": "date-time"},
}
_DESCRIPTIONS: Final = {
    "is_reviewed": "Whether a person or an API key has given feedback.",
    "feedback": "With feedback of this name.",
    "user": "A user's name or id.",
    "api_key": "The name, prefix or id of an API key.",
    "metadata": "A name and its value, such as `tenant=acme`.",
    "min_tokens": "Input and output together.",
    "max_tokens": "Likewise.",
    "min_cost": "US dollars; traces of unknown cost are left out.",
    "max_cost": "Likewise.",
    "since": "The time from which on; included.",
    "until": "The time up to which; not included.",
    "q": "The id of a trace, a batch or a span, or text in sessions, errors and, where you may see them, inputs and "
    "outputs; of the seven days before `until` or before now unless `since` says otherwise.",
}


def add_traces(operations: Operations) -> None:
    """Add them all."""
    filters = [_query(name, _SCHEMAS.get(name, _TEXT), _DESCRIPTIONS.get(name, "")) for name in FILTERS]
    trace = {
        "name": "trace_id",
        "in": "path",
        "required": True,
        "description": "32 hex digits; hyphens do no harm.",
        "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        "example": "4bf92f3577b34da6a3ce929d0e0e4736",
    }
    span = {
        "name": "span_id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
    }
    paging = [
        _query("limit", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": PAGE}, "Traces on a page."),
        _query("cursor", {"type": "string", "pattern": CURSOR}, "`next_cursor` of the page before."),
    ]
    form = _query(
        "format",
        {"type": "string", "enum": list(FORMATS), "default": "jsonl"},
        "Everything as lines of JSON; a table; examples for `dspy.Example`; OTLP/JSON, a trace in every line.",
    )
    found, listed = (*PROBLEMS, 404), (*PROBLEMS, 422)
    operations.add(
        "get", "/traces", "listTraces", "traces", "List traces", ok=ref("TracePage"), problems=listed,
        parameters=[*paging, *filters],
    )  # fmt: skip
    added = operations.add(
        "get", "/traces/export", "exportTraces", "traces", "Export traces", ok={}, problems=listed,
        parameters=[form, *filters],
    )  # fmt: skip
    lines = {
        "type": "string",
        "description": "A trace with its spans and feedback in every line; the last may be a problem.",
    }
    added["responses"]["200"] = answer("Lines of JSON, or a table", JSON_LINES, lines)
    added["responses"]["200"]["content"]["text/csv"] = {"schema": {"type": "string"}}
    operations.add(
        "get", "/traces/{trace_id}", "readTrace", "traces", "Read a trace", ok=ref("TraceDetail"), problems=found,
        parameters=[trace],
    )  # fmt: skip
    operations.add(
        "get", "/traces/{trace_id}/spans/{span_id}", "readSpan", "traces", "Read a span with its payload",
        ok=ref("SpanDetail"), problems=found, parameters=[trace, span],
    )  # fmt: skip
    added = operations.add(
        "post", "/traces/{trace_id}/feedback", "giveFeedback", "traces", "Give feedback on a trace",
        ok=ref("Feedback"), problems=tuple(sorted({*found, 400, 413, 415, 422})), parameters=[trace],
        requestBody=body(ref("FeedbackRequest"), example={"name": "helpful", "score": 1, "comment": "To the point."}),
    )  # fmt: skip
    added["responses"]["200"]["description"] = "Your earlier feedback of this name is replaced"
    added["responses"]["201"] = answer("Your feedback is stored", "application/json", ref("Feedback"), "X-Trace-Id")


def _query(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, **({"description": description} if description else {})}
