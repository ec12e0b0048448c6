"""The operations on traces: list, read, export, and say what one thinks of them."""

from __future__ import annotations

import datetime
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.utils.dateparse import parse_datetime
from ninja import Router

from dspyserve.access.identity import Identity
from dspyserve.access.permissions import Right, check_may, may, visible_traces
from dspyserve.api.bodies import read_object
from dspyserve.api.callers import admit
from dspyserve.api.responses import json_response
from dspyserve.api.streaming import StreamedBody
from dspyserve.errors import Fault, InvalidInput, TraceNotFound
from dspyserve.models import Feedback, Span, Trace
from dspyserve.problems import problem
from dspyserve.reviewing.feedback import agive_feedback
from dspyserve.tracing import export
from dspyserve.tracing.documents import feedback_document, payload_document, span_document, trace_document
from dspyserve.tracing.search import Cursor, Limit, Opinion, TraceFilter, page, trace_id_of

router = Router()

PAGE: Final = 50
MAX_PAGE: Final = 200
MAX_AMOUNT: Final = 999_999_999
MAX_SPANS: Final = 2_000
"""Spans that one answer holds; `span_count` tells how many there are."""


@router.get("")
async def list_traces(request: HttpRequest) -> HttpResponse:
    """A page of traces, the newest first, and the cursor of the next page."""
    identity = await admit(request)
    await check_may(identity, Right.VIEW_TRACES)
    query = request.GET.dict()
    size, after = _size(query.pop("limit", None)), _cursor(query.pop("cursor", None))
    payloads = await may(identity, Right.VIEW_PAYLOADS)
    wanted = _filter(query).apply(visible_traces(identity), payloads=payloads)
    rows, following = await sync_to_async(page)(wanted, after, size)
    return json_response(
        {
            "items": [trace_document(row, payloads=payloads) for row in rows],
            "next_cursor": str(following) if following is not None else None,
        }
    )


@router.get("/export")
async def export_traces(request: HttpRequest) -> StreamingHttpResponse:
    """Every trace that the filters leave, one in a line with its spans and feedback, or in another `format`.

    Where it cannot go on, the last line is a `problem`: an export without one is whole.
    """
    identity = await admit(request)
    await check_may(identity, Right.EXPORT)
    query = request.GET.dict()
    form = _format(query.pop("format", "jsonl"))
    payloads = await may(identity, Right.VIEW_PAYLOADS)
    if form.needs_payloads:
        await check_may(identity, Right.VIEW_PAYLOADS)
    wanted = _filter(query).apply(visible_traces(identity), payloads=payloads)
    lines = export.lines(wanted, form, payloads=payloads)
    following = sync_to_async(lambda: next(lines, b""))
    # Read before the headers go out, while an error can still be the answer.
    first = await following()

    async def chunks() -> AsyncIterator[bytes]:
        chunk = first
        while chunk:
            yield chunk
            chunk = await following()

    body = StreamedBody(chunks(), lambda error: form.unfinished(problem(error)))
    response = StreamingHttpResponse(body, content_type=form.content_type)
    response["Content-Disposition"] = f'attachment; filename="traces.{form.extension}"'
    return response


@router.get("/{trace_id}")
async def read_trace(request: HttpRequest, trace_id: str) -> HttpResponse:
    """The trace with its spans, without their payloads, and its feedback."""
    identity = await admit(request)
    await check_may(identity, Right.VIEW_TRACES)
    payloads = await may(identity, Right.VIEW_PAYLOADS)
    return json_response(await sync_to_async(_whole)(identity, trace_id, payloads=payloads))


@router.get("/{trace_id}/spans/{span_id}")
async def read_span(request: HttpRequest, trace_id: str, span_id: str) -> HttpResponse:
    """The span with what went into it and what came out."""
    identity = await admit(request)
    await check_may(identity, Right.VIEW_TRACES)
    await check_may(identity, Right.VIEW_PAYLOADS)
    return json_response(await sync_to_async(_span)(identity, trace_id, span_id))


@router.post("/{trace_id}/feedback")
async def feedback(request: HttpRequest, trace_id: str) -> HttpResponse:
    """Say what you think of the trace, or of one of its spans; a second time under the same name replaces the first."""
    identity = await admit(request)
    await check_may(identity, Right.GIVE_FEEDBACK)
    trace = await sync_to_async(_trace)(identity, trace_id)
    opinion, is_new = await agive_feedback(identity, trace, read_object(request))
    # What the caller has just said is no secret from it.
    return json_response(
        feedback_document(opinion, payloads=True), trace_id=trace.id.hex, status=201 if is_new else 200
    )


def _trace(identity: Identity, trace_id: str) -> Trace:
    wanted = trace_id_of(trace_id)
    trace = visible_traces(identity).filter(pk=wanted).first() if wanted is not None else None
    if trace is None:
        raise TraceNotFound(f"There is no trace {trace_id[:100]!r}.")
    return trace


