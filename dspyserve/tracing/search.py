"""Finding traces: the conditions of the admin's list and of the API, and pages that never skip or repeat a row."""

from __future__ import annotations

import datetime
import re
import uuid
from dataclasses import dataclass
from typing import Any, Final

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db.models import Exists, F, Model, OuterRef, Q, QuerySet, Subquery, Value
from django.db.models.functions import Coalesce
from django.db.models.lookups import Exact, GreaterThan, GreaterThanOrEqual, IsNull, LessThan, LessThanOrEqual
from django.utils import timezone

from dspyserve.models import APIKey, Feedback, Span, Trace
from dspyserve.tracing.json_conditions import HasElement, HasEntry

TEXT_WINDOW: Final = datetime.timedelta(days=7)
"""How far back from `until` or from now a text is searched where nothing is said: without a beginning it would read the
whole table.
"""

ANY_TIME: Final = "any"
WINDOW: Final = re.compile("([1-9][0-9]{0,3})([mhd])")
"""How a time window up to now is written: minutes, hours or days. `any` is the one without a beginning."""

OPERATORS: Final = {">=": "gte", "<=": "lte", ">": "gt", "<": "lt", "=": "exact"}
"""How two numbers compare, and what Django calls it."""

MEASURES: Final = {
    "duration": "duration_ms",
    "first_token": "first_token_ms",
    "tokens": "tokens",
    "cost": "cost",
    "spans": "span_count",
    "errors": "error_count",
    "calls": "lm_calls",
}
"""What can be limited, and the column that holds it. `tokens` is input and output together."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What a number of a trace must be, such as `duration > 2000.0`: milliseconds, tokens, US dollars, or a count.

    A trace where the number is unknown is not found.
    """

    measure: str
    operator: str
    value: float


