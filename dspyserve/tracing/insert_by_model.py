"""The rows of traces into any database, through Django's models.

Slower: `bulk_create` takes several times as long to put a statement together as a database takes to execute it.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.db import transaction

from dspyserve.models import Span, SpanPayload, Trace, TraceRollup
from dspyserve.tracing.columns import Row
from dspyserve.tracing.insert import ROLLUP_KEY, ROLLUP_VALUES, Spans


def prepare(alias: str, trace: Row, spans: Spans) -> tuple[Row, Spans]:
    """As `Way.prepare`: the rows as they are, for all is left to the models."""
    return trace, spans


def insert(alias: str, prepared: Sequence[tuple[Row, Spans]], rollups: Sequence[Row]) -> None:
    """As `Way.insert`."""
    spans = [(Span(**row), payload) for _, rows in prepared for row, payload in rows]
    with transaction.atomic(using=alias):
        Trace.objects.using(alias).bulk_create([Trace(**row) for row, _ in prepared])
        # The ids come back with the insert, on SQLite and on PostgreSQL.
        Span.objects.using(alias).bulk_create([span for span, _ in spans])
        SpanPayload.objects.using(alias).bulk_create(
            [SpanPayload(span_id=span.pk, **payload) for span, payload in spans if payload is not None]
        )
        TraceRollup.objects.using(alias).bulk_create(
            [TraceRollup(**row) for row in rollups],
            update_conflicts=True,
            unique_fields=ROLLUP_KEY,
            update_fields=ROLLUP_VALUES,
        )
