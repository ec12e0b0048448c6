"""What the trace page loads of one span."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from dspyserve.admin.traces.json_tree import MAX_DEPTH
from dspyserve.models import Span
from tests.admin.rows import LIST, make_span, make_trace, nested, new_span, span_url, staff, write_json

pytestmark = pytest.mark.django_db

AUTHENTICATION = 2
HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e"


@pytest.fixture
def reviewer(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ann"))
    return client


class TestDetail:
    def test_is_a_piece_of_the_page(self, reviewer: Client) -> None:
        signature = {
            "name": "Plan",
            "instructions": "Be brief.",
            "inputs": [{"name": "question", "type": "str", "description": "what"}],
            "outputs": [{"name": "steps", "type": "list[str]", "description": ""}],
        }
        attributes = {"module": "Predict", "signature": signature, "parameters": {"temperature": 0.5}}
        span = make_span(make_trace(), 1, {"inputs": {"question": HOSTILE}, "attributes": attributes}, kind="module")
        page = reviewer.get(span_url(span)).content.decode()
        assert "<html" not in page
        assert "<script>" not in page
        for text in ("Plan", "Be brief.", "list[str]", "temperature", "0.5", "Predict", "␛[31m[U+202E]", "100 ms"):
            assert text in page, text

    def test_of_a_call_that_failed(self, reviewer: Client) -> None:
        attributes = {"error": "no answer", "traceback": "Traceback: here", "partial_outputs": {"answer": "half"}}
        payload = {"messages": [{"role": "user", "content": "hi"}], "attributes": attributes}
        values = {"status": "error", "error_type": "LMError", "input_tokens": 3, "cost": 0.5, "first_token_ms": 20.0}
        span = make_span(make_trace(), 1, payload, kind="lm", model="x", **values)
        page = reviewer.get(span_url(span)).content.decode()
        for text in (
            "LMError",
            "no answer",
            "Traceback: here",
            "Streamed before the error",
            "half",
            "3 → –",
            "$0.5",
            "20 ms",
        ):
            assert text in page, text

    def test_takes_few_queries_however_many_spans_there_are(self) -> None:
        client = staff("view_trace", "view_payload")
        trace = make_trace()
        span = make_span(trace, 1, {"inputs": {"a": 1}})
        counts = []
        for first, last in ((2, 10), (10, 100)):
            Span.objects.bulk_create(new_span(trace, number) for number in range(first, last))
            with CaptureQueriesContext(connection) as queries:
                assert client.get(span_url(span)).status_code == 200
            counts.append(len(queries))
        assert counts[0] == counts[1] <= 4 + AUTHENTICATION, queries.captured_queries

    def test_of_what_is_not_there(self, reviewer: Client) -> None:
        span = make_span(make_trace(), 1)
        other = make_trace()
        for url in (f"{LIST}{other.pk}/span/{span.span_id}/", f"{LIST}{span.trace_id}/span/none/"):
            assert reviewer.get(url).status_code == 404
        assert "Nothing was stored" in reviewer.get(span_url(span)).content.decode()


class TestValue:
    def test_goes_on_where_the_page_stopped(self, reviewer: Client) -> None:
        span = make_span(make_trace(), 1, {"inputs": None})
        write_json(span, "inputs", nested(1_000))
        url = span_url(span, "value/?at=inputs" + ".0" * 990)
        page = reviewer.get(url).content.decode()
        assert page.count("<details") == MAX_DEPTH
        assert f"at=inputs{'.0' * 996}" in page
        assert "bottom" in reviewer.get(span_url(span, "value/?at=inputs" + ".0" * 996)).content.decode()

    def test_shows_children_from_a_position_on(self, reviewer: Client) -> None:
        span = make_span(make_trace(), 1, {"outputs": {"list": [f"item {n}" for n in range(250)]}})
        page = reviewer.get(span_url(span, "value/?at=outputs.0&from=100")).content.decode()
        assert "item 100<" in page
        assert "item 199<" in page
        assert "item 99<" not in page
        assert "50 more" in page

    @pytest.mark.parametrize("query", ["at=inputs.7", "at=id", "", "at=inputs&from=x", "at=inputs&from=" + "9" * 99])
    def test_of_what_is_not_there(self, reviewer: Client, query: str) -> None:
        span = make_span(make_trace(), 1, {"inputs": {"a": 1}})
        assert reviewer.get(span_url(span, f"value/?{query}")).status_code == 404


class TestRaw:
    def test_is_text_and_nothing_else(self, reviewer: Client, settings: Any) -> None:
        settings.SECURE_CONTENT_TYPE_NOSNIFF = False  # a project may be without it; the view is not
        span = make_span(make_trace(), 1, {"inputs": {"a": [HOSTILE]}})
        answer = reviewer.get(span_url(span, "raw/?at=inputs.0.0"))
        assert answer.content.decode() == HOSTILE
        assert answer["Content-Type"] == "text/plain; charset=utf-8"
        assert answer["X-Content-Type-Options"] == "nosniff"
        assert answer["Content-Security-Policy"] == "default-src 'none'; sandbox"
        assert answer["Content-Disposition"].startswith('inline; filename="')
        assert json.loads(reviewer.get(span_url(span, "raw/?at=inputs")).content) == {"a": [HOSTILE]}

    @pytest.mark.parametrize("depth", [300, 1_000, 1_500])
    def test_has_all_of_it_however_deep(self, reviewer: Client, depth: int) -> None:
        span = make_span(make_trace(), 1, {"inputs": None})
        write_json(span, "inputs", nested(depth))
        text = reviewer.get(span_url(span, "raw/?at=inputs")).content.decode()
        assert "".join(text.split()) == nested(depth)

    def test_has_all_of_it_however_long(self, reviewer: Client) -> None:
        span = make_span(make_trace(), 1, {"outputs": "é" * 2_500_000})
        assert len(reviewer.get(span_url(span, "raw/?at=outputs")).content) == 5_000_000

    @pytest.mark.parametrize("query", ["", "at=", "at=pk", "at=inputs.x", "at=inputs.0.0.0", "at=span_id"])
    def test_of_what_is_not_there(self, reviewer: Client, query: str) -> None:
        span = make_span(make_trace(), 1, {"inputs": {"a": 1}})
        assert reviewer.get(span_url(span, f"raw/?{query}")).status_code == 404


class TestWhoMay:
    @pytest.mark.parametrize("view", ["", "value/?at=inputs", "raw/?at=inputs"])
    def test_see_which(self, client: Client, view: str) -> None:
        span = make_span(make_trace(), 1, {"inputs": {"a": "a secret"}}, status="error", error_type="ValueError")
        url = span_url(span, view)
        assert client.get(url).status_code == 302
        assert staff("view_payload").get(url).status_code == 403
        without = staff("view_trace").get(url)
        assert without.status_code == (403 if view else 200)
        assert b"a secret" not in without.content
        assert b"a secret" in staff("view_trace", "view_payload").get(url).content
