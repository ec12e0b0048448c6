"""Reads traces with all they have: one query for each table and some hundred traces, one trace at a time in memory."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import groupby
from tempfile import SpooledTemporaryFile
from typing import Any, Final

from django.db.models import QuerySet

from dspyserve.models import Feedback, Span, SpanPayload, Trace
from dspyserve.tracing.search import Cursor, page

CHUNK: Final = 500
"""Traces that are read together: one query for each table."""
MEMORY: Final = 4_194_304
"""Bytes of a chunk's pieces that are kept in memory; more wait on disk."""
_PIECE: Final = 262_144
_ROWS: Final = 100


class Spans(Enum):
    """Which spans of a trace a format needs."""

    NONE = "none"
    RUN = "run"
    """The run itself, which has the inputs and the outputs."""
    ALL = "all"


@dataclass(frozen=True, slots=True)
class TraceRecord:
    """A trace with its spans and feedback; `payloads` is whether texts may be told of."""

    trace: Trace
    spans: list[Span]
    feedback: list[Feedback]
    payloads: bool

    @property
    def run(self) -> SpanPayload | None:
        """What went into the run and what came out, where it was kept."""
        run = next((span for span in self.spans if span.kind == "run"), None)
        return getattr(run, "payload", None) if self.payloads else None


Write = Callable[[TraceRecord], bytes]


def pieces(traces: QuerySet[Trace], write: Write, *, spans: Spans, payloads: bool) -> Iterator[bytes]:
    """What `write` makes of each of `traces`, the newest first, some of them together.

    Traces that arrive meanwhile are not among them.
    """
    cursor: Cursor | None = None
    while True:
        rows, cursor = page(traces, cursor, CHUNK)
        if rows:
            yield from _chunk(rows, write, spans, payloads=payloads)
        if cursor is None:
            return


def _chunk(rows: list[Trace], write: Write, spans: Spans, *, payloads: bool) -> Iterator[bytes]:
    # Spans come in the order of their index, trace by trace; pieces go out in the order of the list. In between they
    # wait in a file, so that neither a query is left open while a client reads, nor all of them are in memory.
    feedback, by_id = _feedback(rows), {row.pk: row for row in rows}
    places: dict[uuid.UUID, tuple[int, int]] = {}
    with SpooledTemporaryFile(max_size=MEMORY) as file:
        for trace_id, found in _spans(rows, spans, payloads=payloads):
            piece = write(TraceRecord(by_id.pop(trace_id), found, feedback[trace_id], payloads))
            places[trace_id] = (file.tell(), len(piece))
            file.write(piece)
        for trace_id, row in by_id.items():
            piece = write(TraceRecord(row, [], feedback[trace_id], payloads))
            places[trace_id] = (file.tell(), len(piece))
            file.write(piece)
        yield from _in_order(file, [places[row.pk] for row in rows])


def _in_order(file: Any, places: list[tuple[int, int]]) -> Iterator[bytes]:
    buffer = bytearray()
    for start, size in places:
        file.seek(start)
        while size:
            read = file.read(min(size, _PIECE))
            size -= len(read)
            buffer += read
            if len(buffer) >= _PIECE:
                yield bytes(buffer)
                buffer.clear()
    if buffer:
        yield bytes(buffer)


def _feedback(rows: list[Trace]) -> dict[uuid.UUID, list[Feedback]]:
    found: dict[uuid.UUID, list[Feedback]] = defaultdict(list)
    for opinion in Feedback.objects.filter(trace_id__in=[row.pk for row in rows]).order_by("pk"):
        found[opinion.trace_id].append(opinion)
    return found


def _spans(rows: list[Trace], spans: Spans, *, payloads: bool) -> Iterator[tuple[uuid.UUID, list[Span]]]:
    if spans == Spans.NONE or (spans == Spans.RUN and not payloads):
        return
    found = Span.objects.filter(trace_id__in=[row.pk for row in rows]).order_by("trace_id", "sequence")
    if spans == Spans.RUN:
        found = found.filter(kind="run")
    if payloads:
        found = found.select_related("payload")
    for trace_id, group in groupby(found.iterator(_ROWS), key=lambda span: span.trace_id):
        yield trace_id, list(group)
