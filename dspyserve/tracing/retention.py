"""How long traces are kept, and deleting them without loading them."""

from __future__ import annotations

import datetime
import uuid
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from dspyserve.models import Feedback, Span, SpanPayload, Trace
from dspyserve.tracing import store

CHUNK = 500
"""Traces per transaction: a longer one would hold up the writer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is kept: traces younger than `age`, and the newest `count` of them. None limits nothing.

    With `programs`, only their traces are meant, and `count` is for each of them. Traces with feedback are kept
    whatever their age, unless `with_feedback`; they count among the newest.
    """

    age: datetime.timedelta | None = None
    count: int | None = None
    programs: tuple[str, ...] = ()
    with_feedback: bool = False

    @property
    def is_nothing(self) -> bool:
        """Whether all is kept."""
        return self.age is None and self.count is None

    def beyond(self) -> QuerySet[Trace]:
        """The traces that are not kept."""
        traces = Trace.objects.using(store.database())
        if self.is_nothing:
            return traces.none()
        if self.programs:
            traces = traces.filter(program_name__in=self.programs)
        traces = traces.filter(self._too_old() | self._too_many())
        return traces if self.with_feedback else traces.exclude(_has_feedback())

    def spared(self) -> QuerySet[Trace]:
        """The traces that would not be kept but for their feedback."""
        every = Limits(age=self.age, count=self.count, programs=self.programs, with_feedback=True)
        return every.beyond().filter(_has_feedback()) if not self.with_feedback else every.beyond().none()

    def _too_old(self) -> Q:
        return Q(pk__in=[]) if self.age is None else Q(started_at__lt=timezone.now() - self.age)

    def _too_many(self) -> Q:
        condition = Q(pk__in=[])
        for program in self.programs or (None,) if self.count is not None else ():
            condition |= _older_than_newest(self.count or 0, program)
        return condition


def delete(traces: QuerySet[Trace]) -> int:
    """Delete `traces` with their spans, payloads and feedback, in chunks: how many. Rollups stay as they are."""
    alias, count = store.database(), 0
    traces = traces.using(alias).order_by("pk")
    last: uuid.UUID | None = None
    while True:
        # Beyond the last one, so that those that are kept are not read again for every chunk.
        following = traces if last is None else traces.filter(pk__gt=last)
        ids = list(following.values_list("pk", flat=True)[:CHUNK])
        if not ids:
            return count
        last = ids[-1]
        with transaction.atomic(using=alias):
            count += _delete_chunk(alias, _locked(alias, traces, ids))


def _locked(alias: str, traces: QuerySet[Trace], ids: list[uuid.UUID]) -> list[uuid.UUID]:
    """Those of `ids` that are among `traces` still: feedback may have come meanwhile. From here on it has to wait."""
    list(Trace.objects.using(alias).filter(pk__in=ids).order_by("pk").select_for_update().values_list("pk"))
    return list(traces.filter(pk__in=ids).values_list("pk", flat=True))


def _delete_chunk(alias: str, ids: list[uuid.UUID]) -> int:
    for query in (
        SpanPayload.objects.using(alias).filter(span__trace_id__in=ids),
        Feedback.objects.using(alias).filter(trace_id__in=ids),
        Span.objects.using(alias).filter(trace_id__in=ids),
        Trace.objects.using(alias).filter(pk__in=ids),
    ):
        # Past the collector, which would fetch every row in order to delete it.
        query._raw_delete(alias)  # type: ignore[attr-defined]
    return len(ids)


def _has_feedback() -> Exists:
    return Exists(Feedback.objects.filter(trace=OuterRef("pk")))


def _older_than_newest(count: int, program: str | None) -> Q:
    traces = Trace.objects.using(store.database()).order_by("-started_at", "-pk")
    mine = Q() if program is None else Q(program_name=program)
    first_gone = traces.filter(mine).values_list("started_at", "pk")[count : count + 1]
    for started_at, pk in first_gone:
        return mine & Q(started_at__lte=started_at) & (Q(started_at__lt=started_at) | Q(pk__lte=pk))
    return Q(pk__in=[])
