"""`/api/traces`: pages, filters, spans, payloads, feedback and exports, and the queries that they take."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext

from dspyserve import runs
from dspyserve.events import Caller
from dspyserve.models import APIKey, Feedback, Program, Span, SpanPayload, Trace
from dspyserve.tracing.export import jsonl
from dspyserve.tracing.search import TraceFilter, page
from tests.api.conftest import API, content, make_key, make_user

START = datetime(2026, 1, 1, tzinfo=UTC)


def make_traces(count: int, **values: Any) -> list[Trace]:
    """Traces of `qa`, a second apart, every second pair of them at the same time, each with two spans."""
    program = Program.objects.get(name="qa")
    made = []
    for number in range(count):
        trace = Trace.objects.create(
            id=uuid.UUID(int=number + 1),
            program=program,
            program_name="qa",
            status="succeeded",
            transport="rest",
            started_at=START + timedelta(seconds=number // 2),
            span_count=2,
            input_preview=f"question {number}",
            **values,
        )
        for sequence in (1, 2):
            span = Span.objects.create(
                trace=trace,
                sequence=sequence,
                span_id=f"{sequence:016x}",
                parent_id="" if sequence == 1 else f"{1:016x}",
                kind="run" if sequence == 1 else "lm",
                name="qa",
                started_at=trace.started_at,
            )
            SpanPayload.objects.create(span=span, inputs={"question": f"question {number}"})
        made.append(trace)
    return made


@pytest.fixture
def reader(language_model: Any) -> API:
    """May do everything with traces."""
    return API(make_key("view_traces", "view_payloads", "give_feedback", "export"))


def walk(api: API, **query: Any) -> list[str]:
    """The ids of all pages."""
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = api.get("traces", **query, **cursor).json()
        found += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


class TestList:
    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 200])
    def test_pages_neither_skip_nor_repeat(self, reader: API, limit: int) -> None:
        made = make_traces(15)
        expected = [trace.id.hex for trace in sorted(made, key=lambda t: (t.started_at, t.id), reverse=True)]
        assert walk(reader, limit=limit) == expected

    def test_a_trace_that_arrives_meanwhile_moves_nothing(self, reader: API) -> None:
        make_traces(6)
        first = reader.get("traces", limit=3).json()
        Trace.objects.create(
            id=uuid.uuid4(), program_name="qa", status="succeeded", transport="rest", started_at=START + timedelta(1)
        )
        second = reader.get("traces", limit=3, cursor=first["next_cursor"]).json()
        ids = [item["id"] for page in (first, second) for item in page["items"]]
        assert ids == [uuid.UUID(int=number).hex for number in (6, 5, 4, 3, 2, 1)]

    @pytest.mark.parametrize(
        ("query", "numbers"),
        [
            ({"program": "qa"}, [3, 2, 1, 0]),
            ({"program": "other"}, []),
            ({"status": "failed"}, [1]),
            ({"transport": "sse"}, [2]),
            ({"has_errors": "true"}, [1]),
            ({"has_errors": "false"}, [3, 2, 0]),
            ({"session_id": "s1"}, [3]),
            ({"tag": "beta"}, [2]),
            ({"has_feedback": "true"}, [0]),
            ({"is_reviewed": "true"}, [0]),
            ({"is_reviewed": "false"}, [3, 2, 1]),
            ({"feedback": "good"}, [0]),
            ({"feedback": "bad"}, []),
            ({"environment": "prod"}, [3]),
            ({"error_type": "ValueError"}, [1]),
            ({"user": "nobody"}, []),
            ({"api_key": "nobody"}, []),
            ({"metadata": "tenant=acme"}, [3]),
            ({"min_tokens": "10", "max_tokens": "1e2"}, [2]),
            ({"min_duration_ms": "2.5"}, [2]),
            ({"max_cost": "0.01"}, [3]),
            ({"since": "2026-01-01T00:00:01Z"}, [3, 2]),
            ({"until": "2026-01-01T00:00:01Z"}, [1, 0]),
            ({"until": "2026-01-01T22:32:01+22:32"}, [1, 0]),
            ({"q": uuid.UUID(int=2).hex}, [1]),
            ({"q": "question 3", "since": "2026-01-01T00:00:00Z"}, [3]),
            ({"q": "question 3"}, []),  # older than the days that a text is searched in
            ({"status": "failed", "transport": "sse"}, []),
        ],
    )
    def test_filters(self, reader: API, query: dict[str, str], numbers: list[int]) -> None:
        made = make_traces(4)
        changes: list[dict[str, Any]] = [
            {},
            {"status": "failed", "error_count": 1, "error_type": "ValueError"},
            {"transport": "sse", "tags": ["beta"], "input_tokens": 100, "duration_ms": 2.5},
            {"session_id": "s1", "environment": "prod", "metadata": {"tenant": "acme"}, "cost": 0.01},
        ]
        for trace, values in zip(made, changes, strict=True):
            Trace.objects.filter(pk=trace.pk).update(**values or {"model": "m"})
        Feedback.objects.create(trace=made[0], name="good", author="user:1")
        assert walk(reader, **query) == [made[number].id.hex for number in numbers]

    @pytest.mark.parametrize(
        "query",
        [
            {"limit": "0"},
            {"limit": "201"},
            {"limit": "²"},
            {"cursor": "nonsense"},
            {"cursor": "ü"},
            {"status": "good"},
            {"since": "yesterday"},
            {"since": "2026-02-31T00:00:00Z"},
            {"since": "0001-01-01T00:00:00+10:00"},
            {"until": "9999-12-31T23:59:59-10:00"},
            {"has_errors": "1"},
            {"colour": "red"},
            {"min_cost": "-1"},
            {"max_tokens": "1e10"},
            {"max_cost": "nan"},
            {"metadata": "tenant"},
            {"program": "a\x00b"},
        ],
    )
    def test_a_bad_query_is_told_with_its_name(self, reader: API, query: dict[str, str]) -> None:
        response = reader.get("traces", **query)
        assert response.status_code == 422, response.content
        assert [fault["pointer"] for fault in response.json()["errors"]] == [f"/query/{name}" for name in query]

    def test_texts_cannot_be_searched_by_those_who_may_not_see_them(self, language_model: Any) -> None:
        make_traces(2)
        assert walk(API(make_key("view_traces")), q="question 1", since="2026-01-01T00:00:00Z") == []

    @pytest.mark.parametrize("count", [5, 50])
    def test_takes_one_query_whatever_its_length(self, reader: API, count: int) -> None:
        make_traces(count)
        reader.get("traces")
        with CaptureQueriesContext(connection) as queries:
            assert len(reader.get("traces").json()["items"]) == count
        assert len(queries) == 1, queries.captured_queries

    def test_a_batch_is_found_by_its_id(self, reader: API) -> None:
        made = make_traces(3)
        Trace.objects.filter(pk=made[1].pk).update(batch_id=uuid.UUID(int=77).hex)
        for query in ({"q": str(uuid.UUID(int=77))}, {"batch_id": uuid.UUID(int=77).hex}):
            assert walk(reader, **query) == [made[1].id.hex]

    @pytest.mark.skipif(connection.vendor != "sqlite", reason="a planner that sees a few rows scans them")
    @pytest.mark.parametrize(
        ("values", "index"),
        [
            ({"session_id": "s"}, "dspyserve_trace_session"),
            ({"batch_id": "b"}, "dspyserve_trace_batch"),
            ({"texts": (uuid.UUID(int=77).hex,)}, "dspyserve_trace_batch"),
            ({"status": "failed"}, "dspyserve_trace_"),
            ({}, "dspyserve_trace_time"),
        ],
    )
    def test_filters_use_an_index(self, values: dict[str, Any], index: str, db: None) -> None:
        wanted = TraceFilter(**values).apply(Trace.objects.all(), payloads=True)
        plan = wanted.order_by("-started_at", "-pk")[:50].explain()
        assert index in plan, plan


class TestTrace:
    def test_comes_with_spans_and_feedback_in_three_queries(self, reader: API) -> None:
        result = runs.execute("threaded", {"question": "q"})
        reader.get("traces")
        with CaptureQueriesContext(connection) as queries:
            body = reader.get(f"traces/{result.trace_id}").json()
        assert len(queries) == 3, queries.captured_queries
        assert (body["id"], body["program"], body["status"]) == (result.trace_id, "threaded", "succeeded")
        assert [span["kind"] for span in body["spans"]].count("lm") == 2
        assert len(body["spans"]) == body["span_count"]
        assert "inputs" not in body["spans"][0]

    def test_is_found_with_and_without_hyphens(self, reader: API) -> None:
        trace = make_traces(1)[0]
        for text in (str(trace.id), trace.id.hex, trace.id.hex.upper()):
            assert reader.get(f"traces/{text}").json()["id"] == trace.id.hex

    @pytest.mark.parametrize("text", ["nonsense", uuid.UUID(int=99).hex, "0"])
    def test_that_is_not_there_is_not_found(self, reader: API, text: str) -> None:
        for path in (f"traces/{text}", f"traces/{text}/spans/1"):
            response = reader.get(path)
            assert (response.status_code, response.json()["code"]) == (404, "trace_not_found")

    def test_payload_of_a_span_in_two_queries(self, reader: API) -> None:
        result = runs.execute("echo", {"question": "why"})
        span = Span.objects.get(trace_id=result.trace_id, kind="lm")
        reader.get("traces")
        with CaptureQueriesContext(connection) as queries:
            body = reader.get(f"traces/{result.trace_id}/spans/{span.span_id}").json()
        assert len(queries) == 2
        assert "why" in json.dumps(body["messages"])
        assert reader.get(f"traces/{result.trace_id}/spans/{'0' * 16}").status_code == 404

    def test_of_another_program_is_not_there_for_a_key(self, language_model: Any) -> None:
        trace = make_traces(1)[0]
        api = API(make_key("view_traces", "give_feedback", "export", programs=["echo"]))
        assert api.get(f"traces/{trace.id.hex}").status_code == 404
        assert api.post(f"traces/{trace.id.hex}/feedback", {"name": "a", "score": 1}).status_code == 404
        assert api.get("traces").json()["items"] == []
        assert content(api.get("traces/export")) == b""


def test_numbers_beyond_64_bits_do_not_change_how_times_are_written(reader: API) -> None:
    trace = make_traces(1)[0]
    Trace.objects.update(metadata={"count": 2**70})
    body = reader.get(f"traces/{trace.id.hex}").json()
    assert body["metadata"] == {"count": 2**70}
    assert body["started_at"] == body["spans"][0]["started_at"] == "2026-01-01T00:00:00+00:00"


class TestFeedback:
    def test_is_one_per_name_and_author(self, reader: API) -> None:
        path = f"traces/{make_traces(1)[0].id.hex}/feedback"
        first = reader.post(path, {"name": "helpful", "score": 0, "comment": "no"})
        second = reader.post(path, {"name": "helpful", "score": 1, "label": "yes"})
        assert (first.status_code, second.status_code) == (201, 200)
        body = second.json()
        assert (body["score"], body["label"], body["comment"]) == (1.0, "yes", "")
        user = API(user=make_user("ann", "add_feedback"))
        assert user.post(path, {"name": "helpful", "score": 0.5}).status_code == 201
        assert reader.post(path, {"name": "helpful", "span_id": f"{2:016x}", "score": 1}).status_code == 201
        authors = list(Feedback.objects.order_by("pk").values_list("author", "span_id"))
        key = f"key:{APIKey.objects.get().pk}"
        assert [author for author, _ in authors] == [
            key,
            f"user:{Feedback.objects.get(user__username='ann').user_id}",
            key,
        ]

    def test_shows_on_the_trace(self, reader: API) -> None:
        trace = make_traces(1)[0]
        reader.post(f"traces/{trace.id.hex}/feedback", {"name": "helpful", "score": 1})
        assert [f["name"] for f in reader.get(f"traces/{trace.id.hex}").json()["feedback"]] == ["helpful"]

    def test_takes_corrections_that_fit_the_outputs(self, reader: API) -> None:
        trace = runs.execute("extract", {"text": "Hello, I am Ann."})
        path = f"traces/{trace.trace_id}/feedback"
        correction = {"sentiment": "positive", "contact": {"name": "Ann"}}
        response = reader.post(path, {"name": "fix", "correction": correction})
        assert (response.status_code, response.json()["correction"]) == (201, correction)
        (opinion,) = reader.get(f"traces/{trace.trace_id}").json()["feedback"]
        assert opinion["correction"] == correction

    def test_corrections_repeat_texts_and_are_for_those_who_may_see_them(self, language_model: Any) -> None:
        trace = make_traces(1)[0]
        Feedback.objects.create(trace=trace, name="fix", author="user:1", correction={"answer": "secret"})
        (opinion,) = API(make_key("view_traces")).get(f"traces/{trace.id.hex}").json()["feedback"]
        assert "correction" not in opinion

    @pytest.mark.parametrize(
        ("body", "pointers"),
        [
            ({}, ["/name", ""]),
            ({"name": "a"}, [""]),
            ({"name": "", "score": 1}, ["/name"]),
            ({"name": "a", "score": "1"}, ["/score"]),
            ({"name": "a", "score": True}, ["/score"]),
            ({"name": "a", "score": 10**400}, ["/score"]),
            ({"name": "a", "label": "x" * 201}, ["/label"]),
            ({"name": "a", "comment": "\x00"}, ["/comment"]),
            ({"name": "a", "score": 1, "stars": 5}, ["/stars"]),
            ({"name": "a", "correction": {"sentiment": "bored"}}, ["/correction/sentiment"]),
            ({"name": "a", "correction": {"contact": {"name": 3}}}, ["/correction/contact/name"]),
            ({"name": "a", "correction": {"other": "x"}}, ["/correction/other"]),
            ({"name": "a", "correction": "positive"}, ["/correction"]),
        ],
    )
    def test_that_is_wrong_is_refused_with_pointers(self, reader: API, body: Any, pointers: list[str]) -> None:
        trace = runs.execute("extract", {"text": "Hello, I am Ann."})
        response = reader.post(f"traces/{trace.trace_id}/feedback", body)
        assert (response.status_code, [f["pointer"] for f in response.json()["errors"]]) == (422, pointers)
        assert not Feedback.objects.exists()

    def test_on_a_span_that_is_not_there_is_not_found(self, reader: API) -> None:
        body = {"name": "a", "score": 1, "span_id": "f" * 16}
        response = reader.post(f"traces/{make_traces(1)[0].id.hex}/feedback", body)
        assert (response.status_code, response.json()["code"]) == (404, "trace_not_found")

    def test_correction_of_a_program_that_is_gone(self, reader: API) -> None:
        trace = make_traces(1)[0]
        Trace.objects.update(program_name="gone")
        response = reader.post(f"traces/{trace.id.hex}/feedback", {"name": "a", "correction": {"answer": "x"}})
        assert response.json()["errors"][0]["pointer"] == "/correction"


def failing_after(pages: int) -> Any:
    """A way to read pages, of which some can be had."""
    left = [pages]

    def read(*args: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise OperationalError("the database is away")
        return page(*args)

    return read


class TestExport:
    def test_holds_everything_of_the_filtered_traces(self, reader: API) -> None:
        runs.execute("echo", {"question": "why"}, caller=Caller(session_id="s"))
        make_traces(3)
        lines = [json.loads(line) for line in content(reader.get("traces/export", session_id="s")).splitlines()]
        assert [line["program"] for line in lines] == ["echo"]
        assert any(span["messages"] for span in lines[0]["spans"])
        assert len(content(reader.get("traces/export")).splitlines()) == 4

    @pytest.mark.parametrize(("form", "kind"), [("csv", "text/csv; charset=utf-8"), ("otlp", "application/x-ndjson")])
    def test_comes_in_other_formats(self, reader: API, form: str, kind: str) -> None:
        make_traces(3)
        response = reader.get("traces/export", format=form)
        assert (response.status_code, response["Content-Type"]) == (200, kind)
        assert len(content(response).splitlines()) == 3 + (form == "csv")

    def test_in_a_format_that_there_is_not(self, reader: API) -> None:
        assert reader.get("traces/export", format="xml").json()["errors"][0]["pointer"] == "/query/format"

    def test_examples_are_for_those_who_may_see_texts(self, language_model: Any) -> None:
        assert API(make_key("view_traces", "export")).get("traces/export", format="dspy").status_code == 403

    @pytest.mark.parametrize("count", [10, 60])
    def test_takes_three_queries_for_any_number_of_traces(self, language_model: Any, count: int) -> None:
        make_traces(count)
        with CaptureQueriesContext(connection) as queries:
            lines = b"".join(jsonl(Trace.objects.all(), payloads=True)).splitlines()
        assert (len(lines), len(queries)) == (count, 3)

    def test_that_fails_at_once_is_a_problem(self, reader: API, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dspyserve.tracing.export.reading.page", failing_after(0))
        response = reader.get("traces/export")
        assert (response.status_code, response.json()["code"]) == (500, "program_error")

    def test_that_fails_later_says_so_in_its_last_line(self, reader: API, monkeypatch: pytest.MonkeyPatch) -> None:
        make_traces(5)
        monkeypatch.setattr("dspyserve.tracing.export.reading.CHUNK", 2)
        monkeypatch.setattr("dspyserve.tracing.export.reading.page", failing_after(2))
        lines = [json.loads(line) for line in content(reader.get("traces/export")).splitlines()]
        assert [line.get("program") for line in lines] == ["qa", "qa", "qa", "qa", None]
        assert lines[-1]["problem"]["code"] == "program_error"

    def test_goes_on_beyond_one_chunk(self, language_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dspyserve.tracing.export.reading.CHUNK", 4)
        make_traces(10)
        ids = [json.loads(line)["id"] for line in b"".join(jsonl(Trace.objects.all(), payloads=True)).splitlines()]
        assert ids == [uuid.UUID(int=number).hex for number in range(10, 0, -1)]
