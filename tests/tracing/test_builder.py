"""From the record of a run to its rows."""

from __future__ import annotations

import math
import uuid
from typing import Any

import pytest

from dspyserve.events import Caller, Event, Failure, RunRecord
from dspyserve.models import Span, Trace
from dspyserve.tracing import sanitize
from dspyserve.tracing.builder import MAX_TOKENS, build
from dspyserve.tracing.store import insert

TRACE = uuid.UUID("01a1fbf6408d739eb56c761afbca5f4e")


def event(kind: str, span: str, parent: str | None, at: float, **data: Any) -> Event:
    """An event of a span, whose ids are single letters."""
    return Event(
        type=kind,
        seq=1,
        trace_id=TRACE.hex,
        at=at,
        span_id=span * 16,
        parent_id=parent * 16 if parent else None,
        name=data.pop("name", kind.split("_")[0]),
        data=data,
    )


def record(*events: Event, **values: Any) -> RunRecord:
    """The record of a run with these events below its start."""
    defaults: dict[str, Any] = {
        "trace_id": TRACE,
        "linked_trace_id": "",
        "program_id": 1,
        "program_name": "qa",
        "version_id": None,
        "version_number": None,
        "model": "openai/x",
        "trace_level": "full",
        "caller": Caller(transport="rest", tags=("a",)),
        "started_at": 100.0,
        "ended_at": 101.5,
        "status": "succeeded",
        "inputs": {"question": "Why?"},
        "outputs": {"answer": "Because."},
        "failure": None,
        "first_token_at": 100.25,
    }
    return RunRecord(events=[event("run_start", "r", None, 100.0), *events], **{**defaults, **values})


def lm_call(span: str = "l", **end: Any) -> tuple[Event, Event]:
    """The start and end of a call."""
    return (
        event("lm_start", span, "r", 100.1, model="openai/x", messages=[{"role": "user", "content": "Why?"}]),
        event("lm_end", span, "r", 100.9, duration_ms=800.0, outputs=["Because."], **end),
    )


