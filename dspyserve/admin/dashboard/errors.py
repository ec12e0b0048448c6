"""What failed most, from the index of failures."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field, replace
from typing import Any, Final

from dspyserve.admin.dashboard.links import ListLink
from dspyserve.admin.plain_text import visible
from dspyserve.models import Trace

NEWEST: Final = 5_000
"""Failures that are read: the newest of the time."""
SHOWN: Final = 15


@dataclass(slots=True)
class ErrorGroup:
    """Failures of one program with the same error."""

    program: str
    error_type: str
    error_code: str
    status: str
    last: datetime.datetime
    traces: int = 0
    url: str = ""


@dataclass(slots=True)
class TopErrors:
    """The most frequent groups; `read` failures were looked at."""

    groups: list[ErrorGroup] = field(default_factory=list)
    read: int = 0
    hidden: int = 0
    is_capped: bool = False


def top_errors(link: ListLink) -> TopErrors:
    """The groups of failures of the traces that `link` leads to: one query, and no more rows than `NEWEST`."""
    rows = list(_rows(link)[: NEWEST + 1])
    found: dict[tuple[str, str, str], ErrorGroup] = {}
    for program, error_type, code, status, started_at in rows[:NEWEST]:
        # The newest comes first.
        group = found.setdefault((program, error_type, code), ErrorGroup(program, error_type, code, status, started_at))
        group.traces += 1
    groups = sorted(found.values(), key=lambda group: (-group.traces, group.program, group.error_type))
    for group in groups[:SHOWN]:
        wanted = replace(link, program=group.program, error_type=group.error_type, only_failures=True)
        group.url = str(wanted)
        group.program, group.error_type = visible(group.program), visible(group.error_type)
    return TopErrors(groups[:SHOWN], min(len(rows), NEWEST), max(len(groups) - SHOWN, 0), len(rows) > NEWEST)


def _rows(link: ListLink) -> Any:
    traces = Trace.objects.filter(started_at__gte=link.since, started_at__lt=link.until)
    # In these words, because the index of failures is one of all that did not succeed.
    traces = traces.exclude(status=Trace.Status.SUCCEEDED).exclude(status=Trace.Status.CANCELLED)
    names = {name: value for name, value in (("program_name", link.program), ("model", link.model)) if value}
    columns = ("program_name", "error_type", "error_code", "status", "started_at")
    return traces.filter(**names).order_by("-started_at", "-pk").values_list(*columns)
