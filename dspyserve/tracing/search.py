"""Finding traces: the conditions of the admin's list and of the API, and pages that never skip or repeat a row."""

from __future__ import annotations

import datetime
import re
import uuid
from dataclasses import dataclass
from typing import Any, Final

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from dspyserve.models import Feedback, Trace

TEXT_WINDOW: Final = datetime.timedelta(days=7)
"""How far back a text is searched where nothing is said: without a window it would read the whole table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceFilter:
    """Which traces are wanted; what is None does not matter."""

    program: str | None = None
    version: int | None = None
    status: str | None = None
    transport: str | None = None
    model: str | None = None
    has_errors: bool | None = None
    has_feedback: bool | None = None
    session_id: str | None = None
    batch_id: str | None = None
    user_id: Any = None
    tag: str | None = None
    since: datetime.datetime | None = None
    until: datetime.datetime | None = None
    text: str | None = None

    def apply(self, traces: QuerySet[Trace], *, payloads: bool) -> QuerySet[Trace]:
        """Those of `traces` that are wanted; `payloads` is whether texts of inputs and outputs may be searched."""
        columns = {
            "program_name": self.program,
            "version_number": self.version,
            "status": self.status,
            "transport": self.transport,
            "model": self.model,
            "session_id": self.session_id,
            "batch_id": self.batch_id,
            "user_id": self.user_id,
            "started_at__gte": self._since(),
            "started_at__lt": self.until,
        }
        traces = traces.filter(**{name: value for name, value in columns.items() if value is not None})
        for name in ("session_id", "batch_id"):
            if columns[name]:
                # Said once more, because their indexes leave the empty ones out.
                traces = traces.exclude(**{name: ""})
        if self.has_errors is not None:
            traces = traces.filter(error_count__gt=0) if self.has_errors else traces.filter(error_count=0)
        if self.has_feedback is not None:
            opinions = Exists(Feedback.objects.filter(trace=OuterRef("pk")))
            traces = traces.filter(opinions if self.has_feedback else ~opinions)
        if self.tag is not None:
            # No JSON operator finds an element on every database; as text, an element stands between quotes.
            traces = traces.filter(tags__icontains=f'"{self.tag}"')
        return with_text(traces, self.text, payloads=payloads) if self.text else traces

    def _since(self) -> datetime.datetime | None:
        is_text = self.text is not None and trace_id_of(self.text) is None
        return timezone.now() - TEXT_WINDOW if is_text and self.since is None else self.since


def with_text(traces: QuerySet[Trace], text: str, *, payloads: bool) -> QuerySet[Trace]:
    """The trace or the batch of this id, or the traces whose session or error holds it; with `payloads` also those
    whose inputs or outputs do.
    """
    if (found := trace_id_of(text)) is not None:
        return traces.filter(Q(pk=found) | Q(batch_id=found.hex) & ~Q(batch_id=""))
    condition = Q(session_id__icontains=text) | Q(error_type__icontains=text)
    for column in ("input_preview", "output_preview", "error_message") if payloads else ():
        condition |= Q(**{f"{column}__icontains": text})
    return traces.filter(condition)


def trace_id_of(text: str) -> uuid.UUID | None:
    """The trace id that `text` is, with or without hyphens."""
    try:
        return uuid.UUID(text.strip())
    except ValueError:
        return None


_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND: Final = datetime.timedelta(microseconds=1)
CURSOR: Final = "^([0-9]{1,16})-([0-9a-f]{32})$"
"""How a cursor is written: microseconds since the epoch, and a trace id."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last row of a page, after which the next one begins."""

    started_at: datetime.datetime
    trace_id: uuid.UUID

    def __str__(self) -> str:
        return f"{(self.started_at - _EPOCH) // _MICROSECOND}-{self.trace_id.hex}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """The cursor that `text` is.

        Raises:
            ValueError: it is none.
        """
        match = re.fullmatch(CURSOR, text)
        if match is None:
            raise ValueError("not a cursor")
        return cls(_EPOCH + int(match[1]) * _MICROSECOND, uuid.UUID(match[2]))


def page(traces: QuerySet[Trace], after: Cursor | None, size: int) -> tuple[list[Trace], Cursor | None]:
    """At most `size` of `traces`, the newest first, and the cursor of the next page where there is one."""
    if after is not None:
        # In this form every database goes straight to the place in the index, and reads on from there.
        before = Q(started_at__lt=after.started_at) | Q(pk__lt=after.trace_id)
        traces = traces.filter(before, started_at__lte=after.started_at)
    rows = list(traces.order_by("-started_at", "-pk")[: size + 1])
    last = rows[size - 1] if len(rows) > size else None
    return rows[:size], Cursor(last.started_at, last.pk) if last is not None else None
