"""What is told of a span, under the names of OpenTelemetry's and OpenInference's conventions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dspyserve.encoding import encode
from dspyserve.models import Feedback, Span, SpanPayload, Trace
from dspyserve.tracing import otel_names as names
from dspyserve.tracing.export.reading import TraceRecord

Attributes = Iterator[tuple[str, Any]]
"""Names and values; None stands for what is not known."""


def attributes_of(record: TraceRecord, span: Span) -> Attributes:
    """Everything of `span`; texts only where they may be told."""
    payload = _payload(record, span)
    yield names.SPAN_KIND, names.SPAN_KINDS.get(span.kind, names.CHAIN)
    yield names.ERROR_TYPE, span.error_type
    if span.kind == "run":
        yield from _run(record.trace)
    elif span.kind == "lm":
        yield from _lm(span, payload)
    elif span.kind == "tool":
        yield names.OPERATION, names.EXECUTE_TOOL
        for name in (names.TOOL_NAME, names.OPENINFERENCE_TOOL_NAME):
            yield name, span.name
    if payload is not None:
        yield from _value(names.INPUT, names.INPUT_TYPE, payload.inputs or payload.messages)
        yield from _value(names.OUTPUT, names.OUTPUT_TYPE, payload.outputs)


def exception_of(record: TraceRecord, span: Span) -> list[tuple[str, Any]]:
    """The error of a span, empty where there is none."""
    if not span.error_type:
        return []
    payload = _payload(record, span)
    told: Mapping[str, Any] = (payload.attributes if payload is not None else None) or {}
    return [
        (names.EXCEPTION_TYPE, span.error_type),
        (names.EXCEPTION_MESSAGE, told.get("error")),
        (names.EXCEPTION_STACKTRACE, told.get("traceback")),
    ]


def feedback_attributes(opinion: Feedback) -> Attributes:
    """One opinion."""
    yield names.EVALUATION_NAME, opinion.name
    yield names.EVALUATION_SCORE, opinion.score
    yield names.EVALUATION_LABEL, opinion.label
    yield names.EVALUATION_EXPLANATION, opinion.comment


def _payload(record: TraceRecord, span: Span) -> SpanPayload | None:
    return getattr(span, "payload", None) if record.payloads else None


def _run(trace: Trace) -> Attributes:
    yield names.OPERATION, names.INVOKE_AGENT
    yield names.AGENT_NAME, trace.program_name
    yield names.AGENT_VERSION, None if trace.version_number is None else str(trace.version_number)
    for name in (names.CONVERSATION, names.SESSION):
        yield name, trace.session_id
    yield names.USER, None if trace.user_id is None else str(trace.user_id)
    yield names.TAGS, [str(tag) for tag in trace.tags]
    yield names.METADATA, _json(trace.metadata) if trace.metadata else None
    yield names.STATUS, trace.status
    yield names.TRANSPORT, trace.transport
    yield names.FIRST_TOKEN, trace.first_token_ms
    yield names.TRUNCATION, _json(trace.truncation) if trace.truncation else None


def _lm(span: Span, payload: SpanPayload | None) -> Attributes:
    provider, slash, model = span.model.partition("/")
    yield names.OPERATION, names.CHAT
    yield names.PROVIDER, provider if slash else None
    yield names.REQUEST_MODEL, model if slash else span.model
    yield names.MODEL, span.model
    for name in (names.USAGE_INPUT, names.TOKENS_INPUT):
        yield name, span.input_tokens
    for name in (names.USAGE_OUTPUT, names.TOKENS_OUTPUT):
        yield name, span.output_tokens
    for name in (names.USAGE_CACHED, names.TOKENS_CACHED):
        yield name, span.cached_tokens
    if span.input_tokens is not None and span.output_tokens is not None:
        yield names.TOKENS_TOTAL, span.input_tokens + span.output_tokens
    yield names.COST, span.cost
    if payload is not None:
        yield from _call(payload)


def _call(payload: SpanPayload) -> Attributes:
    told: Mapping[str, Any] = payload.attributes or {}
    parameters = told.get("parameters") or {}
    yield names.PARAMETERS, _json(parameters) if parameters else None
    for key, name in names.REQUEST_PARAMETERS.items():
        yield name, parameters.get(key) if isinstance(parameters, Mapping) else None
    yield names.RESPONSE_MODEL, told.get("response_model")
    yield names.RESPONSE_ID, told.get("response_id")
    yield names.FINISH_REASONS, [told["finish_reason"]] if told.get("finish_reason") else None
    yield from _messages(names.INPUT_MESSAGES, payload.messages or [])
    answers = payload.outputs if isinstance(payload.outputs, list) else [payload.outputs]
    yield from _messages(names.OUTPUT_MESSAGES, [{"role": "assistant", "content": answer} for answer in answers])


def _messages(prefix: str, messages: list[Any]) -> Attributes:
    for number, message in enumerate(messages):
        if isinstance(message, Mapping):
            yield f"{prefix}.{number}.{names.MESSAGE_ROLE}", str(message.get("role", ""))
            yield f"{prefix}.{number}.{names.MESSAGE_CONTENT}", _text(message.get("content"))


def _value(name: str, type_name: str, value: Any) -> Attributes:
    if value is not None:
        yield name, _text(value)
        yield type_name, names.TEXT if isinstance(value, str) else names.JSON


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    return encode(value).decode()