def _whole(identity: Identity, trace_id: str, *, payloads: bool) -> dict[str, Any]:
    trace = _trace(identity, trace_id)
    spans = Span.objects.filter(trace=trace).order_by("sequence")[:MAX_SPANS]
    opinions = Feedback.objects.filter(trace=trace).order_by("pk")
    return {
        **trace_document(trace, payloads=payloads),
        "spans": [span_document(span) for span in spans],
        "feedback": [feedback_document(opinion, payloads=payloads) for opinion in opinions],
    }


def _span(identity: Identity, trace_id: str, span_id: str) -> dict[str, Any]:
    trace = _trace(identity, trace_id)
    span = Span.objects.filter(trace=trace, span_id=span_id).select_related("payload").first()
    if span is None:
        raise TraceNotFound(f"The trace has no span {span_id[:100]!r}.")
    return {**span_document(span), **payload_document(getattr(span, "payload", None))}


def _filter(query: Mapping[str, str]) -> TraceFilter:
    faults: list[Fault] = []
    values: dict[str, Any] = {}
    for name, text in query.items():
        try:
            if name not in FILTERS:
                raise ValueError("Not a filter.")
            field, reader = FILTERS[name]
            value = reader(text)
            values[field] = (*values.get(field, ()), *value) if isinstance(value, tuple) else value
        except ValueError as error:
            faults.append(Fault(f"/query/{name[:100]}", str(error)))
    if faults:
        raise InvalidInput(faults)
    return TraceFilter(**values)


def _format(name: str) -> export.Format:
    if name not in export.FORMATS:
        raise InvalidInput([Fault("/query/format", f"One of {', '.join(export.FORMATS)} is needed.")])
    return export.FORMATS[name]


def _size(text: str | None) -> int:
    if text is None:
        return PAGE
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= MAX_PAGE):
        raise InvalidInput([Fault("/query/limit", f"A number from 1 to {MAX_PAGE} is needed.")])
    return int(text)


def _cursor(text: str | None) -> Cursor | None:
    try:
        return None if text is None else Cursor.parse(text)
    except ValueError:
        raise InvalidInput([Fault("/query/cursor", "Not a cursor of this list.")]) from None


def _text(text: str) -> str:
    if "\x00" in text or len(text) > 500:
        raise ValueError("At most 500 characters, without NUL.")
    return text


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise ValueError("A whole number is needed.")
    return int(text)


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("true or false is needed.")
    return text == "true"


def _moment(text: str) -> datetime.datetime:
    found = parse_datetime(text)
    if found is None:
        raise ValueError("A time such as 2026-01-31T12:00:00Z is needed.")
    try:
        # Not every database takes every offset from UTC.
        return (found if found.tzinfo else found.replace(tzinfo=datetime.UTC)).astimezone(datetime.UTC)
    except OverflowError:
        raise ValueError("A time between the years 1 and 9999 is needed.") from None


def _one_of(values: list[str]) -> Any:
    def read(text: str) -> str:
        if text not in values:
            raise ValueError(f"One of {', '.join(values)} is needed.")
        return text

    return read


def _listed(text: str) -> tuple[str, ...]:
    return (_text(text),)


def _entry(text: str) -> tuple[tuple[str, str], ...]:
    key, sign, value = _text(text).partition("=")
    if not (key and sign):
        raise ValueError("A name and a value such as tenant=acme are needed.")
    return ((key, value),)


def _opinion(text: str) -> tuple[Opinion, ...]:
    return (Opinion(_text(text)),)


_AMOUNT: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)


def _limit(measure: str, operator: str) -> Any:
    def read(text: str) -> tuple[Limit, ...]:
        if not (_AMOUNT.fullmatch(text) and 0 <= float(text) <= MAX_AMOUNT):
            raise ValueError(f"A number from 0 to {MAX_AMOUNT} is needed.")
        return (Limit(measure, operator, float(text)),)

    return read


FILTERS: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    "program": ("program", _text),
    "version": ("version", _number),
    "status": ("status", _one_of(Trace.Status.values)),
    "transport": ("transport", _one_of(Trace.Transport.values)),
    "model": ("model", _text),
    "environment": ("environment", _text),
    "error_type": ("error_type", _text),
    "has_errors": ("has_errors", _truth),
    "has_feedback": ("has_feedback", _truth),
    "is_reviewed": ("is_reviewed", _truth),
    "feedback": ("opinions", _opinion),
    "session_id": ("session_id", _text),
    "batch_id": ("batch_id", _text),
    "user": ("user", _text),
    "api_key": ("api_key", _text),
    "tag": ("tags", _listed),
    "metadata": ("metadata", _entry),
    "min_duration_ms": ("limits", _limit("duration", ">=")),
    "max_duration_ms": ("limits", _limit("duration", "<=")),
    "min_tokens": ("limits", _limit("tokens", ">=")),
    "max_tokens": ("limits", _limit("tokens", "<=")),
    "min_cost": ("limits", _limit("cost", ">=")),
    "max_cost": ("limits", _limit("cost", "<=")),
    "since": ("since", _moment),
    "until": ("until", _moment),
    "q": ("texts", _listed),
}
"""The parameters of the list and of the export: the field of the filter that each fills, and how it is read."""
