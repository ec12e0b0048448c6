"""Deleting traces without loading them."""

from __future__ import annotations

from django.db import transaction
from django.db.models import QuerySet

from dspyserve.models import Feedback, Span, SpanPayload, Trace
from dspyserve.tracing import store

CHUNK = 500
"""Traces per transaction: a longer one would hold up the writer."""


def delete(traces: QuerySet[Trace]) -> int:
    """Delete `traces` with their spans, payloads and feedback, in chunks. Returns how many."""
    alias, count = store.database(), 0
    while ids := list(traces.using(alias).order_by("pk").values_list("pk", flat=True)[:CHUNK]):
        with transaction.atomic(using=alias):
            for query in (
                SpanPayload.objects.using(alias).filter(span__trace_id__in=ids),
                Feedback.objects.using(alias).filter(trace_id__in=ids),
                Span.objects.using(alias).filter(trace_id__in=ids),
                Trace.objects.using(alias).filter(pk__in=ids),
            ):
                # Past the collector, which would fetch every row in order to delete it.
                query._raw_delete(alias)  # type: ignore[attr-defined]
        count += len(ids)
    return count
