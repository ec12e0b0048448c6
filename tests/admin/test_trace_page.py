"""The page of one trace, whatever the trace."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from dspyserve.admin.traces import span_tree
from dspyserve.models import Span, Trace
from tests.admin.rows import LIST, make_span, make_trace, nested, new_span, page_url, span_id, staff, write_json
from tests.function_calls import function_calls

pytestmark = pytest.mark.django_db

MOST_CALLS = 3_000_000
"""Function calls that the page of the longest trace may take: it has 2.3 million, for which it takes half a second."""

AUTHENTICATION = 2
"""Queries of the session and the user."""
PERMISSIONS = 2
"""Queries of those who are no superusers: what they and their groups may."""
HOSTILE = "<script>alert(1)</script><a href='javascript:alert(2)'>x</a>\x1b[31m\u202eevil"
SHOWN = "&lt;script&gt;alert(1)&lt;/script&gt;"


@pytest.fixture
def reviewer(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ann"))
    return client


def read(client: Client, trace: Trace, query: str = "") -> str:
    """The part of the page that is ours."""
    answer = client.get(page_url(trace, query))
    assert answer.status_code == 200
    return answer.content.decode().split('id="content-main"')[1]


def run_of(trace: Trace, **payload: Any) -> Span:
    return make_span(trace, kind="run", name="qa", payload=payload)


class TestHeader:
    def test_tells_outcome_fields_and_facts(self, reviewer: Client) -> None:
        user = User.objects.get(username="ann")
        trace = make_trace(
            status="failed",
            version_number=7,
            model="openai/x",
            environment="production",
            session_id="s 1",
            user=user,
            tags=["beta&co"],
            metadata={"tenant": {"id": 4}},
            first_token_ms=250.0,
            input_tokens=5,
            output_tokens=6,
            cost=0.25,
            error_type="ValueError",
            error_code="program_error",
            error_message="went wrong",
        )
        trace_back = "Traceback (most recent call last):\n  File x"
        run = run_of(trace, inputs={"question": "Why?"}, outputs={"a": 1}, attributes={"traceback": trace_back})
        Span.objects.filter(pk=run.pk).update(status="error", error_type="ValueError")
        page = read(reviewer, trace)
        told = ("v7", "Failed", "1.00 s", "250 ms", "5 → 6", "$0.25", "openai/x", "production", "Why?", "went wrong")
        for text in (*told, "program_error", "Traceback (most recent call last)", "tenant", "ann"):
            assert text in page, text
        assert f'href="{LIST}session/s%201/?at={trace.pk.hex}#trace-{trace.pk.hex}"' in page
        assert f'href="{LIST}?tag=beta%26co&amp;window=any"' in page

    def test_has_room_for_what_others_add(self, reviewer: Client) -> None:
        names = [template.name for template in reviewer.get(page_url(make_trace())).templates]
        assert {"admin/dspyserve/trace/tools.html", "admin/dspyserve/trace/review.html"} <= set(names)

    def test_keeps_the_list_that_somebody_came_from(self, reviewer: Client) -> None:
        trace = make_trace()
        run_of(trace)
        page = read(reviewer, trace, "?_changelist_filters=status%3Dfailed")
        assert f'href="?_changelist_filters=status%3Dfailed&amp;span={span_id(1)}#span"' in page

    def test_a_trace_without_spans(self, reviewer: Client) -> None:
        page = read(reviewer, make_trace(status="abandoned", error_type="Lost", error_message="gone", duration_ms=None))
        assert "Lost" in page
        assert "gone" in page


class TestSpan:
    def test_is_shown_without_javascript(self, reviewer: Client) -> None:
        trace = make_trace()
        run_of(trace)
        make_span(trace, 2, {"inputs": {"expression": "6 * 7"}, "outputs": "42"}, parent=1, name="calculate")
        page = read(reviewer, trace, f"?span={span_id(2)}")
        assert 'aria-current="true"' in page
        assert "6 * 7" in page.split('id="span"')[1]

    def test_beyond_those_that_are_shown_is_found(self, reviewer: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(span_tree, "MAX_SPANS", 2)
        trace = make_trace(span_count=3, error_count=1)
        for number in (1, 2):
            make_span(trace, number)
        make_span(trace, 3, {"inputs": {"a": "far away"}}, status="error")
        page = read(reviewer, trace, f"?span={span_id(3)}")
        assert "far away" in page
        assert "1 more span is not shown" in page
        assert "1 of them failed" in page

    def test_a_part_of_a_value_is_shown_without_javascript(self, reviewer: Client) -> None:
        trace = make_trace()
        make_span(trace, 1, {"inputs": {"list": [f"item {n}" for n in range(150)]}})
        page = read(reviewer, trace, f"?span={span_id(1)}")
        assert f'href="?span={span_id(1)}&amp;at=inputs.0&amp;from=100#span"' in page
        assert "item 149" not in page
        kept = (
            f'href="?span={span_id(1)}&amp;_changelist_filters=q%3Dstatus%3Afailed&amp;at=inputs.0&amp;from=100#span"'
        )
        filters = "_changelist_filters=q%3Dstatus%3Afailed"
        assert read(reviewer, trace, f"?{filters}").count(kept) == 1
        assert read(reviewer, trace, f"?span={span_id(1)}&{filters}").count(kept) == 2
        assert "item 149" in read(reviewer, trace, f"?span={span_id(1)}&at=inputs.0&from=100")

    @pytest.mark.parametrize("at", ["inputs.9", "nothing", "inputs.x", "inputs.-1", "inputs..", "inputs." + "9" * 5000])
    def test_a_part_that_is_not_there_is_left_out(self, reviewer: Client, at: str) -> None:
        trace = make_trace()
        make_span(trace, 1, {"inputs": {"a": 1}})
        assert "Part of a value" not in read(reviewer, trace, f"?span={span_id(1)}&at={at}")


class TestHonesty:
    def test_spans_without_an_end_and_without_a_parent(self, reviewer: Client) -> None:
        trace = make_trace(status="running", duration_ms=None)
        make_span(trace, 1, kind="run", took=None, status="unfinished")
        make_span(trace, 2, parent=77)
        page = read(reviewer, trace)
        assert "running</span>" in page
        assert "parent missing</span>" in page


class TestHostile:
    def test_nothing_of_it_is_markup(self, reviewer: Client) -> None:
        trace = make_trace(
            program_name=HOSTILE[:100],
            model=HOSTILE,
            session_id=HOSTILE,
            environment=HOSTILE[:50],
            request_id=HOSTILE,
            error_type=HOSTILE,
            error_message=HOSTILE,
            tags=[HOSTILE, {"a": HOSTILE}],
            metadata={HOSTILE: HOSTILE},
            status="failed",
        )
        told = {HOSTILE: [HOSTILE]}
        attributes = {"error": HOSTILE, "traceback": HOSTILE, "parameters": told, "finish_reason": HOSTILE, HOSTILE: 1}
        payload = {
            "inputs": told,
            "outputs": [HOSTILE, {"text": HOSTILE, "tool_calls": [{"name": HOSTILE, "args": told}]}],
            "messages": [{"role": role, "content": HOSTILE, HOSTILE: HOSTILE} for role in ("system", "user", HOSTILE)]
            + [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"javascript:{HOSTILE}"}}]}],
            "attributes": {**attributes, "signature": {"name": HOSTILE, "inputs": [{"name": HOSTILE}]}},
        }
        make_span(trace, 1, payload, kind="run", name=HOSTILE, error_type=HOSTILE, status="error", model=HOSTILE)
        page = read(reviewer, trace, f"?span={span_id(1)}")
        assert page.count(SHOWN) > 25
        for forbidden in ("<script>", "<a href='java", 'href="java', "\x1b", "\u202e", "style="):
            assert forbidden not in page, forbidden
        assert "␛[31m[U+202E]evil" in page

    def test_five_megabytes_are_cut_and_say_so(self, reviewer: Client) -> None:
        trace = make_trace()
        text = "x" * 5_000_000
        make_span(trace, 1, {"inputs": {"a": text}, "messages": [{"role": "user", "content": text}]}, kind="lm")
        page = read(reviewer, trace, f"?span={span_id(1)}")
        assert len(page) < 200_000
        assert page.count("<span>4000</span> of 5000000 characters") >= 2

    @pytest.mark.parametrize("depth", [1_000, 1_500])
    def test_depth_is_no_danger(self, reviewer: Client, depth: int) -> None:
        """Up to 1,024 levels a parser reads; of more, the text can be had."""
        trace = make_trace()
        span = make_span(trace, 1, {"inputs": {}})
        for column in ("inputs", "outputs", "attributes"):
            write_json(span, column, nested(depth))
        page = read(reviewer, trace, f"?span={span_id(1)}")
        assert ("nests too deep" in page) == (depth > 1_024)
        write_json(span, "messages", nested(depth))
        assert "1 item" in read(reviewer, trace, f"?span={span_id(1)}") or depth > 1_024

    @pytest.mark.parametrize("value", ['{"role": 7}', '"text"', "7", "[[]]", '[{"content": null}]', "[null, {}, 3.5]"])
    def test_messages_of_any_shape(self, reviewer: Client, value: str) -> None:
        trace = make_trace()
        span = make_span(trace, 1, {"inputs": None}, kind="lm")
        for column in ("messages", "outputs", "attributes"):
            write_json(span, column, value)
        assert 'class="dspyserve-chat"' in read(reviewer, trace, f"?span={span_id(1)}")

    def test_2000_of_32000_spans_without_much_work(self, reviewer: Client) -> None:
        trace = make_trace(span_count=32_000, error_count=40)
        spans = [new_span(trace, n, n // 3 or None if n > 1 else None, at=n / 40) for n in range(1, 32_001)]
        Span.objects.bulk_create(spans, batch_size=2_000)
        read(reviewer, make_trace())
        # Counted, for what a second holds depends on what else the machine does: it takes half of one by itself.
        with function_calls() as calls:
            page = read(reviewer, trace)
        assert 100_000 < calls.number < MOST_CALLS
        assert page.count("data-span=") == span_tree.MAX_SPANS
        assert "30000 more spans are not shown" in page


class TestQueries:
    def test_do_not_grow_with_the_spans(self, reviewer: Client) -> None:
        counts = []
        trace = make_trace(span_count=10)
        read(reviewer, trace)  # Programs are read now and then, not with every page.
        for first, last in ((1, 10), (10, 100)):
            Span.objects.bulk_create(new_span(trace, number, kind="lm") for number in range(first, last))
            with CaptureQueriesContext(connection) as queries:
                read(reviewer, trace, f"?span={span_id(5)}")
            counts.append(len(queries))
        assert counts[0] == counts[1] == 6 + AUTHENTICATION, queries.captured_queries

    def test_with_permissions_to_look_up(self) -> None:
        client = staff("view_trace", "view_payload")
        trace = make_trace()
        make_span(trace, 1, {"inputs": {"a": "readable"}})
        read(client, trace)
        with CaptureQueriesContext(connection) as queries:
            assert "readable" in read(client, trace, f"?span={span_id(1)}")
        assert len(queries) <= 6 + AUTHENTICATION + PERMISSIONS, queries.captured_queries


class TestWhoMay:
    def test_texts_are_for_those_who_may_see_them(self) -> None:
        trace = make_trace(
            error_type="ValueError", error_message="a secret", metadata={"who": "a secret"}, status="failed"
        )
        secret = {"a": "a secret"}
        signature = {"name": "S", "instructions": "a secret"}
        attributes = {"error": "a secret", "traceback": "a secret", "signature": signature}
        make_span(trace, 1, {"inputs": secret, "outputs": secret, "attributes": attributes}, kind="run", status="error")
        page = read(staff("view_trace"), trace, f"?span={span_id(1)}&at=inputs")
        assert "a secret" not in page
        assert "You may not view the texts" in page