class TestTrace:
    def test_tells_the_run(self) -> None:
        trace = build(record(*lm_call(usage={"input_tokens": 5, "output_tokens": 2}, cost=0.25))).trace
        assert trace["id"] == TRACE.hex
        assert (trace["duration_ms"], trace["first_token_ms"]) == (1500.0, 250.0)
        assert (trace["input_preview"], trace["output_preview"]) == ("Why?", "Because.")
        assert (trace["span_count"], trace["lm_calls"], trace["cost"]) == (2, 1, 0.25)
        assert (trace["input_tokens"], trace["output_tokens"], trace["cached_tokens"]) == (5, 2, None)
        assert (trace["tags"], trace["transport"]) == (["a"], "rest")

    def test_an_unknown_cost_makes_the_sum_unknown(self) -> None:
        assert build(record(*lm_call("l", cost=0.25), *lm_call("m", cost=None))).trace["cost"] is None

    def test_a_call_that_never_ended_may_have_cost_something(self) -> None:
        rows = build(record(*lm_call("l", cost=0.25), lm_call("m")[0]))
        assert rows.trace["cost"] is None
        assert rows.spans[-1]["status"] == "unfinished"
        assert rows.spans[-1]["duration_ms"] is None

    def test_cached_calls_cost_nothing(self) -> None:
        rows = build(record(*lm_call(cost=0.0, cached=True)))
        assert rows.trace["cost"] == 0.0
        assert rows.spans[1]["is_cached"] is True

    @pytest.mark.django_db
    @pytest.mark.parametrize("count", [-1, 2**31, 2**70])
    def test_what_no_call_takes_is_not_known_and_does_not_lose_the_trace(self, count: int) -> None:
        usage = {"input_tokens": 5, "output_tokens": count}
        rows = build(record(*lm_call(usage=usage, cost=math.inf)))
        insert([rows])
        trace = Trace.objects.get()
        assert (trace.input_tokens, trace.output_tokens, trace.cost) == (5, None, None)

    @pytest.mark.django_db
    def test_a_sum_that_no_column_holds_is_not_known(self) -> None:
        usage = {"input_tokens": MAX_TOKENS}
        insert([build(record(*lm_call("l", usage=usage), *lm_call("m", usage=usage)))])
        assert Trace.objects.get().input_tokens is None
        assert Span.objects.filter(input_tokens=MAX_TOKENS).count() == 2

    def test_a_failure_is_kept_with_its_traceback(self) -> None:
        failure = Failure(type="ValueError", message="no\x00pe", code="program_error", traceback="Traceback…")
        rows = build(record(status="failed", outputs=None, failure=failure))
        assert (rows.trace["error_type"], rows.trace["error_message"], rows.trace["error_code"]) == (
            "ValueError",
            "nope",
            "program_error",
        )
        assert rows.trace["error_count"] == 1
        assert rows.payloads[0] is not None
        assert rows.payloads[0]["attributes"]["traceback"] == "Traceback…"

    def test_metadata_alone_holds_no_texts(self) -> None:
        failure = Failure(type="ValueError", message="private", code="program_error", traceback="private")
        rows = build(record(*lm_call(), trace_level="metadata", failure=failure))
        assert rows.payloads == [None, None]
        texts = (rows.trace["input_preview"], rows.trace["output_preview"], rows.trace["error_message"])
        assert texts == ("", "", "")

    def test_a_secret_is_in_no_preview(self) -> None:
        rows = build(record(inputs={"password": "hunter2hunter2", "question": "Bearer abcdefgh12345678"}))
        assert "hunter2" not in str(rows)
        assert "abcdefgh12345678" not in str(rows)

    def test_a_preview_tells_the_answer_before_what_led_to_it(self) -> None:
        rows = build(record(outputs={"reasoning": "Because of this.", "answer": "Paris"}))
        assert rows.trace["output_preview"] == "answer: Paris · reasoning: Because of this."

    def test_a_long_preview_ends_with_an_ellipsis(self) -> None:
        preview = build(record(inputs={"question": "word " * 500})).trace["input_preview"]
        assert len(preview) == 200
        assert preview.endswith("…")

    def test_looks_through_each_text_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        searched: list[str] = []
        monkeypatch.setattr(sanitize, "without_secrets", lambda text, _: searched.append(text) or text)
        question, answer = "Why is it so?", "Because it is."
        predictor = event("module_start", "m", "r", 100.0, inputs={"question": question})
        ended = event("module_end", "m", "r", 101.0, outputs={"answer": answer})
        build(record(predictor, *lm_call(), ended, inputs={"question": question}, outputs={"answer": answer}))
        assert searched.count(question) == 1
        assert searched.count(answer) == 1


class TestSpans:
    def test_are_in_the_order_of_their_starts(self) -> None:
        rows = build(record(event("module_start", "m", "r", 100.0), *lm_call(), event("module_end", "m", "r", 101.0)))
        assert [(row["sequence"], row["kind"]) for row in rows.spans] == [(1, "run"), (2, "module"), (3, "lm")]

    def test_an_answer_that_could_not_be_read_is_a_span(self) -> None:
        read = event("adapter_parse_end", "p", "r", 100.5, outputs={"answer": "x"}, duration_ms=1.0)
        failed = event("adapter_parse_end", "q", "r", 100.6, error_type="AdapterParseError", error="…", duration_ms=1.0)
        kinds = [(row["kind"], row["status"]) for row in build(record(read, failed)).spans]
        assert kinds == [("run", "ok"), ("adapter", "error")]

    def test_an_end_without_a_start_is_passed_over(self) -> None:
        assert len(build(record(event("tool_end", "t", "r", 100.5))).spans) == 1

    def test_a_parent_that_is_missing_stays_named(self) -> None:
        rows = build(record(event("tool_start", "t", "x", 100.5)))
        assert rows.spans[1]["parent_id"] == "x" * 16


class TestFirstToken:
    def test_of_a_call_is_its_own_column(self) -> None:
        rows = build(record(*lm_call(first_token_ms=12.5)))
        assert [span["first_token_ms"] for span in rows.spans] == [None, 12.5]
        assert "first_token_ms" not in (rows.payloads[1] or {})["attributes"]
