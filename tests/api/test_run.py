"""`POST /api/programs/<name>` over a real server: answers, and every problem of the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from dspyserve.models import Trace
from tests.load.openai_server import OpenAIServer
from tests.server import Server


@pytest.fixture
def server(language_model: Any, start_server: Callable[..., Server]) -> Server:
    return start_server()


@pytest.mark.usefixtures("language_model")
class TestOverDaphne:
    def test_answers_with_outputs_usage_and_a_stored_trace(self, server: Server, provider: OpenAIServer) -> None:
        response = server.run("echo", question="What is it?")
        body = response.json()
        assert response.status_code == 200, body
        assert "key=key-a" in body["outputs"]["answer"]
        assert "model=gpt-4o-mini" in body["outputs"]["answer"]
        assert body["usage"]["input_tokens"] > 0
        assert body["cost"] > 0
        assert body["trace_stored"] is True
        assert response.headers["X-Trace-Id"] == body["trace_id"]
        trace = Trace.objects.get(pk=body["trace_id"])
        assert (trace.status, trace.transport, trace.program_name) == ("succeeded", "rest", "echo")
        assert trace.lm_calls == 1
