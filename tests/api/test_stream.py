"""`POST /api/programs/<name>/stream`: server-sent events over real servers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from httpx_sse import ServerSentEvent, connect_sse

from dspyserve.events import TERMINAL
from dspyserve.models import SpanPayload, Trace
from tests.api.test_run import wait_for_trace
from tests.load.openai_server import OpenAIServer
from tests.server import Server


@pytest.fixture(params=["daphne", "uvicorn"])
def server(request: pytest.FixtureRequest, language_model: Any, start_server: Callable[..., Server]) -> Server:
    return start_server(request.param)


def stream(server: Server, program: str, **inputs: Any) -> list[dict[str, Any]]:
    """All events of a run, whose frames agree with their data."""
    with (
        httpx.Client(timeout=30) as client,
        connect_sse(client, "POST", f"{server.url}/api/programs/{program}/stream", json={"inputs": inputs}) as source,
    ):
        assert source.response.headers["X-Accel-Buffering"] == "no"
        frames: list[ServerSentEvent] = list(source.iter_sse())
    events = [frame.json() for frame in frames]
    assert [(frame.id, frame.event) for frame in frames] == [(str(event["seq"]), event["type"]) for event in events]
    assert {event["trace_id"] for event in events} == {source.response.headers["X-Trace-Id"]}
    return events


def check(events: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    """Assert what holds for every stream; the text of each field of each predictor."""
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[0]["type"] == "run_start"
    assert [event["type"] in TERMINAL for event in events] == [False] * (len(events) - 1) + [True]
    texts: dict[tuple[str, str], str] = defaultdict(str)
    for event in events:
        if event["type"] == "token":
            texts[(event["predictor"], event["field"])] += event["delta"]
    return texts


class TestStream:
    @pytest.mark.parametrize("program", ["echo", "threaded"])
    def test_deltas_add_up_to_the_fields(self, server: Server, program: str) -> None:
        events = stream(server, program, question="Which one? @@words=50@@ @@chunk=3@@")
        texts = check(events)
        end = events[-1]
        assert end["type"] == "run_end"
        assert end["trace_stored"] is True
        assert [text for (_, field), text in texts.items() if field == "answer"] == [end["outputs"]["answer"]]
        assert sum(event["type"] == "token" for event in events) > 20
        trace = Trace.objects.get(pk=end["trace_id"])
        assert (trace.status, trace.transport) == ("succeeded", "sse")
        assert trace.first_token_ms is not None

    def test_tells_no_inputs_of_inner_spans(self, server: Server) -> None:
        for event in check_all(stream(server, "threaded", question="q")):
            if event["type"] not in TERMINAL:
                assert not {"inputs", "outputs", "messages"} & event.keys()

    @pytest.mark.parametrize(
        ("directive", "code"),
        [("@@status=500@@", "lm_error"), ("@@cut=4@@", "lm_error"), ("@@garbage=1@@", "output_unparsable")],
    )
    def test_a_failure_is_the_terminal_event(self, server: Server, directive: str, code: str) -> None:
        events = stream(server, "echo", question=f"q {directive}")
        check(events)
        assert (events[-1]["type"], events[-1]["problem"]["code"]) == ("run_error", code)
        assert "provider-secret-text" not in str(events) + server.log
        trace = Trace.objects.get(pk=events[-1]["trace_id"])
        assert trace.status == "failed"
        check_partial(trace, events)

    def test_a_client_that_leaves_stops_the_execution(self, server: Server, provider: OpenAIServer) -> None:
        body = {"inputs": {"question": "@@words=2000@@ @@token_delay=0.02@@"}}
        with httpx.stream("POST", f"{server.url}/api/programs/echo/stream", json=body, timeout=30) as response:
            lines = response.iter_lines()
            while "event: token" not in next(lines):
                pass
        trace = wait_for_trace("echo")
        assert (trace.status, trace.error_code) == ("cancelled", "cancelled")
        payloads = SpanPayload.objects.filter(span__trace=trace, attributes__has_key="partial_outputs")
        assert payloads.get().attributes["partial_outputs"]["answer"]
        assert httpx.get(f"{server.url}/api/health/ready").json()["running"] == 0

    def test_a_silent_stream_is_kept_alive(self, language_model: Any, start_server: Callable[..., Server]) -> None:
        server = start_server(DSPYSERVE_TESTS_KEEPALIVE="0.2")
        body = {"inputs": {"question": "@@delay=1@@"}}
        with httpx.stream("POST", f"{server.url}/api/programs/echo/stream", json=body, timeout=30) as response:
            text = "".join(response.iter_text())
        assert text.count(": keep-alive\n\n") >= 2
        assert text.count("event: run_end") == 1


def check_partial(trace: Trace, events: list[dict[str, Any]]) -> None:
    """What was streamed of an answer that failed is in the trace, where its predictor is."""
    text = "".join(event["delta"] for event in events if event["type"] == "token")
    payloads = SpanPayload.objects.filter(span__trace=trace, attributes__has_key="partial_outputs")
    if text:
        payload = payloads.get()
        assert payload.attributes["partial_outputs"] == {"answer": text}
        assert payload.span.span_id == next(event["span_id"] for event in events if event["type"] == "token")
    else:
        assert not payloads.exists()


def check_all(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events, checked."""
    check(events)
    return events
