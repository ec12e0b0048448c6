"""Schemas that all operations share: problems, options, events, traces, feedback."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from dspyserve.conf import settings
from dspyserve.events import FIELD, FIELD_RESET, RUN_CANCELLED, RUN_ERROR, RUN_START, STATUS, TOKEN
from dspyserve.models import Trace
from dspyserve.programs.options import MAX_LABEL
from dspyserve.reviewing.feedback import OPINIONS

STRING: Final = {"type": "string"}
NUMBER: Final = {"type": "number"}
INTEGER: Final = {"type": "integer"}
BOOLEAN: Final = {"type": "boolean"}
OBJECT: Final = {"type": "object", "additionalProperties": True}
TRACE_ID: Final = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
SPAN_ID: Final = {"type": "string", "pattern": "^[0-9a-f]{16}$"}
MOMENT: Final = {"type": "string", "format": "date-time"}

SPAN_KINDS: Final = ("module", "lm", "tool", "evaluate", "compile", "interpreter")
USAGE: Final = {
    "type": "object",
    "description": "Tokens; empty where nobody told.",
    "properties": dict.fromkeys(("input_tokens", "output_tokens", "cached_tokens"), INTEGER),
    "additionalProperties": False,
}


def nullable(schema: dict[str, Any]) -> dict[str, Any]:
    """`schema` or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def ref(name: str) -> dict[str, Any]:
    """A reference to the schema `name`."""
    return {"$ref": f"#/components/schemas/{name}"}


