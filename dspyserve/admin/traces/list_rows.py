"""The rows of the list, in the words that it shows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from django.db.models import QuerySet
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from dspyserve.admin import wording
from dspyserve.admin.plain_text import visible
from dspyserve.admin.traces.list_filter import SEARCH
from dspyserve.admin.traces.status import status_badge
from dspyserve.models import Feedback, Trace
from dspyserve.tracing.query_terms import Term

MAX_BADGES: Final = 3
MAX_OPINIONS: Final = 1_000
"""Feedback that is read for one page."""


@dataclass(frozen=True, slots=True)
class Badge:
    """One opinion in short: `kind` is good, bad or neither."""

    kind: str
    symbol: str
    text: str


@dataclass(frozen=True, slots=True)
class Link:
    """A word that leads to the list of all traces that share it."""

    text: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One trace, in texts that may be shown; those of payloads are empty for those who may not see them."""

    trace: Trace
    url: str
    program: str
    model: str
    clock: str
    day: str
    moment: str
    badge: str
    input: str
    output: str
    error: str
    duration: str
    first_token: str
    tokens: str
    cost: str
    errors: str
    caller: Link | None
    session: Link | None
    tags: list[Link]
    more_tags: int
    feedback: list[Badge]
    more_feedback: int


def rows(traces: Sequence[Trace], opinions: QuerySet[Feedback], *, filters: str, payloads: bool) -> list[Row]:
    """The rows of `traces`, with those of `opinions` that are about them.

    `filters` is the query string of the list, which their pages lead back to.
    """
    found = _by_trace(opinions, traces)
    return [_row(trace, found[trace.pk], filters, payloads) for trace in traces]


def _row(trace: Trace, opinions: list[Badge], filters: str, payloads: bool) -> Row:
    started = timezone.localtime(trace.started_at)
    failed = trace.error_count
    return Row(
        trace=trace,
        url=_page(trace, filters),
        program=visible(trace.program_name),
        model=visible(trace.model),
        clock=date_format(started, "H:i:s"),
        day=date_format(started, "M j" if started.year == timezone.localtime().year else "Y-m-d"),
        moment=started.isoformat(timespec="milliseconds"),
        badge=status_badge(trace),
        input=visible(trace.input_preview) if payloads else "",
        output=visible(trace.output_preview) if payloads else "",
        error=visible(trace.error_type),
        duration=wording.duration(trace.duration_ms),
        first_token="" if trace.first_token_ms is None else wording.duration(trace.first_token_ms),
        tokens=wording.tokens(trace.input_tokens, trace.output_tokens),
        cost=wording.cost(trace.cost),
        errors=ngettext("%d error", "%d errors", failed) % failed if failed else "",
        caller=_caller(trace),
        session=_link("session", trace.session_id) if trace.session_id else None,
        tags=[_link("tag", str(tag)) for tag in trace.tags[:MAX_BADGES]],
        more_tags=max(len(trace.tags) - MAX_BADGES, 0),
        feedback=opinions[:MAX_BADGES],
        more_feedback=max(len(opinions) - MAX_BADGES, 0),
    )


def _page(trace: Trace, filters: str) -> str:
    address = reverse("admin:dspyserve_trace_change", args=[trace.pk])
    return f"{address}?{urlencode({'_changelist_filters': filters})}" if filters else address


def _caller(trace: Trace) -> Link | None:
    # Both are joined: a user or a key that is gone is None here.
    if trace.user is not None:
        return _link("user", trace.user.get_username())
    return _link("key", trace.api_key.name) if trace.api_key is not None else None


def _link(key: str, value: str) -> Link:
    return Link(visible(value), "?" + urlencode({SEARCH: str(Term(key, value))}))


def _by_trace(opinions: QuerySet[Feedback], traces: Sequence[Trace]) -> dict[Any, list[Badge]]:
    found: dict[Any, list[Badge]] = defaultdict(list)
    if traces:
        opinions = opinions.filter(trace__in=[trace.pk for trace in traces]).order_by("trace", "pk")
        for pk, name, score, label in opinions.values_list("trace_id", "name", "score", "label")[:MAX_OPINIONS]:
            found[pk].append(_badge(name, score, label))
    return found


def _badge(name: str, score: float | None, label: str) -> Badge:
    name = visible(name)
    if label:
        return Badge("", "", f"{name}: {visible(label)}")
    if score in (0, 1, -1):
        return Badge("good", "▲", name) if score == 1 else Badge("bad", "▼", name)
    return Badge("", "", name if score is None else _("%(name)s %(score)s") % {"name": name, "score": f"{score:g}"})
