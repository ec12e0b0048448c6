"""The dashboard: its figures, where they lead, whom it is for, and what it takes."""

from __future__ import annotations

import datetime
import html
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dspyserve.admin.dashboard import charts, numbers
from dspyserve.models import Trace, TraceRollup
from dspyserve.tracing import store
from dspyserve.tracing.figures import Figures
from dspyserve.tracing.rollups import Window, read
from dspyserve.tracing.tally import Tally
from tests.admin.test_traces import HOSTILE, viewer
from tests.tracing.test_writer import rows

pytestmark = pytest.mark.django_db

PAGE = "/admin/dspyserve/trace/dashboard/"
HOUR = datetime.timedelta(hours=1)


@pytest.fixture
def reviewer(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ann"))
    return client


def insert(count: int, *, ago: datetime.timedelta = HOUR, tally: Tally | None = None, **values: Any) -> None:
    """Traces that began so long ago."""
    common = {"program_name": "qa", "model": "openai/m", "started_at": timezone.now() - ago}
    store.insert([rows(**{**common, **values}) for _ in range(count)], tally)


def text_of(page: str) -> str:
    """What is to be read, with single spaces."""
    return " ".join(html.unescape(re.sub(r"<title>.*?</title>|<[^>]+>", " ", page, flags=re.S)).split())


def context(client: Client, **query: Any) -> Any:
    response = client.get(PAGE, query)
    assert response.status_code == 200
    return response.context


class TestFigures:
    def test_are_those_of_the_window(self, reviewer: Client) -> None:
        insert(3, duration_ms=1000.0, first_token_ms=200.0, cost=0.25, input_tokens=100, output_tokens=10)
        insert(1, status="failed", duration_ms=4000.0, cost=None)
        insert(9, ago=datetime.timedelta(days=9))
        tiles = {tile.label: tile for tile in context(reviewer)["tiles"]}
        assert tiles["Traces"].value == "4"
        assert tiles["Error rate"].value == "25 %"
        assert within(tiles["Duration, p50"].value, 1.0)
        assert tiles["Tokens"].value == "330"
        assert (tiles["Cost"].value, tiles["Cost"].note) == ("≥ $0.75", "unknown for 1 traces")

    def test_what_nobody_knows_is_a_dash_and_not_zero(self, reviewer: Client) -> None:
        insert(2, program_name="unpriced")
        tiles = {tile.label: tile.value for tile in context(reviewer)["tiles"]}
        assert (tiles["Cost"], tiles["Tokens"], tiles["First token, p50"]) == ("–", "–", "–")
        insert(1, program_name="free", cost=0.0)
        found = {row.name: row.cost for row in context(reviewer)["programs"]}
        assert found == {"unpriced": "–", "free": "$0.00"}

    def test_are_compared_with_the_time_before(self, reviewer: Client) -> None:
        insert(4, ago=datetime.timedelta(days=8), cost=1.0)
        insert(6, cost=1.0)
        insert(4, cost=1.0, status="failed")
        tiles = {tile.label: tile.change for tile in context(reviewer)["tiles"]}
        assert (tiles["Traces"].text, tiles["Traces"].before) == ("+150 %", "4")
        assert (tiles["Error rate"].text, tiles["Error rate"].mood) == ("+40.0 points", "bad")
        assert tiles["Duration, p50"] is None

    def test_can_be_of_one_program_or_model(self, reviewer: Client) -> None:
        insert(2)
        insert(3, program_name="other", model="openai/n")
        found = context(reviewer, program="other")
        assert found["tiles"][0].value == "3"
        assert [row.name for row in found["models"]] == ["openai/n"]
        assert [value for value, _ in found["form"].fields["program"].widget.choices] == ["", "other", "qa"]
        assert [row.name for row in context(reviewer, model="openai/m")["programs"]] == ["qa"]

    @pytest.mark.parametrize(
        ("query", "traces", "parts"),
        [
            ({"window": "24h"}, 1, 24),
            ({"window": "7d"}, 3, 84),
            ({"window": "30d"}, 7, 30),
            ({"window": "90d"}, 15, 90),
        ],
    )
    def test_of_every_window(self, reviewer: Client, query: dict[str, str], traces: int, parts: int) -> None:
        for count, days in ((1, 0.5), (2, 5), (4, 20), (8, 80), (16, 100)):
            insert(count, ago=datetime.timedelta(days=days))
        found = context(reviewer, **query)
        assert found["tiles"][0].value == str(traces)
        chart = found["charts"][0]
        assert len(chart.slots) == parts
        assert sum(row.figures.traces for row in found["rows"]) == traces

    def test_of_a_time_in_the_current_time_zone(self, reviewer: Client) -> None:
        day = timezone.now().astimezone(datetime.UTC) - datetime.timedelta(days=3)
        at = day.replace(hour=4, minute=30, second=0, microsecond=0)
        store.insert([rows(started_at=at), rows(started_at=at - HOUR)])
        with timezone.override("Asia/Tokyo"):
            found = context(reviewer, since=f"{day:%Y-%m-%d}T13:00", until=f"{day:%Y-%m-%d}T14:00")
            assert found["tiles"][0].value == "1"
            assert found["span"].endswith(" 13:00 – 14:00")
            found = context(reviewer, since=f"{day:%Y-%m-%d}T12:59", until=f"{day:%Y-%m-%d}T14:00")
            assert found["tiles"][0].value == "2"

    def test_long_ago_is_read_by_the_day(self, reviewer: Client) -> None:
        store.insert([rows(started_at=datetime.datetime(2024, 2, 3, 4, 30, tzinfo=datetime.UTC))])
        found = context(reviewer, since="2024-02-03T01:00", until="2024-02-03T02:00")
        assert (found["span"], found["tiles"][0].value) == ("3 Feb 2024", "1")

    def test_a_time_that_cannot_be_read_is_told(self, reviewer: Client) -> None:
        insert(1)
        for query in ({"since": "soon"}, {"since": "2026-02-03T13:00", "until": "2026-02-03T12:00"}):
            found = context(reviewer, **query)
            assert found["form"].errors
            assert found["choice"].name == "7d"

    def test_nothing_yet(self, reviewer: Client) -> None:
        assert "No traces in this time." in text_of(reviewer.get(PAGE).content.decode())
        insert(1)
        TraceRollup.objects.all().delete()
        assert "rebuild_rollups" in text_of(reviewer.get(PAGE).content.decode())
        assert "No traces" in text_of(reviewer.get(PAGE, {"until": "2024-02-03T02:00"}).content.decode())


class TestLinks:
    def test_every_part_leads_to_its_traces(self, reviewer: Client) -> None:
        insert(1, status="failed", error_type="ValueError")
        found = context(reviewer, window="24h", program="qa")
        (row,) = found["rows"]
        query = {name: values[0] for name, values in parse_qs(urlsplit(row.url).query).items()}
        trace = Trace.objects.get()
        since, until = (datetime.datetime.fromisoformat(query[name]) for name in ("since", "until"))
        assert since <= trace.started_at < until == since + HOUR
        assert query["program"] == "qa"
        assert "-status%3Asucceeded" in row.failures_url
        assert {slot.url for chart in found["charts"] for slot in chart.slots} >= {row.url, row.failures_url}

    def test_errors_are_grouped_and_lead_to_their_traces(self, reviewer: Client) -> None:
        insert(3, status="failed", error_type="ValueError", error_code="program_error")
        insert(1, status="timed_out", error_type="LMTimeoutError", error_code="timeout")
        insert(2, status="failed", error_type="ValueError", error_code="program_error", program_name="other")
        insert(5, status="cancelled", error_type="Cancelled")
        groups = context(reviewer)["errors"].groups
        assert [(each.program, each.error_type, each.traces) for each in groups] == [
            ("qa", "ValueError", 3),
            ("other", "ValueError", 2),
            ("qa", "LMTimeoutError", 1),
        ]
        assert "error_type=ValueError" in groups[0].url
        assert [each.program for each in context(reviewer, program="other")["errors"].groups] == ["other"]

    def test_no_more_failures_are_read_than_can_be(self, reviewer: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dspyserve.admin.dashboard.errors.NEWEST", 3)
        insert(5, status="failed", error_type="ValueError")
        page = reviewer.get(PAGE)
        assert page.context["errors"].groups[0].traces == 3
        assert "newest 3 failures" in text_of(page.content.decode())


class TestPage:
    def test_takes_two_queries_at_ten_times_the_data_too(self, reviewer: Client) -> None:
        counts = []
        for more in (20, 200):
            for hour in range(4):
                insert(more, ago=hour * HOUR, status="failed", error_type=f"E{hour}", program_name=f"p{more}{hour}")
            with CaptureQueriesContext(connection) as queries:
                context(reviewer)
            counts.append(len(queries))
        authentication = 2
        assert counts == [2 + authentication] * 2, queries.captured_queries

    def test_names_are_escaped_and_nothing_is_inline(self, reviewer: Client) -> None:
        insert(1, program_name=HOSTILE, model=HOSTILE, status="failed", error_type=HOSTILE, error_code="<b>")
        page = reviewer.get(PAGE, {"program": HOSTILE, "model": HOSTILE}).content.decode()
        main = page.split('id="content-main"')[1]
        assert "<script" not in main.split("</main>")[0]
        assert "<img src=x" not in page
        assert "style=" not in main
        assert "\u202e" not in text_of(main)
        assert text_of(main).count("[U+202E]") >= 5

    def test_everything_drawn_stands_in_a_table_too(self, reviewer: Client) -> None:
        insert(2, duration_ms=1000.0)
        page = reviewer.get(PAGE).content.decode()
        assert page.count('class="plot" aria-hidden="true"') == len(re.findall(r"<svg viewBox=\"0 0 1000", page))
        times = page.split("<details")[1]
        assert times.count('<th scope="row">') == 1
        assert times.count('<th scope="col"') == 11

    def test_is_for_those_who_may_see_traces(self) -> None:
        assert viewer("view_program").get(PAGE).status_code == 403
        User.objects.all().delete()
        assert viewer("view_trace").get(PAGE).status_code == 200
        assert Client().get(PAGE).status_code == 302

    def test_is_linked_from_the_index_of_the_app(self, reviewer: Client) -> None:
        assert PAGE in reviewer.get("/admin/dspyserve/").content.decode()


def within(text: str, seconds: float) -> bool:
    number, _, unit = text.partition(" ")
    return abs(float(number) / (1 if unit == "s" else 1000) - seconds) <= 0.05 * seconds


class TestWindow:
    NOW = timezone.now().replace(minute=30, second=0, microsecond=0)

    @pytest.mark.parametrize(("days", "period"), [(8, "hour"), (8.1, "day")])
    def test_is_read_by_the_hour_up_to_eight_days(self, days: float, period: str) -> None:
        window = Window.around(self.NOW - datetime.timedelta(days=days), self.NOW)
        assert window.period == period
        assert window.since <= self.NOW - datetime.timedelta(days=days)
        assert window.until >= self.NOW
        assert window.before.until == window.since

    def test_writers_are_added_up(self) -> None:
        for writer in ("", "a", "b"):
            TraceRollup.objects.create(
                period="hour", start=self.NOW.replace(minute=0), program_name="p", writer=writer, traces=2
            )
        report = read(Window.around(self.NOW - HOUR, self.NOW))
        assert (report.total.traces, report.by_program["p"].traces) == (6, 6)
        assert [each.traces for _, each in report.series(HOUR)] == [0, 6]
        assert Figures().traces == 0


class TestCharts:
    @pytest.mark.parametrize(("highest", "top"), [(0, 1), (1, 1), (7, 8), (99, 100), (101, 120), (0.0031, 0.004)])
    def test_end_at_a_round_number(self, highest: float, top: float) -> None:
        assert charts.ceiling(highest) == pytest.approx(top)

    def test_lines_break_where_nothing_is_known(self) -> None:
        path = charts.line("p50", [1.0, None, 2.0, 2.0], 2.0).path
        assert path == "M125.00 100.00h0M625.00 0.00h0L875.00 0.00"

    def test_bars_stand_upon_one_another_and_within_the_chart(self) -> None:
        failed, other = charts.bars(("failed", "other"), [(1, 3)], 4)
        assert (float(failed.y), float(other.y)) == (150, 0)
        tiny, _ = charts.bars(("failed", "other"), [(1, 999_999)], 1_000_000)
        assert float(tiny.height) == 1.5

    @pytest.mark.parametrize(
        ("number", "text"), [(None, "–"), (0, "0"), (1234, "1,234"), (12_345, "12.3k"), (2e6, "2M"), (3.21e9, "3.2G")]
    )
    def test_counts_are_short(self, number: float | None, text: str) -> None:
        assert numbers.count(number) == text

    @pytest.mark.parametrize(
        ("amount", "text"),
        [(None, "–"), (0.0, "$0.00"), (0.00001, "<$0.0001"), (0.0234, "$0.0234"), (12.5, "$12.50")],
    )
    def test_money_is_rounded_but_never_to_nothing(self, amount: float | None, text: str) -> None:
        assert numbers.dollars(amount) == text
