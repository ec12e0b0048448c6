"""The page of the dashboard. Every figure of it comes from rollups but for the errors, which come from their index."""

from __future__ import annotations

import datetime
from typing import Any, Final
from urllib.parse import urlencode

from django import forms
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from dspyserve.admin.dashboard import charts, panels
from dspyserve.admin.dashboard.errors import top_errors
from dspyserve.admin.dashboard.form import WINDOWS, Choice, DashboardForm
from dspyserve.admin.dashboard.links import ListLink
from dspyserve.models import Trace
from dspyserve.tracing.figures import Figures
from dspyserve.tracing.rollups import Report, Window, read

_HOUR, _DAY = datetime.timedelta(hours=1), datetime.timedelta(days=1)
_STEPS: Final = (*(n * _HOUR for n in (1, 2, 3, 4)), *(n * _DAY for n in (1, 2, 7, 14)))
MAX_PARTS: Final = 92
"""Parts of the time that a chart shows."""
_LABELS: Final = 5


def urls(model_admin: Any) -> list[URLPattern]:
    """The address of the dashboard."""

    @require_safe
    def view(request: HttpRequest) -> HttpResponse:
        return show(model_admin, request)

    wrapped = model_admin.admin_site.admin_view(view)
    return [path("dashboard/", wrapped, name="dspyserve_trace_dashboard")]


def show(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """The page."""
    if not model_admin.has_view_permission(request):
        raise PermissionDenied
    form = DashboardForm(request.GET)
    choice = form.choice()
    report = read(choice.window, program=choice.program or None, model=choice.model or None)
    form.offer(report.programs, report.models)
    context = {
        **model_admin.admin_site.each_context(request),
        **_figures(choice, report),
        "opts": model_admin.opts,
        "title": _("Dashboard"),
        "media": model_admin.media + forms.Media(css={"all": ["dspyserve/admin/dashboard.css"]}),
        "form": form,
        "windows": _windows(choice),
        "choice": choice,
        "span": _span(choice.window.since, choice.window.until, choice.window.step),
        "zone": timezone.get_current_timezone_name(),
    }
    return TemplateResponse(request, "admin/dspyserve/dashboard/page.html", context)


def _figures(choice: Choice, report: Report) -> dict[str, Any]:
    window, total = choice.window, report.total
    link = ListLink(window.since, window.until, choice.program, choice.model)
    if not total.traces:
        return {"has_traces": False, "is_uncounted": not report.programs and _has_traces(window)}
    rows = _series(choice, report)
    programs, more_programs = panels.table(
        report.by_program,
        lambda name: ListLink(window.since, window.until, name, choice.model),
        lambda name: _query(choice, program=name),
        "–",
    )
    models, more_models = panels.table(
        report.by_model,
        lambda name: ListLink(window.since, window.until, choice.program, name),
        lambda name: _query(choice, model=name),
        _("no model"),
    )
    return {
        "has_traces": True,
        "tiles": panels.tiles(total, report.before, link),
        "charts": panels.all_charts(rows, total),
        "labels": _labels(window, _step(window)),
        "rows": [row for row in reversed(rows) if row.figures.traces],
        "programs": programs,
        "more_programs": more_programs,
        "models": models,
        "more_models": more_models,
        "errors": top_errors(link) if total.failures else None,
        "width": charts.WIDTH,
        "height": charts.HEIGHT,
    }


def _has_traces(window: Window) -> bool:
    """Whether there are traces all the same: they are older than the first figures."""
    return Trace.objects.filter(started_at__gte=window.since, started_at__lt=window.until).exists()


def _step(window: Window) -> datetime.timedelta:
    length = window.until - window.since
    fitting = (step for step in _STEPS if step >= window.step and length / step <= MAX_PARTS)
    return next(fitting, _STEPS[-1])


def _series(choice: Choice, report: Report) -> list[panels.Reading]:
    step = _step(choice.window)
    return [_part(choice, start, min(start + step, choice.window.until), each) for start, each in report.series(step)]


def _part(choice: Choice, since: datetime.datetime, until: datetime.datetime, figures: Figures) -> panels.Reading:
    def link(*, only_failures: bool = False) -> str:
        return str(ListLink(since, until, choice.program, choice.model, only_failures=only_failures))

    return panels.Reading(_span(since, until, choice.window.step), figures, link(), link(only_failures=True))


def _span(since: datetime.datetime, until: datetime.datetime, step: datetime.timedelta) -> str:
    """A time in the current time zone; whole days by their dates alone."""
    first, last = timezone.localtime(since), timezone.localtime(until)
    if step == _DAY and first.time() == last.time() == datetime.time():
        last -= _DAY
        return _day(first) if first.date() == last.date() else f"{_day(first)} – {_day(last)}"
    clock = date_format(last, "H:i")
    end = clock if first.date() == last.date() else f"{_day(last)} {clock}"
    return f"{_day(first)} {date_format(first, 'H:i')} – {end}"


def _day(time: datetime.datetime) -> str:
    return date_format(time, "j M" if time.year == timezone.localtime().year else "j M Y")


def _labels(window: Window, step: datetime.timedelta) -> list[str]:
    """Some times below a chart, from its beginning to its end."""
    style = "H:i" if window.until - window.since <= _DAY else "j M"
    length = window.until - window.since
    times = [window.since + length * number / (_LABELS - 1) for number in range(_LABELS)]
    return [date_format(timezone.localtime(time), style) for time in times]


def _windows(choice: Choice) -> list[dict[str, Any]]:
    return [
        {"title": title, "query": _query(choice, window=name), "is_chosen": name == choice.name}
        for name, (_length, title) in WINDOWS.items()
    ]


def _query(choice: Choice, **changed: str) -> str:
    """The query string of the dashboard with something changed."""
    ends = {"since": choice.window.since, "until": choice.window.until}
    times = {name: timezone.localtime(time).strftime("%Y-%m-%dT%H:%M") for name, time in ends.items()}
    time = {"window": choice.name} if choice.name or "window" in changed else times
    given = {**time, "program": choice.program, "model": choice.model, **changed}
    return urlencode({name: value for name, value in given.items() if value})
