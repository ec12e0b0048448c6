"""Sessions as conversations: in the order of time, in pages, with totals, for those who may."""

from __future__ import annotations

import re
from itertools import chain
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext

from dspyserve.admin.traces.sessions import of_session, session_address
from dspyserve.models import SpanPayload, Trace
from tests.admin.test_traces import HOSTILE, LIST, make_traces, viewer

pytestmark = pytest.mark.django_db


@pytest.fixture
def reviewer(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ann"))
    return client


def address(session_id: str, query: str = "") -> str:
    """Where the conversation is."""
    return session_address(RequestFactory().get("/"), session_id, query)


def shown(page: Any) -> list[str]:
    """The ids of the traces on a page, in their order."""
    return re.findall(r'<li id="trace-(\w+)"', page.content.decode())


def ids(traces: list[Trace]) -> list[str]:
    """Of traces, the oldest first; `make_traces` makes the newest first."""
    return [trace.pk.hex for trace in reversed(traces)]


def set_payload(trace: Trace, **values: Any) -> None:
    """What went into the run and what came out."""
    SpanPayload.objects.filter(span__trace=trace, span__sequence=1).update(**values)


def test_turns_stand_in_the_order_of_time(reviewer: Client) -> None:
    traces = make_traces(3, session_id="s 1", cost=0.001, duration_ms=1500, input_tokens=10, output_tokens=2)
    make_traces(1, session_id="other")
    page = reviewer.get(address("s 1"))
    assert shown(page) == ids(traces)
    text = page.content.decode()
    for trace in traces:
        assert f"{LIST}{trace.pk}/change/" in text
    for total in ("<dd>3</dd>", "<dd>$0.003</dd>", "<dd>30 → 6</dd>", "<dd>4.50 s</dd>"):
        assert total in text


def test_inputs_and_outputs_are_turns_and_histories_are_folded(reviewer: Client) -> None:
    (trace,) = make_traces(1, session_id="s")
    history = {"messages": [{"message": "hi", "reply": "hello"}] * 4}
    set_payload(trace, inputs={"message": "and now?", "history": history}, outputs={"reply": "**now**"})
    page = reviewer.get(address("s")).content.decode()
    assert page.index("is-question") < page.index("and now?") < page.index("is-answer") < page.index("**now**")
    assert "<summary>4 earlier messages</summary>" in page


def test_what_failed_says_how(reviewer: Client) -> None:
    (trace,) = make_traces(1, session_id="s", status="failed", error_type="LMError", error_count=1)
    set_payload(trace, outputs=None)
    page = reviewer.get(address("s")).content.decode()
    assert "<strong>LMError</strong>" in page
    assert "is-answer" not in page
    assert "Not succeeded" in page


@pytest.mark.parametrize(
    "session_id",
    ["a/b", "a b?c=d#e", "../../../etc", "line\nbreak", "Grüße 👋", "50%", "_5F", "a" * 200, HOSTILE[:200]],
)
def test_any_id_has_an_address(reviewer: Client, session_id: str) -> None:
    traces = make_traces(1, session_id=session_id)
    page = reviewer.get(address(session_id))
    assert shown(page) == ids(traces)
    assert "<script>alert" not in page.content.decode()


def test_an_id_of_nobody_is_not_found(reviewer: Client) -> None:
    make_traces(1)
    for path in (address("nobody"), f"{LIST}session/%00/", f"{LIST}session/a%00b/"):
        assert reviewer.get(path).status_code == 404


def test_hostile_texts_are_harmless_and_long_ones_cut(reviewer: Client) -> None:
    (trace,) = make_traces(1, session_id="s")
    set_payload(trace, inputs={HOSTILE: HOSTILE}, outputs={"answer": "x" * 100_000})
    page = reviewer.get(address("s")).content.decode()
    assert "<script>alert" not in page
    assert "\u202e" not in page
    assert "style=" not in page.split('id="content-main"')[1]
    assert "of 100000 characters" in page
    assert len(page) < 60_000


class TestPages:
    @pytest.fixture(autouse=True)
    def _small_pages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dspyserve.admin.traces.sessions.PAGE", 3)

    def link(self, page: Any, rel: str) -> str | None:
        """Where a page's link goes."""
        found = re.search(rf'class="button" rel="{rel}" href="([^"]+)"', page.content.decode())
        return found[1] if found else None

    @pytest.mark.parametrize("same_time", [False, True])
    def test_neither_skip_nor_repeat_there_and_back(self, reviewer: Client, *, same_time: bool) -> None:
        traces = make_traces(8, session_id="s")
        if same_time:
            Trace.objects.update(started_at=traces[0].started_at)
            traces.sort(key=lambda trace: trace.pk, reverse=True)
        there, back = [], []
        path: str | None = address("s")
        while path:
            page = reviewer.get(path)
            there.append(shown(page))
            path = self.link(page, "next")
        path = self.link(page, "prev")
        while path:
            page = reviewer.get(path)
            back.append(shown(page))
            path = self.link(page, "prev")
        assert [len(part) for part in there] == [3, 3, 2]
        assert list(chain(*there)) == ids(traces)
        assert list(chain(*back[::-1])) == ids(traces)[:6]

    @pytest.mark.parametrize(
        ("number", "first", "links"), [(0, 0, "next"), (1, 0, "next"), (4, 3, "both"), (7, 6, "prev")]
    )
    def test_open_at_a_trace(self, reviewer: Client, number: int, first: int, links: str) -> None:
        traces = make_traces(8, session_id="s")
        page = reviewer.get(address("s", f"at={ids(traces)[number]}"))
        assert shown(page) == ids(traces)[first : number + 2]
        assert [rel for rel in ("prev", "next") if self.link(page, rel)] == (
            ["prev", "next"] if links == "both" else [links]
        )

    def test_open_at_the_beginning_for_a_trace_of_another_session(self, reviewer: Client) -> None:
        traces = make_traces(8, session_id="s")
        others = make_traces(1, session_id="t")
        for value in ("nonsense", others[0].pk.hex):
            assert shown(reviewer.get(address("s", f"at={value}"))) == ids(traces)[:3]

    @pytest.mark.parametrize(
        "query",
        [
            "before=1-00000000000000000000000000000000",
            "after=x",
            "before=1-2",
            "after=",
            f"after={'9' * 16}-{'0' * 32}",
        ],
    )
    def test_begin_at_the_beginning_where_the_place_is_none(self, reviewer: Client, query: str) -> None:
        traces = make_traces(4, session_id="s")
        assert shown(reviewer.get(address("s", query))) == ids(traces)[:3]


def test_queries_do_not_grow_with_the_session(reviewer: Client) -> None:
    counts = []
    for more in (2, 18):
        make_traces(more, session_id="s", user=User.objects.get(username="ann"))
        trace = Trace.objects.order_by("started_at")[1]
        for query in ("", f"at={trace.pk}"):
            with CaptureQueriesContext(connection) as queries:
                assert reviewer.get(address("s", query)).status_code == 200
            counts.append(len(queries))
    authentication = 2
    assert counts[0] == counts[2] <= 4 + authentication, queries.captured_queries
    assert counts[1] == counts[3] <= 6 + authentication, queries.captured_queries


def test_totals_stop_at_a_limit_and_say_so(reviewer: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dspyserve.admin.traces.sessions.TOTALS_CAP", 2)
    make_traces(5, session_id="s")
    page = reviewer.get(address("s")).content.decode()
    assert "more than 2" in page
    assert "the newest 3 turns" in page


def test_an_unknown_cost_is_no_nought(reviewer: Client) -> None:
    make_traces(1, session_id="s", cost=0.5)
    make_traces(2, session_id="s")
    page = reviewer.get(address("s")).content.decode()
    assert "$0.5 and 2 of unknown cost" in page


@pytest.mark.skipif(connection.vendor != "sqlite", reason="a planner that sees a few rows scans them")
def test_the_index_of_sessions_is_used() -> None:
    found = of_session(Trace.objects.all(), "s")
    for traces in (found.order_by("started_at", "pk")[:26], found.order_by("-started_at")[:26]):
        assert "dspyserve_trace_session" in traces.explain()


def test_the_users_traces_are_linked(reviewer: Client) -> None:
    ann = User.objects.get(username="ann")
    make_traces(1, session_id="s", user=ann)
    page = reviewer.get(address("s")).content.decode()
    (found,) = re.findall(rf'href="({LIST}\?[^"]+)">ann<', page)
    assert parse_qs(urlsplit(found.replace("&amp;", "&")).query) == {"user": [str(ann.pk)], "window": ["any"]}


class TestRights:
    def test_texts_are_for_those_who_may_see_them(self) -> None:
        (trace,) = make_traces(1, session_id="s")
        set_payload(trace, inputs={"q": "a secret question"})
        page = viewer("view_trace").get(address("s")).content.decode()
        assert "a secret question" not in page
        assert "You may not view the texts" in page

    def test_strangers_see_nothing(self, client: Client) -> None:
        make_traces(1, session_id="s")
        assert client.get(address("s")).status_code == 302
        assert viewer("view_program").get(address("s")).status_code == 403
