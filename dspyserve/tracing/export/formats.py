"""The formats of an export."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils.translation import gettext_lazy as _

from dspyserve.encoding import encode
from dspyserve.models import Feedback, Trace
from dspyserve.problems import as_request_error, problem
from dspyserve.tracing.export import examples, full, otlp, summary
from dspyserve.tracing.export.reading import Spans, Write, pieces

logger = logging.getLogger(__name__)

JSON_LINES: Final = "application/x-ndjson"


def _nothing() -> bytes:
    return b""


def _all(traces: QuerySet[Trace]) -> QuerySet[Trace]:
    return traces


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How traces are written, and what of them has to be read for it."""

    title: Any
    write: Write
    spans: Spans
    extension: str = "jsonl"
    content_type: str = JSON_LINES
    head: Callable[[], bytes] = _nothing
    suitable: Callable[[QuerySet[Trace]], QuerySet[Trace]] = _all
    needs_payloads: bool = False
    """Whether nothing is left of it without texts."""

    def unfinished(self, told: dict[str, Any]) -> bytes:
        """The last line of an export that could not go on."""
        line = encode({"problem": told}) + b"\n"
        return line if self.content_type == JSON_LINES else b'"not complete",' + line


FORMATS: Final = {
    "jsonl": Format(
        title=_("JSONL, everything"),
        write=full.line,
        spans=Spans.ALL,
    ),
    "csv": Format(
        title=_("CSV, a summary"),
        write=summary.row,
        spans=Spans.RUN,
        extension="csv",
        content_type="text/csv; charset=utf-8",
        head=summary.head,
    ),
    "dspy": Format(
        title=_("DSPy examples"),
        write=examples.line,
        spans=Spans.RUN,
        suitable=examples.succeeded,
        needs_payloads=True,
    ),
    "otlp": Format(
        title=_("OpenTelemetry, OTLP/JSON"),
        write=otlp.line,
        spans=Spans.ALL,
    ),
}
"""Every format, by the name that it is asked for."""


def with_feedback(traces: QuerySet[Trace], kind: str) -> QuerySet[Trace]:
    """Those that people and programs have judged: `any`, or `positive`, which is all scores above zero and at least one
    of them, or a correction.
    """
    opinions = Feedback.objects.filter(trace=OuterRef("pk"))
    if kind == "any":
        return traces.filter(Exists(opinions))
    is_liked = Exists(opinions.filter(score__gt=0)) & ~Exists(opinions.filter(score__lte=0))
    return traces.filter(Q(is_liked) | Q(Exists(opinions.filter(correction__isnull=False))))


def lines(traces: QuerySet[Trace], form: Format, *, payloads: bool) -> Iterator[bytes]:
    """The file of `traces`, piece by piece, the newest first. `payloads` is whether texts may be told of."""
    if head := form.head():
        yield head
    yield from pieces(form.suitable(traces), form.write, spans=form.spans, payloads=payloads)


def jsonl(traces: QuerySet[Trace], *, payloads: bool) -> Iterator[bytes]:
    """Everything, as lines of JSON."""
    return lines(traces, FORMATS["jsonl"], payloads=payloads)


def finished(chunks: Iterator[bytes], form: Format) -> Iterator[bytes]:
    """`chunks`, and where they break off a last line that says so: once the head of an answer is out, nothing else
    could tell its reader.
    """
    try:
        yield from chunks
    except Exception as error:
        logger.exception("An export broke off")
        yield form.unfinished(problem(as_request_error(error)))
