"""Exports: what each format says of a trace, with how many queries, and in how little memory."""

from __future__ import annotations

import base64
import csv
import datetime
import io
import json
import tracemalloc
import uuid
from typing import Any

import dspy
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from google.protobuf import json_format
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from dspyserve.models import Feedback, Span, SpanPayload, Trace
from dspyserve.tracing import otel_names as names
from dspyserve.tracing.export import FORMATS, lines, reading
from dspyserve.tracing.export.formats import with_feedback
from dspyserve.tracing.sanitize import Sanitizer

pytestmark = pytest.mark.django_db

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
FORMULA = '=HYPERLINK("http://evil.example")'


def make_traces(count: int, *, text: str = "why", answer: Any = "because", **values: Any) -> list[Trace]:
    """Traces of a run and a call of a language model, a second apart, the first one the oldest."""
    traces, spans, payloads = [], [], []
    for number in range(count):
        started_at = START + datetime.timedelta(seconds=number)
        common = {"program_name": "qa", "status": "succeeded", "transport": "rest", "span_count": 2}
        traces.append(Trace(id=uuid.uuid4(), started_at=started_at, **{**common, **values}))
        for sequence, kind in ((1, "run"), (2, "lm")):
            spans.append(
                Span(
                    trace=traces[-1],
                    sequence=sequence,
                    span_id=str(sequence) * 16,
                    parent_id="" if sequence == 1 else "1" * 16,
                    kind=kind,
                    name=kind,
                    started_at=started_at,
                    duration_ms=12.5,
                    model="openai/gpt-5" if kind == "lm" else "",
                    input_tokens=7 if kind == "lm" else None,
                    output_tokens=3 if kind == "lm" else None,
                )
            )
    Trace.objects.bulk_create(traces)
    for span in Span.objects.bulk_create(spans):
        if span.kind == "run":
            payloads.append(SpanPayload(span=span, inputs={"question": text}, outputs={"answer": answer}))
        else:
            told = {"parameters": {"temperature": 0.5}, "finish_reason": "stop", "response_id": "r1"}
            prompt = [{"role": "user", "content": text}]
            payloads.append(SpanPayload(span=span, messages=prompt, outputs=[answer], attributes=told))
    SpanPayload.objects.bulk_create(payloads)
    return traces


def exported(name: str, *, payloads: bool = True) -> bytes:
    return b"".join(lines(Trace.objects.all(), FORMATS[name], payloads=payloads))


def documents(name: str, *, payloads: bool = True) -> list[Any]:
    return [json.loads(line) for line in exported(name, payloads=payloads).splitlines()]


def table(*, payloads: bool = True) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(exported("csv", payloads=payloads).decode(), newline="")))


class TestReading:
    @pytest.mark.parametrize(
        ("name", "payloads", "tables"),
        [("jsonl", True, 3), ("jsonl", False, 3), ("csv", True, 3), ("csv", False, 2), ("otlp", True, 3)],
    )
    def test_one_query_a_table_and_chunk(
        self, name: str, payloads: bool, tables: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reading, "CHUNK", 10)
        make_traces(30)
        with CaptureQueriesContext(connection) as queries:
            exported(name, payloads=payloads)
        assert len(queries) == 3 * tables

    def test_the_newest_first_whatever_the_ids(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reading, "CHUNK", 4)
        made = make_traces(10)
        Span.objects.filter(trace=made[5]).delete()
        assert [each["id"] for each in documents("jsonl")] == [trace.id.hex for trace in reversed(made)]

    def test_memory_does_not_grow_with_what_is_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reading, "MEMORY", 100_000)
        monkeypatch.setattr(reading, "_ROWS", 4)
        make_traces(200, text="x" * 200_000)
        tracemalloc.start()
        try:
            size = sum(len(chunk) for chunk in lines(Trace.objects.all(), FORMATS["jsonl"], payloads=True))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert size > 80_000_000
        # What waits for the garbage collector included.
        assert peak < size / 3

    def test_long_texts_are_whole(self) -> None:
        text = "long " * 100_000
        make_traces(1, text=text)
        assert documents("jsonl")[0]["spans"][0]["inputs"]["question"] == text
        assert text.encode() in exported("csv")


