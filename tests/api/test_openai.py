"""`/api/openai/v1`: programs as models, spoken to by OpenAI's own clients."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from dspyserve.models import LanguageModel, SpanPayload, Trace
from tests.api.conftest import API, make_key
from tests.server import Server

HERE = Path(__file__).resolve().parent.parent / "typescript"
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "Why is the sky blue?"}]


@pytest.fixture
def server(language_model: Any, start_server: Callable[..., Server]) -> Server:
    return start_server()


@pytest.fixture
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/api/openai/v1", api_key=make_key("run"), max_retries=0, timeout=30)


class TestClient:
    def test_lists_programs_that_can_be_talked_to(self, client: openai.OpenAI, server: Server) -> None:
        stranger = openai.OpenAI(base_url=client.base_url, api_key="dsk_guess.guess", max_retries=0)
        with pytest.raises(openai.AuthenticationError):
            stranger.models.list()
        names = {model.id for model in client.models.list()}
        assert {"qa", "echo", "private", "restricted", "chat", "agent"} <= names
        assert not {"extract", "perspectives", "media", "stateful"} & names

    def test_gets_an_answer_with_its_usage_and_trace(self, client: openai.OpenAI) -> None:
        raw = client.chat.completions.with_raw_response.create(model="echo", messages=HELLO)  # type: ignore[arg-type]
        completion = raw.parse()
        assert "Why is the sky blue?" in str(completion.choices[0].message.content)
        assert completion.choices[0].finish_reason == "stop"
        assert completion.usage is not None
        assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens > 0
        trace = Trace.objects.get(pk=raw.headers["X-Trace-Id"])
        assert completion.id == f"chatcmpl-{trace.id.hex}"
        assert (trace.status, trace.transport) == ("succeeded", "rest")

    def test_streams_what_adds_up_to_the_answer(self, client: openai.OpenAI) -> None:
        for program in ("echo", "chat", "agent", "step_by_step"):
            self.check_stream(client, program)

    @pytest.mark.parametrize(("program", "thought"), [("echo", "let me see"), ("chat", "yes")])
    def test_streams_what_the_model_thinks(self, client: openai.OpenAI, program: str, thought: str) -> None:
        # A reasoning of the program's own counts for more than the model's, and is not mixed with it.
        asked = [{"role": "user", "content": "@@reasoning_content=let me see@@ @@answer=yes@@"}]
        stream = client.chat.completions.create(model=program, messages=asked, stream=True)  # type: ignore[arg-type]
        deltas = [choice.delta for chunk in stream for choice in chunk.choices]
        assert "".join(delta.content or "" for delta in deltas) == "yes"
        assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == thought

    def check_stream(self, client: openai.OpenAI, program: str) -> None:
        """The pieces of a stream, against what its trace has."""
        text = reasoning = ""
        usage = None
        stream = client.chat.completions.create(
            model=program,
            messages=HELLO,  # type: ignore[arg-type]
            stream=True,
            stream_options={"include_usage": True},
        )
        reasons = []
        for chunk in stream:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
                reasoning += getattr(choice.delta, "reasoning_content", None) or ""
                reasons.append(choice.finish_reason)
        trace = Trace.objects.get(program_name=program)
        outputs = SpanPayload.objects.get(span__trace=trace, span__kind="run").outputs
        answer = "reply" if program == "chat" else "answer"
        assert text == outputs[answer]
        assert reasoning == outputs.get("reasoning", "")
        assert reasons[-1] == "stop"
        assert reasons.count("stop") == 1
        assert usage is not None
        assert usage.total_tokens > 0

    def test_gives_the_turns_before_to_a_program_with_a_history(self, client: openai.OpenAI) -> None:
        messages = [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "first-question"},
            {"role": "assistant", "content": "first-answer"},
            {"role": "user", "content": [{"type": "text", "text": "second-question"}]},
        ]
        client.chat.completions.create(model="chat", messages=messages, user="ann-7")  # type: ignore[arg-type]
        trace = Trace.objects.get()
        payload = SpanPayload.objects.get(span__trace=trace, span__kind="run")
        assert payload.inputs["message"] == "second-question"
        assert payload.inputs["history"] == {"messages": [{"message": "first-question", "reply": "first-answer"}]}
        prompt = json.dumps(SpanPayload.objects.get(span__trace=trace, span__kind="lm").messages)
        assert prompt.index("first-question") < prompt.index("first-answer") < prompt.index("second-question")
        assert trace.session_id == "ann-7"

    def test_is_told_errors_in_its_own_words(self, client: openai.OpenAI) -> None:
        expected: list[tuple[str, str, type[openai.APIStatusError], str]] = [
            ("absent", "q", openai.NotFoundError, "program_not_found"),
            ("extract", "q", openai.NotFoundError, "program_not_found"),
            ("echo", "@@status=500@@", openai.InternalServerError, "lm_error"),
            ("echo", "@@status=429@@", openai.RateLimitError, "rate_limited"),
            ("step_by_step", "@@status=500@@", openai.InternalServerError, "lm_error"),
        ]
        for model, text, error, code in expected:
            with pytest.raises(error) as caught:
                client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}])
            assert caught.value.code == code
            assert "provider-secret-text" not in str(caught.value)

    def test_is_told_an_error_in_the_middle_of_a_stream(self, client: openai.OpenAI) -> None:
        stream = client.chat.completions.create(
            model="echo", messages=[{"role": "user", "content": "@@cut=3@@ a b c d e f g"}], stream=True
        )
        with pytest.raises(openai.APIError) as caught:
            list(stream)
        assert caught.value.code == "lm_error"
        assert Trace.objects.get().status == "failed"


def test_a_silent_stream_is_kept_alive(language_model: Any, start_server: Callable[..., Server]) -> None:
    server = start_server(DSPYSERVE_TESTS_KEEPALIVE="0.2")
    # Its tokens are not the answer's: all the time, nothing is sent.
    body = {"model": "step_by_step", "messages": [{"role": "user", "content": "@@delay=0.8@@"}], "stream": True}
    headers = {"Authorization": f"Bearer {make_key('run')}"}
    address = f"{server.url}/api/openai/v1/chat/completions"
    with httpx.stream("POST", address, json=body, headers=headers, timeout=30) as response:
        text = "".join(response.iter_text())
    assert text.count(": keep-alive\n\n") >= 2
    assert text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": HELLO}, "model"),
        ({"model": "echo"}, "messages"),
        ({"model": "echo", "messages": []}, "messages"),
        ({"model": "echo", "messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        ({"model": "echo", "messages": [{"role": "user", "content": ""}]}, "messages"),
        ({"model": "echo", "messages": HELLO, "n": 2}, "n"),
        ({"model": "echo", "messages": HELLO, "stream": "yes"}, "stream"),
        ({"model": "echo", "messages": HELLO, "user": 7}, "user"),
        ({"model": "echo", "messages": HELLO, "metadata": []}, "metadata"),
    ],
)
def test_bad_requests_name_the_parameter(anonymous: API, body: Any, param: str) -> None:
    response = anonymous.post("openai/v1/chat/completions", body)
    assert (response.status_code, response.json()["error"]["param"]) == (422, param)
    assert not Trace.objects.exists()


def test_programs_are_for_those_who_may_run_them(anonymous: API) -> None:
    body = {"model": "restricted", "messages": HELLO}
    assert anonymous.post("openai/v1/chat/completions", body).status_code == 401
    assert API(make_key("run", programs=["echo"])).post("openai/v1/chat/completions", body).status_code == 403
    assert API(make_key("run")).post("openai/v1/chat/completions", body).status_code == 200


@pytest.mark.slow
@pytest.mark.embedded
@pytest.mark.skipif(
    shutil.which("npm") is None and os.environ.get("CI") != "true", reason="npm is not installed, and this is not CI"
)
def test_the_client_for_node(
    language_model: LanguageModel, start_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = start_server()
    for name in ("package.json", "openai.mjs"):
        shutil.copy(HERE / name, tmp_path)
    environment = {**os.environ, "DSPYSERVE_KEY": make_key("run")}
    for command in (
        ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"],
        ["node", "openai.mjs", f"{server.url}/api/openai/v1"],
    ):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    whole, streamed, has_usage, refused = done.stdout.strip().splitlines()
    assert "Why is the sky blue?" in whole
    assert streamed == whole
    assert (has_usage, refused) == ("true", "404 program_not_found")