@dataclass(frozen=True, slots=True)
class Opinion:
    """Feedback of this name; where there is an operator, with a score that compares so, or with this very label."""

    name: str
    operator: str = ""
    value: float | str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceFilter:
    """Which traces are wanted; what is None or empty does not matter.

    `user` is a user's name or primary key, `api_key` a key's name, prefix or primary key, `model_prefix` how the model
    begins. Every one of `tags`, `metadata`, `opinions`, `limits` and `texts` must hold, and none of `excluded`.
    `is_reviewed` is whether a person or a key has said something. `window` is a time up to now, such as `24h`, or
    `any`; `since` and `until` say more than it.
    """

    program: str | None = None
    version: int | None = None
    status: str | None = None
    transport: str | None = None
    model: str | None = None
    model_prefix: str | None = None
    environment: str | None = None
    error_type: str | None = None
    has_errors: bool | None = None
    has_feedback: bool | None = None
    is_reviewed: bool | None = None
    session_id: str | None = None
    batch_id: str | None = None
    user: str | None = None
    api_key: str | None = None
    tags: tuple[str, ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()
    opinions: tuple[Opinion, ...] = ()
    limits: tuple[Limit, ...] = ()
    window: str | None = None
    since: datetime.datetime | None = None
    until: datetime.datetime | None = None
    texts: tuple[str, ...] = ()
    excluded: tuple[TraceFilter, ...] = ()

    @property
    def names_something(self) -> bool:
        """Whether it asks for one thing by its id, found at any time: a trace, a span, a batch or a session."""
        by_id = any(trace_id_of(text) or span_id_of(text) for text in self.texts)
        return by_id or self.session_id is not None or self.batch_id is not None

    def apply(self, traces: QuerySet[Trace], *, payloads: bool) -> QuerySet[Trace]:
        """Those of `traces` that are wanted; `payloads` is whether texts of inputs and outputs may be searched."""
        # Not a part of the condition: what an excluded text stands in is excluded however old it is.
        return traces.filter(self._condition(payloads=payloads) & self._text_window())

    def _condition(self, *, payloads: bool) -> Q:
        condition = self._columns() & self._callers() & self._feedback()
        if self.model_prefix is not None:
            condition &= Q(model__startswith=self.model_prefix)
        if self.has_errors is not None:
            condition &= Q(error_count__gt=0) if self.has_errors else Q(error_count=0)
        for tag in self.tags:
            condition &= Q(HasElement("tags", tag))
        for key, value in self.metadata:
            condition &= Q(HasEntry("metadata", key, value))
        for limit in self.limits:
            condition &= _within(limit)
        for text in self.texts:
            condition &= with_text(text, payloads=payloads)
        for unwanted in self.excluded:
            condition &= ~unwanted._condition(payloads=payloads)
        return condition

    def _columns(self) -> Q:
        columns = {
            "program_name": self.program,
            "version_number": self.version,
            "status": self.status,
            "transport": self.transport,
            "model": self.model,
            "environment": self.environment,
            "error_type": self.error_type,
            "session_id": self.session_id,
            "batch_id": self.batch_id,
            "started_at__gte": self._since(),
            "started_at__lt": self.until,
        }
        condition = Q(**{name: value for name, value in columns.items() if value is not None})
        # What the conditions of partial indexes are is said once more: not every database concludes it.
        for name in ("session_id", "batch_id"):
            if columns[name]:
                condition &= ~Q(**{name: ""})
        if self.status not in (None, Trace.Status.SUCCEEDED):
            condition &= ~Q(status=Trace.Status.SUCCEEDED.value)
        return condition

    def _callers(self) -> Q:
        condition = Q()
        if self.user is not None:
            user = _user(self.user)
            # Nobody is not unknown: whoever is excluded and does not exist excludes nothing.
            condition &= Q(user_id=user) & Q(IsNull(user, False))
        if self.api_key is not None:
            names = Q(name=self.api_key) | Q(prefix=self.api_key)
            if (pk := _pk(APIKey, self.api_key)) is not None:
                names |= Q(pk=pk)
            condition &= Q(api_key_id__in=APIKey.objects.filter(names).values("pk"))
        return condition

    def _feedback(self) -> Q:
        condition = Q()
        if self.has_feedback is not None:
            condition &= _with_feedback(Q()) if self.has_feedback else ~_with_feedback(Q())
        if self.is_reviewed is not None:
            # The author stays when the user or the key is deleted.
            by_somebody = _with_feedback(Q(author__startswith="user:") | Q(author__startswith="key:"))
            condition &= by_somebody if self.is_reviewed else ~by_somebody
        for opinion in self.opinions:
            condition &= _with_feedback(_saying(opinion))
        return condition

    def _since(self) -> datetime.datetime | None:
        if self.since is not None or self.window is None or self.window == ANY_TIME:
            return self.since
        return timezone.now() - length_of(self.window)

    def _text_window(self) -> Q:
        is_text = any(trace_id_of(text) is None and span_id_of(text) is None for text in self.texts)
        if not is_text or (self.since, self.window) != (None, None):
            return Q()
        # No trace is older than the epoch; a time far before it cannot be reckoned with.
        end = min(max(self.until, _EPOCH), timezone.now()) if self.until else timezone.now()
        return Q(started_at__gte=end - TEXT_WINDOW)


def with_text(text: str, *, payloads: bool) -> Q:
    """The trace or the batch of this id, the trace of this span, or the traces whose session or error holds the text;
    with `payloads` also those whose inputs or outputs do.
    """
    if (found := trace_id_of(text)) is not None:
        return Q(pk=found) | Q(batch_id=found.hex) & ~Q(batch_id="")
    if (span := span_id_of(text)) is not None:
        return Q(pk__in=Span.objects.filter(span_id=span).values("trace_id"))
    condition = Q(session_id__icontains=text) | Q(error_type__icontains=text)
    for column in ("input_preview", "output_preview", "error_message") if payloads else ():
        condition |= Q(**{f"{column}__icontains": text})
    return condition


def trace_id_of(text: str) -> uuid.UUID | None:
    """The trace id that `text` is, with or without hyphens."""
    try:
        return uuid.UUID(text.strip())
    except ValueError:
        return None


def span_id_of(text: str) -> str | None:
    """The span id that `text` is: 16 hex digits."""
    return text.strip().lower() if re.fullmatch("[0-9a-fA-F]{16}", text.strip()) else None


def length_of(window: str) -> datetime.timedelta:
    """How long a window such as `90m`, `24h` or `7d` is.

    Raises:
        ValueError: it is none.
    """
    match = WINDOW.fullmatch(window)
    if match is None:
        raise ValueError(f"{window!r} is not a time such as 90m, 24h or 7d")
    unit = {"m": "minutes", "h": "hours", "d": "days"}[match[2]]
    return datetime.timedelta(**{unit: int(match[1])})


_COMPARISONS: Final = {
    ">=": GreaterThanOrEqual,
    "<=": LessThanOrEqual,
    ">": GreaterThan,
    "<": LessThan,
    "=": Exact,
}


def _within(limit: Limit) -> Q:
    name = f"{MEASURES[limit.measure]}__{OPERATORS[limit.operator]}"
    if limit.measure != "tokens":
        return Q(**{name: limit.value})
    total = Coalesce(F("input_tokens"), 0) + Coalesce(F("output_tokens"), 0)
    is_known = Q(input_tokens__isnull=False) | Q(output_tokens__isnull=False)
    return is_known & Q(_COMPARISONS[limit.operator](total, limit.value))


def _with_feedback(condition: Q) -> Q:
    return Q(Exists(Feedback.objects.filter(condition, trace=OuterRef("pk"))))


def _saying(opinion: Opinion) -> Q:
    name = Q(name=opinion.name)
    if not opinion.operator:
        return name
    if isinstance(opinion.value, str):
        return name & Q(label=opinion.value)
    return name & Q(**{f"score__{OPERATORS[opinion.operator]}": opinion.value})


def _user(text: str) -> Any:
    # One value rather than a set, so that the index gives the rows in their order.
    model = get_user_model()
    named = Subquery(model._default_manager.filter(**{model.USERNAME_FIELD: text}).values("pk")[:1])
    pk = _pk(model, text)
    return named if pk is None else Coalesce(named, Value(pk, output_field=model._meta.pk))


def _pk(model: type[Model], text: str) -> Any:
    try:
        return model._meta.pk.clean(text, None)
    except ValidationError:
        return None


_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND: Final = datetime.timedelta(microseconds=1)
CURSOR: Final = "^([0-9]{1,16})-([0-9a-f]{32})$"
"""How a cursor is written: microseconds since the epoch, and a trace id."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A row of a page, next to which another page begins."""

    started_at: datetime.datetime
    trace_id: uuid.UUID

    def __str__(self) -> str:
        return f"{(self.started_at - _EPOCH) // _MICROSECOND}-{self.trace_id.hex}"

    @classmethod
    def of(cls, trace: Trace) -> Cursor:
        """The place of `trace`."""
        return cls(trace.started_at, trace.pk)

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


def older(traces: QuerySet[Trace], than: Cursor) -> QuerySet[Trace]:
    """Those of `traces` that come after this place in the list, the nearest first."""
    beyond = Q(started_at__lt=than.started_at) | Q(pk__lt=than.trace_id)
    return _from_place(traces, Q(started_at__lte=than.started_at) & beyond).order_by("-started_at", "-pk")


def newer(traces: QuerySet[Trace], than: Cursor) -> QuerySet[Trace]:
    """Those of `traces` that come before this place in the list, the nearest first."""
    beyond = Q(started_at__gt=than.started_at) | Q(pk__gt=than.trace_id)
    return _from_place(traces, Q(started_at__gte=than.started_at) & beyond).order_by("started_at", "pk")


def _from_place(traces: QuerySet[Trace], place: Q) -> QuerySet[Trace]:
    # In this form every database goes straight to the place in the index, and reads on from there. Of several limits
    # of a time SQLite takes the one that is written first: that of a window would have it read all of the window.
    known = len(traces.query.where.children)
    found = traces.filter(place)
    conditions = found.query.where.children
    found.query.where.children = [*conditions[known:], *conditions[:known]]
    return found


def page(traces: QuerySet[Trace], after: Cursor | None, size: int) -> tuple[list[Trace], Cursor | None]:
    """At most `size` of `traces`, the newest first, and the cursor of the next page where there is one."""
    found = traces.order_by("-started_at", "-pk") if after is None else older(traces, after)
    rows = list(found[: size + 1])
    return rows[:size], Cursor.of(rows[size - 1]) if len(rows) > size else None


def page_before(traces: QuerySet[Trace], before: Cursor, size: int) -> tuple[list[Trace], Cursor | None]:
    """At most `size` of `traces` next before this place, the newest first, and the cursor of the page before them
    where there is one.
    """
    rows = list(newer(traces, before)[: size + 1])
    return rows[:size][::-1], Cursor.of(rows[size - 1]) if len(rows) > size else None


def neighbours(traces: QuerySet[Trace], trace: Trace) -> tuple[Trace | None, Trace | None]:
    """The next newer and the next older of `traces`, whether `trace` is one of them or not."""
    place = Cursor.of(trace)
    ends = [Subquery(beyond(traces, place).values("pk")[:1]) for beyond in (newer, older)]
    # One query: the page of a trace has few of them.
    found = Trace.objects.filter(Q(pk=ends[0]) | Q(pk=ends[1])).order_by()
    by_side = {(one.started_at, one.pk) > (place.started_at, place.trace_id): one for one in found}
    return by_side.get(True), by_side.get(False)


def count_up_to(traces: QuerySet[Trace], cap: int) -> int:
    """How many there are, at most one above `cap`: a full count of a million rows costs more than a page."""
    return traces.order_by()[: cap + 1].count()
