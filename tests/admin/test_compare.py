"""Two traces side by side."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from dspyserve.admin.traces.comparison import change
from dspyserve.models import Span, SpanPayload, Trace
from tests.admin.rows import nested, write_json
from tests.admin.test_traces import HOSTILE, LIST, make_traces, viewer

pytestmark = pytest.mark.django_db


@pytest.fixture
def reviewer(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ann"))
    return client


def make_pair(one: dict[str, Any], other: dict[str, Any]) -> tuple[Trace, Trace]:
    """Two traces with these columns, the first one older."""
    return make_traces(1, **one)[0], make_traces(1, **other)[0]


def set_payload(trace: Trace, **values: Any) -> None:
    """What went into the run and what came out."""
    SpanPayload.objects.filter(span__trace=trace, span__sequence=1).update(**values)


def address(one: Any, other: Any) -> str:
    """Where two stand side by side."""
    return f"{LIST}compare/?a={one}&b={other}"


def rows(page: str) -> dict[str, list[str]]:
    """The cells of every fact, as text."""
    table = page.partition('class="dspyserve-difference"')[2].partition("</table>")[0]
    found = re.findall(r'<th scope="row">(.*?)</th>(.*?)</tr>', table, re.DOTALL)
    return {name: [text_of(cell) for cell in re.findall(r"<td>(.*?)</td>", cells, re.DOTALL)] for name, cells in found}


def text_of(html: str) -> str:
    """Without tags."""
    return " ".join(re.sub(r"<[^>]+>", "", html).split())


class TestFacts:
    def test_are_told_with_their_differences(self, reviewer: Client) -> None:
        common = {"lm_calls": 2, "model": "m1"}
        one, other = make_pair(
            {**common, "duration_ms": 1000, "cost": 0.002, "input_tokens": 100, "version_number": 1},
            {**common, "duration_ms": 1500, "cost": 0.001, "status": "failed", "version_number": 2},
        )
        page = reviewer.get(address(one.pk.hex, other.pk)).content.decode()
        facts = rows(page)
        assert facts["Duration"] == ["1.00 s", "1.50 s", "▲ +500 ms (+50 %)"]
        assert facts["Cost"] == ["$0.002", "$0.001", "▼ −$0.001 (−50 %)"]
        assert facts["LM calls"] == ["2", "2", "="]
        assert facts["Input tokens"] == ["100", "–", "≠ differs"]
        assert facts["Status"] == ["Succeeded", "Failed", "≠ differs"]
        assert facts["Version"] == ["v1", "v2", "≠ differs"]
        assert facts["Model"] == ["m1", "m1", "="]
        for trace in (one, other):
            assert f"{LIST}{trace.pk}/change/" in page

    @pytest.mark.parametrize(
        ("one", "other", "text", "direction"),
        [
            (1, 1, "", ""),
            (None, 1, "", ""),
            (1, None, "", ""),
            (0, 2, "+2", "more"),
            (8, 9, "+1 (+12 %)", "more"),
            (100, 99, "−1 (−1.0 %)", "less"),
            (2, 0, "−2 (−100 %)", "less"),
            (1, 21, "+20 (+×21)", "more"),
        ],
    )
    def test_numbers_differ_by_so_much(self, one: float | None, other: float | None, text: str, direction: str) -> None:
        found = change(one, other, lambda number: f"{number:g}")
        assert (found.text, found.direction) == (text, direction)


class TestTexts:
    def test_stand_field_by_field_with_their_words_compared(self, reviewer: Client) -> None:
        one, other = make_pair({}, {})
        set_payload(one, inputs={"question": "same"}, outputs={"answer": "a red car", "old": "gone", "list": [1]})
        set_payload(other, inputs={"question": "same"}, outputs={"answer": "a blue car", "new": "come", "list": [1]})
        page = reviewer.get(address(one.pk, other.pk)).content.decode()
        states = re.findall(r'<section class="dspyserve-pair is-(\w+)">\s*<h3>(\w+)', page)
        # Not every database keeps the order of fields; what only B has stands last on all of them.
        assert states[0] == ("same", "question")
        assert sorted(states[1:4]) == [("changed", "answer"), ("removed", "old"), ("same", "list")]
        assert states[4] == ("added", "new")
        assert "a <del>red</del> car" in page
        assert "a <ins>blue</ins> car" in page

    def test_that_differ_only_beyond_what_is_shown_are_not_the_same(self, reviewer: Client) -> None:
        one, other = make_pair({}, {})
        set_payload(one, outputs={"answer": "x" * 50_000})
        set_payload(other, outputs={"answer": "x" * 50_000 + "y"})
        page = reviewer.get(address(one.pk, other.pk)).content.decode()
        assert 'class="dspyserve-pair is-changed"' in page
        assert "Only the beginnings" in page

    def test_are_compared_whatever_their_names_are(self, reviewer: Client) -> None:
        one, other = make_pair({}, {})
        names = (HOSTILE, "n" * 300 + "a", "n" * 300 + "b")
        set_payload(one, outputs=dict.fromkeys(names, "one"))
        set_payload(other, outputs=dict.fromkeys(names, "other"))
        _inputs, (_title, fields) = reviewer.get(address(one.pk, other.pk)).context["texts"]
        assert [(field.state, field.one.text, field.other.text) for field in fields] == [
            ("changed", "one", "other")
        ] * 3

    def test_beyond_the_limit_are_counted_and_not_called_the_same(self, reviewer: Client) -> None:
        one, other = make_pair({}, {})
        set_payload(one, outputs={f"f{number:02}": 1 for number in range(60)})
        set_payload(other, outputs={f"f{number:02}": 1 if number < 50 else 2 for number in range(60)})
        response = reviewer.get(address(one.pk, other.pk))
        _inputs, (_title, fields) = response.context["texts"]
        assert [field.state for field in fields] == ["same"] * 50 + ["unknown"]
        assert "+10" in response.content.decode()
        assert "not compared" in response.content.decode()

    def test_are_harmless(self, reviewer: Client) -> None:
        one, other = make_pair({"model": HOSTILE, "error_type": HOSTILE}, {"tags": [HOSTILE]})
        set_payload(one, outputs={HOSTILE: HOSTILE, "a": f"{HOSTILE} x"})
        set_payload(other, outputs={"a": f"{HOSTILE} y"})
        Span.objects.filter(trace=one).update(name=HOSTILE)
        page = reviewer.get(address(one.pk, other.pk)).content.decode()
        assert "<script>alert" not in page
        assert "<img src=x" not in page
        assert "\u202e" not in page
        assert "style=" not in page.split('id="content-main"')[1]

    def test_that_nest_too_deep_are_stated(self, reviewer: Client) -> None:
        one, other = make_pair({}, {})
        deep: Any = "x"
        for _ in range(900):
            deep = [deep]
        set_payload(one, outputs={"answer": deep})
        set_payload(other, outputs={"answer": [deep]})
        assert reviewer.get(address(one.pk, other.pk)).status_code == 200

    @pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite takes no JSON that deep")
    def test_that_nobody_can_read_are_not_compared(self, reviewer: Client) -> None:
        one, other = make_pair({}, {})
        for trace in (one, other):
            write_json(Span.objects.get(trace=trace, sequence=1), "outputs", nested(3_000))
        response = reviewer.get(address(one.pk, other.pk))
        assert [field.state for field in response.context["texts"][1][1]] == ["unknown"]
        assert "nests too deep" in response.content.decode()

    def test_are_for_those_who_may_see_them(self) -> None:
        one, other = make_pair({}, {})
        set_payload(one, outputs={"answer": "a secret answer"})
        response = viewer("view_trace").get(address(one.pk, other.pk))
        page = response.content.decode()
        assert "a secret answer" not in page
        assert [fields for _title, fields in response.context["texts"]] == [[], []]
        assert "You may not view the texts" in page


class TestSpans:
    def test_stand_at_their_places_with_what_they_took(self, reviewer: Client) -> None:
        one, other = make_pair({}, {})
        Span.objects.filter(trace=one, kind="lm").update(duration_ms=100, input_tokens=10, output_tokens=5, cost=0.01)
        Span.objects.filter(trace=other, kind="lm").update(
            duration_ms=50, input_tokens=10, output_tokens=8, cost=0.01, status="error"
        )
        Span.objects.create(
            trace=other, sequence=4, kind="tool", name="search", span_id="d" * 16, parent_id="a" * 16,
            started_at=other.started_at,
        )  # fmt: skip
        page = reviewer.get(address(one.pk, other.pk)).content.decode()
        table = page.partition("dspyserve-span-pairs")[2]
        found = re.findall(r'<tr class="is-(\w+)">\s*<th scope="row" class="depth-(\d+)">(.*?)</tr>', table, re.DOTALL)
        assert [(state, int(depth)) for state, depth, _ in found] == [
            ("both", 0),
            ("both", 1),
            ("both", 2),
            ("added", 1),
        ]
        assert "▲ +3 (+20 %)" in text_of(found[0][2])  # of all below it
        lm = text_of(found[2][2])
        for text in ("100 ms", "50 ms", "▼ −50 ms (−50 %)", "▲ +3 (+20 %)", "✕ B"):
            assert text in lm
        assert "only in B" in found[3][2]

    def test_beyond_the_limit_are_stated(self, reviewer: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dspyserve.admin.traces.span_tree.MAX_SPANS", 2)
        one, other = make_pair({}, {})
        assert "2 more spans are not shown" in reviewer.get(address(one.pk, other.pk)).content.decode()
        Trace.objects.filter(pk=one.pk).update(span_count=2)
        assert "1 more span is not shown" in reviewer.get(address(one.pk, other.pk)).content.decode()


class TestAddress:
    def test_one_and_the_same_trace(self, reviewer: Client) -> None:
        (trace,) = make_traces(1)
        page = reviewer.get(address(trace.pk, trace.pk)).content.decode()
        assert "one and the same" in page
        assert "is-changed" not in page
        assert "≠" not in page

    @pytest.mark.parametrize("b", ["", "nonsense", "0" * 32, HOSTILE, "%00", "a" * 5_000])
    def test_what_is_no_trace_is_said_with_a_form(self, reviewer: Client, b: str) -> None:
        (trace,) = make_traces(1)
        page = reviewer.get(address(trace.pk.hex, b)).content.decode()
        assert f'name="a" value="{trace.pk.hex}"' in page
        assert ("There is no trace" in page) == bool(b)
        assert "<script>alert" not in page
        assert "dspyserve-difference" not in page

    def test_strangers_see_nothing(self, client: Client) -> None:
        one, other = make_pair({}, {})
        assert client.get(address(one.pk, other.pk)).status_code == 302
        assert viewer("view_program").get(address(one.pk, other.pk)).status_code == 403

    def test_the_page_of_a_trace_leads_here(self, reviewer: Client) -> None:
        one, other = make_pair({}, {})
        Trace.objects.filter(pk=other.pk).update(replay_of=one)
        page = reviewer.get(f"{LIST}{other.pk}/change/").content.decode()
        assert f'href="{LIST}compare/?a={one.pk.hex}&amp;b={other.pk.hex}"' in page
        assert f'action="{LIST}compare/"' in page


class TestButtonOfTheList:
    def choose(self, client: Client, traces: list[Trace], query: str = "") -> Any:
        """Choose rows of the list and compare them."""
        return client.post(LIST + query, {"action": "compare", "_selected_action": [str(trace.pk) for trace in traces]})

    def test_compares_two_rows_the_older_one_first(self, reviewer: Client) -> None:
        newer, older = make_traces(2)
        assert self.choose(reviewer, [newer, older])["Location"] == address(older.pk.hex, newer.pk.hex)

    @pytest.mark.parametrize("count", [0, 1, 3])
    def test_wants_two(self, reviewer: Client, count: int) -> None:
        response = self.choose(reviewer, make_traces(3)[:count], "?q=status%3Asucceeded")
        assert response["Location"] == f"{LIST}?q=status%3Asucceeded"
        assert "Choose two traces" in reviewer.get(LIST).content.decode()

    def test_is_for_those_who_see_traces(self) -> None:
        traces = make_traces(2)
        bob = viewer("view_trace")
        page = bob.get(LIST).content.decode()
        assert 'name="action" value="compare"' in page
        assert page.count('name="_selected_action"') == 2
        assert self.choose(bob, traces)["Location"].startswith(f"{LIST}compare/")

    def test_takes_no_nonsense(self, reviewer: Client) -> None:
        for given in (["nonsense", "x"], ["0" * 32, "1" * 32], []):
            response = reviewer.post(LIST, {"action": "compare", "_selected_action": given})
            assert (response.status_code, response["Location"]) == (302, LIST)


@pytest.mark.parametrize("permissions", [(), ("view_trace",)])
def test_queries_do_not_grow_with_the_spans(reviewer: Client, permissions: tuple[str, ...]) -> None:
    client = viewer(*permissions) if permissions else reviewer
    one, other = make_pair({}, {})
    counts = []
    for first in (10, 100):
        for trace in (one, other):
            Span.objects.bulk_create(
                Span(trace=trace, sequence=n, kind="tool", name="t", span_id=f"{n:016x}", started_at=trace.started_at)
                for n in range(first, 10 * first)
            )
        with CaptureQueriesContext(connection) as queries:
            assert client.get(address(one.pk, other.pk)).status_code == 200
        counts.append(len(queries))
    authentication = 4 if permissions else 2
    assert counts[0] == counts[1] <= 3 + authentication, queries.captured_queries


def test_two_long_traces_take_no_time_to_speak_of(reviewer: Client) -> None:
    one, other = make_pair({}, {})
    for trace in (one, other):
        Span.objects.bulk_create(
            Span(trace=trace, sequence=n, kind="tool", name=f"t{n % 7}", span_id=f"{n:016x}", parent_id="a" * 16,
                 started_at=trace.started_at)
            for n in range(10, 2_000)
        )  # fmt: skip
        set_payload(trace, outputs={f"f{n}": f"{trace.pk} word " * 1_000 for n in range(20)})
    # The time of this thread, not of the clock: other tests run beside it.
    start = time.thread_time()
    assert reviewer.get(address(one.pk, other.pk)).status_code == 200
    assert time.thread_time() - start < 5
