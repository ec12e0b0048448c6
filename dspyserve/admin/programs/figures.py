"""How a program did of late, for its page."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from dspyserve.admin import wording
from dspyserve.admin.dashboard import numbers
from dspyserve.admin.dashboard.links import ListLink
from dspyserve.models import Program
from dspyserve.tracing.figures import Figures
from dspyserve.tracing.histogram import quantiles
from dspyserve.tracing.rollups import Window, of_program

LENGTHS: Final = (
    ("24h", _("Last 24 hours"), datetime.timedelta(hours=24)),
    ("7d", _("Last 7 days"), datetime.timedelta(days=7)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The figures of one time as people read them, with the addresses of what they were made from."""

    title: Any
    runs: str
    error_rate: str
    p50: str
    p95: str
    tokens: str
    cost: str
    traces_url: str
    failures_url: str
    dashboard_url: str


def figures(request: HttpRequest, program: Program) -> list[Row]:
    """The figures of `program`: one query. None for users who may not see traces."""
    if not request.user.has_perm("dspyserve.view_trace"):
        return []
    now = timezone.now()
    windows = [Window.around(now - length, now) for _name, _title, length in LENGTHS]
    sums = of_program(program.name, windows)
    return [
        _row(program.name, name, title, window, found)
        for (name, title, _length), window, found in zip(LENGTHS, windows, sums, strict=True)
    ]


def _row(program: str, name: str, title: Any, window: Window, found: Figures) -> Row:
    p50, p95 = quantiles(found.durations, 0.5, 0.95)
    query = urlencode({"window": name, "program": program})
    return Row(
        title=title,
        runs=numbers.count(found.traces),
        error_rate=numbers.share(found.failures, found.traces),
        p50=wording.duration(p50),
        p95=wording.duration(p95),
        tokens=f"{numbers.count(found.input_tokens)} → {numbers.count(found.output_tokens)}",
        cost=numbers.dollars(found.known_cost, unpriced=found.unpriced) if found.traces else numbers.UNKNOWN,
        traces_url=str(ListLink(window.since, window.until, program=program)),
        failures_url=str(ListLink(window.since, window.until, program=program, only_failures=True)),
        dashboard_url=f"{reverse('admin:dspyserve_trace_dashboard')}?{query}",
    )