class TestSummary:
    def test_one_row_a_trace_with_empty_cells_for_what_nobody_knows(self) -> None:
        (trace,) = make_traces(1, cost=None, duration_ms=-0.5, tags=["beta"])
        Feedback.objects.create(trace=trace, name="helpful", author="user:1", score=1.0)
        Feedback.objects.create(trace=trace, name="tone", author="user:1", label="rude")
        (row,) = table()
        assert (row["id"], row["program"], row["cost"], row["version"]) == (trace.id.hex, "qa", "", "")
        assert row["duration_ms"] == "-0.5"
        assert row["feedback"] == "helpful=1; tone=rude"
        assert json.loads(row["inputs"]) == {"question": "why"}
        assert row["started_at"] == "2026-01-01T00:00:00+00:00"

    @pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t=", "\r=", " =", "＝"])
    def test_no_text_is_a_formula(self, begin: str) -> None:
        make_traces(1, session_id=f"{begin}1+1", error_type=FORMULA, error_message=f'{begin}cmd|" /C calc"!A0')
        (row,) = table()
        for name in ("session_id", "error_type", "error_message"):
            assert row[name].startswith("'")

    def test_texts_are_for_those_who_may_see_them(self) -> None:
        make_traces(1, text="secret", input_preview="secret", error_message="secret")
        assert b"secret" not in exported("csv", payloads=False)
        assert b"secret" in exported("csv")


class TestEverything:
    def test_corrections_are_for_those_who_may_see_texts(self) -> None:
        (trace,) = make_traces(1)
        Feedback.objects.create(trace=trace, name="fix", author="user:1", comment="no", correction={"answer": "secret"})
        assert documents("jsonl")[0]["feedback"][0]["correction"] == {"answer": "secret"}
        (opinion,) = documents("jsonl", payloads=False)[0]["feedback"]
        assert (opinion["comment"], "correction" in opinion) == ("no", False)


class TestExamples:
    def test_three_lines_make_a_training_set(self) -> None:
        make_traces(2)
        rows = [json.loads(line) for line in exported("dspy").decode().splitlines()]
        trainset = [dspy.Example(**row["fields"]).with_inputs(*row["inputs"]) for row in rows]
        assert len(trainset) == 2
        assert trainset[0].inputs().toDict() == {"question": "why"}
        assert trainset[0].labels().toDict() == {"answer": "because"}

    def test_corrections_are_the_labels_and_the_last_one_holds(self) -> None:
        (trace,) = make_traces(1)
        give = Feedback.objects.create
        give(trace=trace, name="b", author="1", correction={"answer": "first"}, score=-1.0)
        give(trace=trace, name="a", author="2", correction={"answer": "last"})
        give(trace=trace, name="c", author="2", correction={"answer": "of a step"}, span_id="2" * 16)
        (example,) = documents("dspy")
        assert example["fields"] == {"question": "why", "answer": "last"}
        assert (example["corrected"], example["scores"]) == (["answer"], {"b": -1.0})

    def test_only_what_succeeded_and_is_whole(self) -> None:
        make_traces(1, status="failed")
        sanitizer = Sanitizer(field_limit=1024)
        cut = sanitizer.clean("y" * 3000)
        make_traces(1, text="cut", answer=cut, truncation=sanitizer.facts)
        make_traces(1, text="whole", truncation={"fields": 1, "bytes": 9})
        make_traces(1, text=Sanitizer().clean(f"data:image/png;base64,{'A' * 400}"))
        (unkept,) = make_traces(1)
        SpanPayload.objects.filter(span__trace=unkept).delete()
        assert [each["fields"]["question"] for each in documents("dspy")] == ["whole"]
        assert exported("dspy", payloads=False) == b""

    def test_of_what_somebody_judged(self) -> None:
        liked, disliked, mixed, corrected, _ = make_traces(5)
        for number, (trace, score) in enumerate([(liked, 1.0), (disliked, 0.0), (mixed, 1.0), (mixed, -1.0)]):
            Feedback.objects.create(trace=trace, name=f"n{number}", author="1", score=score)
        Feedback.objects.create(trace=corrected, name="n", author="1", correction={"answer": "x"}, score=0.0)
        every = Trace.objects.all()
        assert set(with_feedback(every, "positive")) == {liked, corrected}
        assert set(with_feedback(every, "any")) == {liked, disliked, mixed, corrected}