def closed(properties: dict[str, Any], *, optional: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """An object of these properties alone; all but the `optional` are always there."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False, **more}


def options() -> dict[str, Any]:
    """What may stand beside the inputs."""
    label = {"type": "string", "maxLength": MAX_LABEL}
    return {
        "session_id": {**nullable(label), "description": "Kept with the trace: the conversation that it belongs to."},
        "tags": {
            **nullable({"type": "array", "items": label, "maxItems": settings().max_tags}),
            "description": "Kept with the trace.",
        },
        "metadata": {
            **nullable(OBJECT),
            "description": f"Kept with the trace; at most {settings().max_metadata} bytes of JSON.",
        },
        "timeout": {
            **nullable({"type": "number", "exclusiveMinimum": 0}),
            "description": f"The deadline in seconds, at most {settings().max_timeout:g}.",
        },
    }


def stream_options() -> dict[str, Any]:
    """What may stand beside the inputs of a stream."""
    described = "What becomes of the execution when nobody reads the stream any more: by default it is stopped."
    on_disconnect = {**nullable({"enum": ["cancel", "continue"]}), "description": described}
    return {**options(), "on_disconnect": on_disconnect}


INDEX: Final = {"index": {"type": "integer", "minimum": 0, "description": "Of the item, in the order of the request."}}


def result(outputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A successful execution."""
    return closed({**more, "trace_id": TRACE_ID, "program": STRING, **_conclusion(outputs)})


def run_end(outputs: dict[str, Any]) -> dict[str, Any]:
    """The event that ends a successful execution."""
    return _event({"type": {"const": "run_end"}, **_conclusion(outputs)}, "The execution succeeded. The last event.")


def _conclusion(outputs: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": nullable(INTEGER),
        "outputs": outputs,
        "usage": USAGE,
        "cost": {**nullable(NUMBER), "description": "US dollars; null where it is not known."},
        "duration_ms": NUMBER,
        "trace_stored": {"type": "boolean", "description": "Whether the trace is committed already."},
    }


def _event(own: dict[str, Any], description: str, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    shared = {
        "seq": {"type": "integer", "minimum": 1, "description": "Counts from 1 without gaps."},
        "trace_id": TRACE_ID,
        "at": {"type": "number", "description": "Seconds since the epoch."},
        "span_id": SPAN_ID,
        "parent_id": SPAN_ID,
        "name": STRING,
    }
    properties = {**own, **{name: schema for name, schema in shared.items() if name not in own}}
    identities = tuple({"span_id", "parent_id", "name"} - own.keys())
    schema = closed(properties, optional=(*optional, *identities), description=description)
    # Events may come to carry more.
    return {**schema, "additionalProperties": True}


@cache
def events() -> dict[str, Any]:
    """The events whose shape is the same for all programs, by the name of their schema."""
    end = {"reason": {"enum": ["client", "deadline", "shutdown"]}, "trace_stored": nullable(BOOLEAN)}
    token = {"span_id": SPAN_ID, "predictor": STRING, "field": STRING}
    span = {"span_id": SPAN_ID, "parent_id": SPAN_ID, "name": STRING}
    texts = "Inputs, outputs and messages are only there for callers who may see payloads."
    return {
        "RunStart": _event(
            {
                "type": {"const": RUN_START},
                "program": STRING,
                "version": nullable(INTEGER),
                "model": STRING,
                "resume_token": {"type": "string", "description": "With it, an anonymous caller may read on later."},
            },
            "The execution began. The first event.",
            optional=("resume_token",),
        ),
        "SpanStart": _event(
            {"type": {"enum": [f"{kind}_start" for kind in SPAN_KINDS]}, **span},
            f"A step of the execution began. {texts}",
        ),
        "SpanEnd": _event(
            {
                "type": {"enum": [*(f"{kind}_end" for kind in SPAN_KINDS), "adapter_parse_end"]},
                **span,
                "duration_ms": NUMBER,
                "error_type": STRING,
                "usage": USAGE,
                "cost": nullable(NUMBER),
            },
            f"A step of the execution ended. {texts}",
            optional=("error_type", "usage", "cost"),
        ),
        "Token": _event(
            {"type": {"const": TOKEN}, **token, "delta": STRING, "first_seq": INTEGER},
            "A piece of a text field. Where pieces were merged for a slow reader, they are those from `first_seq` on.",
            optional=("first_seq",),
        ),
        "Field": _event(
            {"type": {"const": FIELD}, **token, "value": {"description": "Any JSON."}},
            "A field that does not stream as text, whole.",
        ),
        "FieldReset": _event(
            {"type": {"const": FIELD_RESET}, **token}, "The pieces of this field so far do not count; it begins anew."
        ),
        "Status": _event({"type": {"const": STATUS}, "message": STRING}, "What the program says of itself."),
        "RunError": _event(
            {"type": {"const": RUN_ERROR}, "problem": ref("Problem"), "trace_stored": nullable(BOOLEAN)},
            "The execution failed. The last event.",
        ),
        "RunCancelled": _event(
            {"type": {"const": RUN_CANCELLED}, **end, "problem": ref("Problem")},
            "The execution was stopped. The last event.",
            optional=("problem",),
        ),
    }


def frame(data: dict[str, Any], description: str) -> dict[str, Any]:
    """One server-sent event, whose data is `data`."""
    properties = {"id": {"type": "string", "pattern": "^[0-9]+$"}, "event": STRING, "data": data}
    return closed(properties, description=description)


def event_union(run_end_schema: str) -> dict[str, Any]:
    """Every event of one program's streams, told apart by `type`."""
    shared = events()
    mapping = {}
    for name, schema in shared.items():
        kind = schema["properties"]["type"]
        for value in kind.get("enum") or [kind["const"]]:
            mapping[value] = ref(name)["$ref"]
    mapping["run_end"] = ref(run_end_schema)["$ref"]
    return {
        "oneOf": [*(ref(name) for name in shared), ref(run_end_schema)],
        "discriminator": {"propertyName": "type", "mapping": mapping},
    }


def problem(**more: Any) -> dict[str, Any]:
    """RFC 9457, and our members."""
    fault = closed(
        {"pointer": {"type": "string", "description": "RFC 6901, into the body."}, "message": STRING},
        description="One thing that is wrong.",
    )
    return closed(
        {
            **more,
            "type": STRING,
            "title": STRING,
            "status": INTEGER,
            "detail": STRING,
            "code": {"type": "string", "description": "Stable, for programs to decide by."},
            "trace_id": {**nullable(TRACE_ID), "description": "Where an execution began."},
            "trace_stored": BOOLEAN,
            "retry_after": {"type": "number", "description": "Seconds."},
            "errors": {"type": "array", "items": fault},
        },
        optional=("trace_stored", "retry_after", "errors"),
        description="What went wrong, as RFC 9457 says it.",
    )


def traces() -> dict[str, Any]:
    """Traces, spans and feedback, by the name of their schema."""
    texts = ("input_preview", "output_preview", "error_message")
    trace = {
        "id": TRACE_ID,
        "program": STRING,
        "version": nullable(INTEGER),
        "status": {"enum": Trace.Status.values},
        "transport": STRING,
        "model": STRING,
        "user_id": nullable(STRING),
        "api_key_id": nullable(INTEGER),
        "environment": STRING,
        "session_id": STRING,
        "request_id": STRING,
        "batch_id": STRING,
        "linked_trace_id": STRING,
        "tags": {"type": "array", "items": {}},
        "metadata": OBJECT,
        "started_at": MOMENT,
        "ended_at": nullable(MOMENT),
        "duration_ms": nullable(NUMBER),
        "first_token_ms": nullable(NUMBER),
        "error_type": STRING,
        "error_code": STRING,
        **dict.fromkeys(("span_count", "error_count", "lm_calls"), INTEGER),
        **{name: nullable(INTEGER) for name in ("input_tokens", "output_tokens", "cached_tokens")},
        "cost": nullable(NUMBER),
        "truncation": OBJECT,
        **dict.fromkeys(texts, STRING),
    }
    span = {
        "span_id": STRING,
        "parent_id": STRING,
        "sequence": INTEGER,
        "kind": STRING,
        "name": STRING,
        "status": {"enum": ["ok", "error", "unfinished"]},
        "started_at": MOMENT,
        "duration_ms": nullable(NUMBER),
        "first_token_ms": nullable(NUMBER),
        "model": STRING,
        **{name: nullable(INTEGER) for name in ("input_tokens", "output_tokens", "cached_tokens")},
        "cost": nullable(NUMBER),
        "is_cached": BOOLEAN,
        "error_type": STRING,
    }
    payload: dict[str, Any] = {"inputs": {}, "outputs": {}, "messages": {}, "attributes": {}}
    feedback = {
        "name": STRING,
        "span_id": STRING,
        "author": {"type": "string", "description": "Such as user:5 or key:3."},
        "score": nullable(NUMBER),
        "label": STRING,
        "comment": STRING,
        "correction": {"description": "Only there for callers who may see payloads."},
        "created_at": MOMENT,
        "updated_at": MOMENT,
    }
    lists = {
        "spans": {"type": "array", "items": ref("Span")},
        "feedback": {"type": "array", "items": ref("Feedback")},
    }
    return {
        "Trace": closed(trace, optional=texts),
        "TraceDetail": closed({**trace, **lists}, optional=texts),
        "TracePage": closed({"items": {"type": "array", "items": ref("Trace")}, "next_cursor": nullable(STRING)}),
        "Span": closed(span),
        "SpanDetail": closed({**span, **payload}),
        "Feedback": closed(feedback, optional=("correction",)),
        "FeedbackRequest": _feedback_request(),
    }


def _feedback_request() -> dict[str, Any]:
    def text(limit: int) -> dict[str, Any]:
        # No NUL and no lone surrogate.
        return {"type": "string", "minLength": 1, "maxLength": limit, "pattern": "^[^\\u0000]*$"}

    properties = {
        "name": {**text(100), "description": "What is judged, such as helpful."},
        "span_id": {**nullable(SPAN_ID), "description": "The span that is meant; the whole trace without it."},
        "score": nullable(NUMBER),
        "label": nullable(text(200)),
        "comment": nullable(text(20_000)),
        "correction": {
            **nullable(OBJECT),
            "description": "Output fields of the program as they should have been; they must fit its outputs.",
        },
    }
    optional = tuple(properties.keys() - {"name"})
    silence = {"properties": {name: {"type": "null"} for name in OPINIONS}}
    return {**closed(properties, optional=optional, description="At least one opinion."), "not": silence}
