"""Traces out of the database, many at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

from django.db.models import QuerySet

from dspyserve.encoding import encode
from dspyserve.models import Feedback, Span, Trace
from dspyserve.tracing.documents import feedback_document, payload_document, span_document, trace_document
from dspyserve.tracing.search import Cursor, page

CHUNK: Final = 500
"""Traces that are read together: one query for each table."""


def jsonl(traces: QuerySet[Trace], *, payloads: bool) -> Iterator[bytes]:
    """Lines of JSON, one trace with its spans and feedback in each, the newest first, some hundreds at a time.

    Traces that arrive meanwhile are not among them. `payloads` is whether inputs, outputs and messages are.
    """
    cursor: Cursor | None = None
    while True:
        rows, cursor = page(traces, cursor, CHUNK)
        if rows:
            yield b"".join(encode(document) + b"\n" for document in _documents(rows, payloads=payloads))
        if cursor is None:
            return


def _documents(rows: list[Trace], *, payloads: bool) -> Iterator[dict[str, Any]]:
    ids = [row.pk for row in rows]
    spans, feedback = defaultdict(list), defaultdict(list)
    found = Span.objects.filter(trace_id__in=ids).order_by("trace_id", "sequence")
    for span in found.select_related("payload") if payloads else found:
        payload = payload_document(getattr(span, "payload", None)) if payloads else {}
        spans[span.trace_id].append({**span_document(span), **payload})
    for opinion in Feedback.objects.filter(trace_id__in=ids).order_by("pk"):
        feedback[opinion.trace_id].append(feedback_document(opinion))
    for row in rows:
        yield {**trace_document(row, payloads=payloads), "spans": spans[row.pk], "feedback": feedback[row.pk]}
