"""The charts, tiles and tables of the dashboard, made of figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from django.utils.translation import gettext as _

from dspyserve.admin import wording
from dspyserve.admin.dashboard import charts, numbers
from dspyserve.admin.dashboard.charts import Chart, Legend, Slot
from dspyserve.admin.dashboard.links import ListLink
from dspyserve.admin.dashboard.numbers import Change
from dspyserve.admin.plain_text import visible
from dspyserve.tracing.figures import Figures
from dspyserve.tracing.histogram import quantiles

MAX_ROWS: Final = 50
"""Programs and models that a table shows."""
PERCENTILES: Final = (0.5, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Reading:
    """Figures in the words of a row."""

    name: str
    figures: Figures
    url: str
    failures_url: str
    label: str = ""
    """What stands for the name."""
    choice: str = ""
    """The query string of the dashboard of this name alone."""
    part: str = ""
    """Its part of all traces, as the width of a bar of 100."""

    @property
    def traces(self) -> str:
        """How many."""
        return numbers.count(self.figures.traces)

    @property
    def failures(self) -> str:
        """How many."""
        return numbers.count(self.figures.failures)

    @property
    def error_rate(self) -> str:
        """Failures in per cent."""
        return numbers.share(self.figures.failures, self.figures.traces)

    @property
    def durations(self) -> list[str]:
        """p50, p95 and p99."""
        return [wording.duration(each) for each in quantiles(self.figures.durations, *PERCENTILES)]

    @property
    def first_tokens(self) -> list[str]:
        """p50 and p95."""
        return [wording.duration(each) for each in quantiles(self.figures.first_tokens, *PERCENTILES[:2])]

    @property
    def tokens(self) -> str:
        """In and out."""
        both = [_known(self.figures.input_tokens), _known(self.figures.output_tokens)]
        return numbers.UNKNOWN if both == [numbers.UNKNOWN] * 2 else " → ".join(both)

    @property
    def cost(self) -> str:
        """As far as it is known."""
        return numbers.dollars(self.figures.known_cost, unpriced=self.figures.unpriced)


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure of all the time, with what it was before."""

    label: str
    value: str
    details: list[tuple[str, str]] = field(default_factory=list)
    change: Change | None = None
    url: str = ""
    note: str = ""


def tiles(total: Figures, before: Figures, link: ListLink) -> list[Tile]:
    """The figures of all the time."""
    now, then = Reading("", total, "", ""), Reading("", before, "", "")
    p50, p95, p99 = now.durations
    first50, first95 = now.first_tokens
    unpriced = _("unknown for %s traces") % numbers.count(total.unpriced) if total.unpriced else ""
    return [
        Tile(_("Traces"), now.traces, [], numbers.change(total.traces, before.traces, then.traces), url=str(link)),
        Tile(
            _("Error rate"),
            now.error_rate,
            [(_("failed"), now.failures)],
            numbers.points((total.failures, total.traces), (before.failures, before.traces)),
            url=str(replace(link, only_failures=True)),
        ),
        Tile(_("Duration, p50"), p50, [("p95", p95), ("p99", p99)], _slower(total.durations, before.durations)),
        Tile(_("First token, p50"), first50, [("p95", first95)], _slower(total.first_tokens, before.first_tokens)),
        Tile(
            _("Tokens"),
            _known(total.input_tokens + total.output_tokens),
            [(_("in"), _known(total.input_tokens)), (_("out"), _known(total.output_tokens))],
            numbers.change(
                total.input_tokens + total.output_tokens,
                before.input_tokens + before.output_tokens,
                _known(before.input_tokens + before.output_tokens),
            ),
        ),
        Tile(_("Cost"), now.cost, [], numbers.change(total.known_cost, before.known_cost, then.cost), note=unpriced),
    ]


def table(
    found: Mapping[str, Figures], named: Callable[[str], ListLink], choice: Callable[[str], str], nameless: str
) -> tuple[list[Reading], int]:
    """A row for each name, the one with most traces first, and how many more there are."""
    ordered = sorted(found.items(), key=lambda item: (-item[1].traces, item[0]))
    most = max((figures.traces for figures in found.values()), default=0)
    rows = [
        Reading(
            name,
            figures,
            str(named(name)),
            str(replace(named(name), only_failures=True)),
            label=visible(name) or nameless,
            choice=choice(name) if name else "",
            part=f"{100 * figures.traces / most:.1f}" if most else "0",
        )
        for name, figures in ordered[:MAX_ROWS]
    ]
    return rows, max(len(ordered) - MAX_ROWS, 0)


