"""The page of one trace: what it shows, whom, and with how many queries."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dspyserve.models import Span, SpanPayload, Trace

pytestmark = pytest.mark.django_db

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\u202e"
LIST = "/admin/dspyserve/trace/"


def make_traces(count: int, **values: Any) -> list[Trace]:
    """Traces of the last hour, of three spans each."""
    now = timezone.now()
    traces = [
        Trace(
            id=uuid.uuid4(),
            started_at=now - datetime.timedelta(seconds=number),
            **{"program_name": "qa", "status": "succeeded", "transport": "rest", "span_count": 3, **values},
        )
        for number in range(count)
    ]
    Trace.objects.bulk_create(traces)
    kinds = (("run", "a" * 16, ""), ("module", "b" * 16, "a" * 16), ("lm", "c" * 16, "b" * 16))
    for trace in traces:
        for number, (kind, span_id, parent_id) in enumerate(kinds, start=1):
            span = Span.objects.create(
                trace=trace, sequence=number, kind=kind, name=kind, span_id=span_id, parent_id=parent_id, started_at=now
            )
            SpanPayload.objects.create(
                span=span,
                inputs={"question": HOSTILE},
                messages=[{"role": "user", "content": f"[[ ## question ## ]]\n{HOSTILE}"}] if kind == "lm" else None,
                outputs=[HOSTILE] if kind == "lm" else {"answer": HOSTILE},
            )
    return traces


@pytest.fixture
def reviewer(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ann"))
    return client


def viewer(*codenames: str) -> Client:
    """A member of the staff with these permissions."""
    user = User.objects.create_user("bob", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client = Client()
    client.force_login(user)
    return client


class TestPage:
    def test_shows_tree_and_payload_and_escapes_all_of_it(self, reviewer: Client) -> None:
        (trace,) = make_traces(1, status="failed", error_type="ValueError", error_message=HOSTILE)
        page = reviewer.get(f"{LIST}{trace.pk}/change/?span={'c' * 16}").content.decode()
        assert page.count("<rect") == 3
        assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 4
        assert "<script>alert" not in page
        assert "<img src=x" not in page
        assert "style=" not in page.split('id="content-main"')[1]
        assert "[[ ## question" not in page

    def test_queries_do_not_grow_with_the_spans(self, reviewer: Client) -> None:
        (trace,) = make_traces(1)
        # The programs are read once in a while, whatever is asked for.
        reviewer.get(f"{LIST}{trace.pk}/change/")
        counts = []
        for first in (10, 100):
            Span.objects.bulk_create(
                Span(trace=trace, sequence=n, kind="tool", name="t", span_id=f"{n:016x}", started_at=trace.started_at)
                for n in range(first, 10 * first)
            )
            with CaptureQueriesContext(connection) as queries:
                assert reviewer.get(f"{LIST}{trace.pk}/change/?span={'c' * 16}").status_code == 200
            counts.append(len(queries))
        authentication = 2
        assert counts[0] == counts[1] <= 6 + authentication, queries.captured_queries

    def test_spans_beyond_the_limit_are_stated(self, reviewer: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dspyserve.admin.traces.span_tree.MAX_SPANS", 2)
        (trace,) = make_traces(1)
        page = reviewer.get(f"{LIST}{trace.pk}/change/").content.decode()
        assert "1 more span is not shown" in page

    def test_orphans_circles_and_unfinished_spans_show(self, reviewer: Client) -> None:
        (trace,) = make_traces(1, duration_ms=10)
        for number, (span_id, parent_id) in enumerate(
            [("1" * 16, "9" * 16), ("2" * 16, "3" * 16), ("3" * 16, "2" * 16)]
        ):
            Span.objects.create(
                trace=trace,
                sequence=10 + number,
                kind="tool",
                name=f"odd {number}",
                span_id=span_id,
                parent_id=parent_id,
                status="unfinished",
                started_at=trace.started_at,
            )
        page = reviewer.get(f"{LIST}{trace.pk}/change/").content.decode()
        assert all(f"odd {number}" in page for number in range(3))
        assert page.count("parent missing</span>") == 1
        assert page.count("unfinished</span>") == 3

    def test_texts_are_for_those_who_may_see_them(self) -> None:
        (trace,) = make_traces(1, metadata={"tenant": "acme-inc"})
        bob = viewer("view_trace")
        page = bob.get(f"{LIST}{trace.pk}/change/?span={'c' * 16}").content.decode()
        assert "alert(1)" not in page
        assert "acme-inc" not in page
        assert "You may not view the texts" in page

    def test_leads_to_the_history(self, reviewer: Client) -> None:
        (trace,) = make_traces(1)
        assert f'href="{LIST}{trace.pk}/history/"' in reviewer.get(f"{LIST}{trace.pk}/change/").content.decode()

    def test_a_trace_that_is_not_there(self, reviewer: Client) -> None:
        assert reviewer.get(f"{LIST}{uuid.uuid4()}/change/").status_code == 302
        assert reviewer.get(f"{LIST}nonsense/change/").status_code == 302

    def test_strangers_see_nothing(self, client: Client) -> None:
        (trace,) = make_traces(1)
        assert client.get(f"{LIST}{trace.pk}/change/").status_code == 302
        assert viewer("view_program").get(f"{LIST}{trace.pk}/change/").status_code == 403
