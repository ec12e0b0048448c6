"""What is asked for: every page of the browser, the list under many filters, and exports."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlencode

from django.utils import timezone

from dspyserve.models import Program, Span, SpanPayload, Trace
from dspyserve.tracing.search import Cursor
from tests.load.browse.mould import NEEDLE

TRACES: Final = "/admin/dspyserve/trace/"
EXPORTED: Final = 10_000
WIDE: Final = 2_500
"""Spans of the large trace; the page sends 2,000 of them."""

SEARCHES: Final = {
    "program": "program:qa",
    "failed": "status:failed",
    "program and failed": "program:shop-3 status:failed",
    "model": "model:openai/gpt-5",
    "environment and tag": "env:staging tag:beta",
    "metadata": "meta.tenant=acme",
    "numbers": "cost>0.04 duration>5s",
    "numbers that nothing has": "cost>5",
    "error type": "error:LMRateLimitError",
    "user": "user:user-7",
    "with feedback": "feedback:helpful",
    "a word that one in a thousand has": NEEDLE,
    "a word that nothing has": "nowhere-to-be-found",
}
"""Of the last seven days, as the list does by itself."""

Addresses = Iterator[tuple[str, str]]


def addresses() -> Addresses:
    """Names and addresses. The large trace is made here."""
    yield from _lists()
    yield from _traces()
    for hours in ("24h", "7d", "30d", "90d"):
        yield f"dashboard, {hours}", f"{TRACES}dashboard/?window={hours}"
    program = Program.objects.get(name="qa")
    yield "programs", "/admin/dspyserve/program/"
    yield "program", f"/admin/dspyserve/program/{program.pk}/change/"
    yield "playground", f"/admin/dspyserve/program/{program.pk}/playground/"


def exports() -> Addresses:
    """Exports of some ten thousand traces: those since a moment."""
    times = Trace.objects.order_by("-started_at", "-pk").values_list("started_at", flat=True)
    since = times[min(EXPORTED, times.count()) - 1]
    for form in ("jsonl", "csv", "dspy", "otlp"):
        asked = urlencode({"format": form, "since": since.isoformat()})
        yield f"export of {EXPORTED:,}, {form}", f"{TRACES}export/?{asked}"


def _lists() -> Addresses:
    yield "list, last 7 days", TRACES
    yield "list, any time", f"{TRACES}?window=any"
    newest = Trace.objects.order_by("-started_at", "-pk").first()
    assert newest is not None
    ordered = Trace.objects.order_by("-started_at", "-pk")
    for share in (0.5, 0.99):
        far = newest.started_at - share * (newest.started_at - ordered.last().started_at)
        row = ordered.filter(started_at__lte=far).first()
        yield f"list, {share:.0%} of all traces back", f"{TRACES}?window=any&after={Cursor.of(row)}"
    for name, search in SEARCHES.items():
        yield f"list: {name}", f"{TRACES}?{urlencode({'q': search})}"
    yield "list: session", f"{TRACES}?{urlencode({'q': f'session:{_with_session().session_id}', 'window': 'any'})}"
    yield "list: trace id", f"{TRACES}?q={newest.pk.hex}"
    yield "list: span id", f"{TRACES}?q={Span.objects.filter(trace=newest).order_by('sequence')[2].span_id}"
    yield "list: unreviewed, any time", f"{TRACES}?reviewed=false&window=any"
    yield "news of the list", f"{TRACES}new/?newest={Cursor.of(ordered[30])}"
    yield "next unreviewed", f"{TRACES}unreviewed/"


def _traces() -> Addresses:
    trace = Trace.objects.filter(status="succeeded", span_count=6).order_by("-started_at", "-pk")[100]
    other = Trace.objects.filter(program=trace.program, span_count=6).order_by("-started_at", "-pk")[50]
    call = Span.objects.filter(trace=trace, kind="lm")[0]
    wide = wide_trace()
    deep = Span.objects.filter(trace=wide, sequence=1_500).get()
    yield "trace, 6 spans", f"{TRACES}{trace.pk}/change/"
    yield "trace with a span chosen", f"{TRACES}{trace.pk}/change/?span={call.span_id}"
    yield "one span", f"{TRACES}{trace.pk}/span/{call.span_id}/"
    yield f"trace, {WIDE:,} spans", f"{TRACES}{wide.pk}/change/"
    yield f"one span of {WIDE:,}", f"{TRACES}{wide.pk}/span/{deep.span_id}/"
    yield "session", f"{TRACES}session/{_with_session().session_id}/"
    yield "two traces compared", f"{TRACES}compare/?a={trace.pk.hex}&b={other.pk.hex}"
    yield "replay form", f"{TRACES}{trace.pk}/replay/"


def _with_session() -> Trace:
    return Trace.objects.exclude(session_id="").order_by("-started_at", "-pk")[100]


def wide_trace() -> Trace:
    """A trace of `WIDE` spans, each with a payload."""
    found = Trace.objects.filter(span_count=WIDE).first()
    if found is not None:
        return found
    now = timezone.now() - datetime.timedelta(minutes=5)
    trace = Trace.objects.create(
        id=uuid.uuid4(),
        program_name="agent",
        status="succeeded",
        transport="rest",
        started_at=now,
        duration_ms=WIDE * 10.0,
        span_count=WIDE,
        lm_calls=WIDE // 2,
    )
    spans = Span.objects.bulk_create(_spans(trace))
    SpanPayload.objects.bulk_create(
        SpanPayload(span=span, inputs={"question": "q" * 300}, outputs={"answer": "a" * 300}) for span in spans
    )
    return trace


def _spans(trace: Trace) -> Iterator[Span]:
    for number in range(WIDE):
        kind = "run" if number == 0 else ("module", "lm")[number % 2]
        yield Span(
            trace=trace,
            sequence=number + 1,
            span_id=f"f{number:015x}",
            parent_id="" if number == 0 else f"f{number - 1 if kind == 'lm' and number > 1 else 0:015x}",
            kind=kind,
            name=kind,
            duration_ms=9.0,
            started_at=trace.started_at + datetime.timedelta(milliseconds=10 * number),
        )