def all_charts(rows: list[Reading], total: Figures) -> list[Chart]:
    """The charts of a series, whose names are the parts of the time."""
    summary = Reading("", total, "", "")
    p50, p95, p99 = summary.durations
    first50, first95 = summary.first_tokens
    return [
        _traces(rows, summary),
        _error_rates(rows, summary),
        _quantiles("durations", _("Duration"), rows, PERCENTILES, f"p50 {p50} · p95 {p95} · p99 {p99}"),
        _quantiles("first_tokens", _("First token"), rows, PERCENTILES[:2], f"p50 {first50} · p95 {first95}"),
        _tokens(rows, summary),
        _costs(rows, summary),
    ]


def _traces(rows: list[Reading], summary: Reading) -> Chart:
    top = charts.ceiling(max((row.figures.traces for row in rows), default=0))
    # Half a trace is none.
    top = max(top, 2)
    values = [(row.figures.failures, row.figures.traces - row.figures.failures) for row in rows]
    legend = [Legend("other", _("succeeded or cancelled")), Legend("failed", _("failed"))]
    slots = _slots(rows, lambda row: _("%(traces)s traces, %(failures)s failed") % _words(row))
    chart = Chart("traces", _("Traces"), legend, slots, charts.ticks(top, numbers.mark), summary.traces)
    chart.rects = charts.bars(("failed", "other"), values, top)
    return chart


def _error_rates(rows: list[Reading], summary: Reading) -> Chart:
    rates = [(100 * row.figures.failures / (row.figures.traces or 1),) for row in rows]
    top = charts.ceiling(max((rate for (rate,) in rates), default=0))
    slots = [
        Slot(_titled(row, _("%(rate)s failed: %(failures)s of %(traces)s") % _words(row)), row.failures_url)
        for row in rows
    ]
    written = charts.ticks(top, lambda percent: f"{numbers.mark(percent)} %")
    chart = Chart("errors", _("Error rate"), [], _placed(slots), written, summary.error_rate)
    chart.rects = charts.bars(("failed",), rates, top)
    chart.is_empty = not summary.figures.failures
    return chart


def _quantiles(name: str, title: str, rows: list[Reading], wanted: tuple[float, ...], summary: str) -> Chart:
    values = [quantiles(getattr(row.figures, name), *wanted) for row in rows]
    known = [value for each in values for value in each if value is not None]
    top = charts.ceiling(max(known, default=0))
    kinds = [f"p{round(100 * each)}" for each in wanted]
    slots = _slots(
        rows, lambda row: " · ".join(f"{kind} {text}" for kind, text in zip(kinds, getattr(row, name), strict=True))
    )
    legend = [Legend(kind, kind) for kind in kinds]
    chart = Chart(name, title, legend, slots, charts.ticks(top, numbers.time_mark), summary)
    # The highest first, so that the lower ones are drawn over it.
    chart.lines = [
        charts.line(kind, [each[number] for each in values], top) for number, kind in reversed(list(enumerate(kinds)))
    ]
    chart.is_empty = not known
    return chart


def _tokens(rows: list[Reading], summary: Reading) -> Chart:
    values = [(row.figures.input_tokens, row.figures.output_tokens) for row in rows]
    top = max(charts.ceiling(max((sum(each) for each in values), default=0)), 2)
    legend = [Legend("input", _("input")), Legend("output", _("output"))]
    slots = _slots(rows, lambda row: row.tokens)
    chart = Chart("tokens", _("Tokens"), legend, slots, charts.ticks(top, numbers.mark), summary.tokens)
    chart.rects = charts.bars(("input", "output"), values, top)
    chart.is_empty = not any(map(sum, values))
    return chart


def _costs(rows: list[Reading], summary: Reading) -> Chart:
    values = [(row.figures.cost,) for row in rows]
    top = charts.ceiling(max((cost for (cost,) in values), default=0))
    slots = _slots(rows, lambda row: row.cost)
    chart = Chart("cost", _("Cost"), [], slots, charts.ticks(top, partial(numbers.mark, unit="$")), summary.cost)
    chart.rects = charts.bars(("cost",), values, top)
    chart.is_empty = summary.figures.known_cost is None
    return chart


def _slots(rows: list[Reading], told: Callable[[Reading], str]) -> list[Slot]:
    return _placed([Slot(_titled(row, told(row)), row.url) for row in rows])


def _placed(slots: list[Slot]) -> list[Slot]:
    places = charts.places(len(slots))
    return [replace(slot, x=f"{x:.2f}", width=f"{width:.2f}") for slot, (x, width) in zip(slots, places, strict=True)]


def _titled(row: Reading, text: str) -> str:
    return f"{row.name}\n{text}"


def _words(row: Reading) -> dict[str, Any]:
    return {"traces": row.traces, "failures": row.failures, "rate": row.error_rate}


def _known(tokens: int) -> str:
    # Every call of a language model takes tokens: none were counted.
    return numbers.count(tokens or None)


def _slower(now: Mapping[str, int], before: Mapping[str, int]) -> Change | None:
    (median,), (former,) = quantiles(now, 0.5), quantiles(before, 0.5)
    return numbers.change(median, former, wording.duration(former), more_is="bad")