class TestOTLP:
    def test_is_what_the_protocol_says(self) -> None:
        (trace,) = make_traces(1, status="failed", session_id="s1", environment="test", tags=["a", "b"], user_id=4)
        Span.objects.filter(kind="lm").update(status="error", error_type="ValueError", parent_id="1" * 16)
        Feedback.objects.create(trace=trace, name="helpful", author="user:1", score=0.5, comment="fine")
        (line,) = exported("otlp").splitlines()
        data = json_format.Parse(in_base64(json.loads(line)), TracesData())
        (resource,) = data.resource_spans
        run, lm = resource.scope_spans[0].spans
        assert run.trace_id == lm.trace_id == trace.id.bytes
        assert (run.span_id.hex(), run.parent_span_id, lm.parent_span_id.hex()) == ("1" * 16, b"", "1" * 16)
        assert run.start_time_unix_nano == int(START.timestamp()) * 10**9
        assert run.end_time_unix_nano - run.start_time_unix_nano == 12_500_000
        assert (run.status.code, lm.status.code) == (1, 2)
        assert attributes(resource.resource)[names.ENVIRONMENT] == "test"
        told = attributes(run)
        assert (told["openinference.span.kind"], told["session.id"]) == ("AGENT", "s1")
        assert json.loads(told["input.value"]) == {"question": "why"}
        assert told["tag.tags"] == ["a", "b"]
        told = attributes(lm)
        assert (told["gen_ai.operation.name"], told["gen_ai.provider.name"]) == ("chat", "openai")
        assert (told["gen_ai.request.model"], told["llm.model_name"]) == ("gpt-5", "openai/gpt-5")
        assert (told["gen_ai.usage.input_tokens"], told["llm.token_count.total"]) == (7, 10)
        assert told["llm.input_messages.0.message.content"] == "why"
        assert (told["gen_ai.request.temperature"], told["gen_ai.response.finish_reasons"]) == (0.5, ["stop"])
        assert [event.name for event in lm.events] == ["exception"]
        (opinion,) = run.events
        assert attributes(opinion)["gen_ai.evaluation.score.value"] == 0.5

    def test_texts_are_for_those_who_may_see_them(self) -> None:
        make_traces(1, text="secret", answer="secret")
        assert b"secret" not in exported("otlp", payloads=False)

    def test_a_span_that_never_ended_ends_with_the_run(self) -> None:
        make_traces(1, ended_at=START + datetime.timedelta(seconds=2))
        Span.objects.filter(kind="lm").update(status="unfinished", duration_ms=None)
        _, lm = documents("otlp")[0]["resourceSpans"][0]["scopeSpans"][0]["spans"]
        assert int(lm["endTimeUnixNano"]) - int(lm["startTimeUnixNano"]) == 2 * 10**9
        assert lm["status"] == {"code": 0}

    def test_no_name_is_written_elsewhere(self) -> None:
        from pathlib import Path

        import dspyserve

        prefixes = ("gen_ai.", "openinference.", "llm.token_count")
        root = Path(dspyserve.__file__).parent
        found = [path.name for path in root.rglob("*.py") if any(each in path.read_text() for each in prefixes)]
        assert found == ["otel_names.py"]


def in_base64(document: Any) -> str:
    """The protocol writes ids in hexadecimal, where protobuf's own JSON has them in base64."""
    for resource in document["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for name in {"traceId", "spanId", "parentSpanId"} & span.keys():
                    span[name] = base64.b64encode(bytes.fromhex(span[name])).decode()
    return json.dumps(document)


def attributes(message: Any) -> dict[str, Any]:
    return {each.key: _value(each.value) for each in message.attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    found = getattr(value, kind)
    return [_value(item) for item in found.values] if kind == "array_value" else found
