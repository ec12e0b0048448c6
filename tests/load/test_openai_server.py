"""The chat server over plain HTTP: what it sends, how a prompt steers it, what it counts."""

import asyncio
import concurrent.futures
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import orjson
import pytest

from tests.load.openai_server import OpenAIServer
from tests.load.openai_wire import SECRET


@pytest.fixture(scope="module")
def running() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def server(running: OpenAIServer) -> OpenAIServer:
    running.clear()
    return running


@pytest.fixture
def client(server: OpenAIServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers={"Authorization": "Bearer k1"}, timeout=5) as client:
        yield client


def body(text: str, **options: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **options}


def post(client: httpx.Client, text: str, **options: Any) -> httpx.Response:
    return client.post("/chat/completions", json=body(text, **options))


def content(response: httpx.Response) -> str:
    return response.json()["choices"][0]["message"]["content"]


def events(response: httpx.Response) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    return [orjson.loads(line) for line in lines[:-1]]


def deltas(response: httpx.Response, name: str = "content") -> list[str]:
    chunks = [event["choices"][0]["delta"] for event in events(response) if event["choices"]]
    return [chunk[name] for chunk in chunks if chunk.get(name)]


def wait_until(condition: Callable[[], bool], seconds: float = 3.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.005)


class TestAnswers:
    def test_a_plain_prompt_is_echoed_with_who_asked(self, client: httpx.Client) -> None:
        answer = post(client, "Hello\nthere", temperature=0.5)
        assert answer.status_code == 200
        assert content(answer) == "text | model=m | key=k1 | temperature=0.5 | prompt=Hello there"

    def test_a_long_message_is_echoed_in_part(self, client: httpx.Client) -> None:
        assert content(post(client, "x" * 300)).endswith("prompt=" + "x" * 200)

    def test_the_last_user_message_counts(self, client: httpx.Client) -> None:
        messages = [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "@@status=500@@"},
            {"role": "assistant", "content": "No."},
            {"role": "user", "content": [{"type": "text", "text": "in "}, {"type": "text", "text": "parts"}]},
        ]
        answer = client.post("/chat/completions", json={"model": "m", "messages": messages})
        assert content(answer).endswith("prompt=in parts")

    def test_the_body_is_that_of_openai(self, client: httpx.Client) -> None:
        data = post(client, "one two three").json()
        assert data["object"] == "chat.completion"
        assert data["model"] == "m-2026-01-01"
        assert data["choices"][0]["finish_reason"] == "stop"
        words = len(data["choices"][0]["message"]["content"].split())
        assert data["usage"] == {"prompt_tokens": 3, "completion_tokens": words, "total_tokens": 3 + words}

    def test_every_answer_has_its_own_id(self, client: httpx.Client) -> None:
        identities = [post(client, "x").json()["id"] for _ in range(5)]
        assert len(set(identities)) == 5
        assert all(re.fullmatch(r"chatcmpl-\d+", identity) for identity in identities)

    def test_several_choices_can_be_told_apart(self, client: httpx.Client) -> None:
        choices = post(client, "x", n=3).json()["choices"]
        assert [choice["index"] for choice in choices] == [0, 1, 2]
        assert len({choice["message"]["content"] for choice in choices}) == 3

    def test_a_json_schema_is_obeyed_without_an_adapter(self, client: httpx.Client) -> None:
        schema = {"type": "object", "properties": {"city": {"type": "string"}, "people": {"type": "integer"}}}
        wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        answer = orjson.loads(content(post(client, "Where?", response_format=wanted)))
        assert answer == {"city": "city | model=m | key=k1 | temperature=None | prompt=Where?", "people": 42}

    def test_json_mode_is_obeyed_without_an_adapter(self, client: httpx.Client) -> None:
        answer = orjson.loads(content(post(client, "Where?", response_format={"type": "json_object"})))
        assert list(answer) == ["text"]


class TestStreams:
    def test_the_chunks_add_up_to_the_whole_answer(self, client: httpx.Client) -> None:
        whole = content(post(client, "two  spaces,\ta tab"))
        pieces = deltas(post(client, "two  spaces,\ta tab", stream=True))
        assert "".join(pieces) == whole
        assert len(pieces) == len(whole.split())

    def test_a_stream_begins_with_the_role_and_ends_with_the_reason(self, client: httpx.Client) -> None:
        answer = post(client, "x", stream=True)
        assert answer.headers["content-type"] == "text/event-stream"
        chunks = events(answer)
        assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert chunks[-1]["choices"][0] == {"index": 0, "delta": {}, "finish_reason": "stop"}
        assert len({chunk["id"] for chunk in chunks}) == 1
        assert all("usage" not in chunk for chunk in chunks)

    def test_the_usage_comes_last_when_it_is_wanted(self, client: httpx.Client) -> None:
        usage = post(client, "one two").json()["usage"]
        chunks = events(post(client, "one two", stream=True, stream_options={"include_usage": True}))
        assert chunks[-1]["usage"] == usage
        assert chunks[-1]["choices"] == []
        assert all(chunk["usage"] is None for chunk in chunks[:-1])

    def test_every_choice_is_streamed(self, client: httpx.Client) -> None:
        texts = [choice["message"]["content"] for choice in post(client, "x", n=2).json()["choices"]]
        choices = [event["choices"][0] for event in events(post(client, "x", n=2, stream=True))]
        for index, text in enumerate(texts):
            assert "".join(each["delta"].get("content", "") for each in choices if each["index"] == index) == text

    def test_chunks_arrive_one_by_one(self, client: httpx.Client) -> None:
        asked = body("@@token_delay=0.05@@ @@words=5@@", stream=True)
        with client.stream("POST", "/chat/completions", json=asked) as response:
            arrivals = [time.monotonic() for line in response.iter_lines() if '"content":' in line]
        assert arrivals[-1] - arrivals[0] >= 0.2


class TestPaceDirectives:
    def test_delay(self, client: httpx.Client) -> None:
        start = time.monotonic()
        post(client, "@@delay=0.2@@")
        assert 0.2 <= time.monotonic() - start < 1.0

    def test_the_latency_of_the_server_and_a_delay_that_overrides_it(self) -> None:
        with OpenAIServer(latency=0.2, token_delay=0.02) as slow, httpx.Client(base_url=slow.url) as client:
            start = time.monotonic()
            post(client, "x")
            middle = time.monotonic()
            post(client, "@@delay=0@@")
            end = time.monotonic()
            post(client, "@@delay=0@@ @@words=10@@", stream=True)
            assert middle - start >= 0.2
            assert end - middle < 0.2
            assert time.monotonic() - end >= 0.2


class TestTextDirectives:
    def test_answer(self, client: httpx.Client) -> None:
        assert content(post(client, "@@answer=Exactly  this,\nno more.@@")) == "Exactly  this,\nno more."

    def test_words(self, client: httpx.Client) -> None:
        assert len(content(post(client, "@@words=1000@@")).split()) == 1000

    def test_chunk(self, client: httpx.Client) -> None:
        assert deltas(post(client, "@@chunk=3@@ @@answer=abcdefgh@@", stream=True)) == ["abc", "def", "gh"]

    def test_finish(self, client: httpx.Client) -> None:
        assert post(client, "@@finish=length@@").json()["choices"][0]["finish_reason"] == "length"
        assert events(post(client, "@@finish=length@@", stream=True))[-1]["choices"][0]["finish_reason"] == "length"

    def test_reasoning_content(self, client: httpx.Client) -> None:
        message = post(client, "@@reasoning_content=Let me think.@@").json()["choices"][0]["message"]
        assert message["reasoning_content"] == "Let me think."
        streamed = post(client, "@@reasoning_content=Let me think.@@", stream=True)
        assert deltas(streamed, "reasoning_content") == ["Let", " me", " think."]
        assert "".join(deltas(streamed)) == message["content"]

    def test_cached(self, client: httpx.Client) -> None:
        assert post(client, "@@cached=10@@").json()["usage"]["prompt_tokens_details"] == {"cached_tokens": 10}

    def test_a_directive_may_stand_anywhere_and_the_first_counts(self, client: httpx.Client) -> None:
        assert content(post(client, "Say @@answer=a@@ please, not @@answer=b@@.")) == "a"

    @pytest.mark.parametrize("directive", ["bogus=1", "delay=soon", "garbage=yes"])
    def test_a_mistaken_directive_is_refused(self, client: httpx.Client, directive: str) -> None:
        answer = post(client, f"@@{directive}@@")
        assert answer.status_code == 400
        assert directive.partition("=")[0] in answer.json()["error"]["message"]


class TestFailureDirectives:
    @pytest.mark.parametrize(
        ("status", "code"),
        [
            (400, None),
            (401, "invalid_api_key"),
            (402, "insufficient_quota"),
            (403, None),
            (404, "model_not_found"),
            (408, None),
            (413, None),
            (429, "rate_limit_exceeded"),
            (500, None),
            (503, None),
        ],
    )
    @pytest.mark.parametrize("stream", [False, True])
    def test_status(self, client: httpx.Client, status: int, code: str | None, stream: bool) -> None:
        answer = post(client, f"@@status={status}@@", stream=stream)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (status, code)
        assert SECRET in error["message"]
        assert "retry-after" not in answer.headers

    def test_retry_after(self, client: httpx.Client) -> None:
        assert post(client, "@@status=429@@ @@retry_after=1@@").headers["retry-after"] == "1"

    def test_context_length(self, client: httpx.Client) -> None:
        answer = post(client, "@@error=context_length@@")
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")

    def test_fail_times_counts_per_id(self, client: httpx.Client) -> None:
        asked = "@@fail_times=2@@ @@status=500@@ @@id={}@@"
        assert [post(client, asked.format("a")).status_code for _ in range(4)] == [500, 500, 200, 200]
        assert post(client, asked.format("b")).status_code == 500

    def test_fail_times_with_another_failure_and_with_none(self, client: httpx.Client) -> None:
        garbage = [content(post(client, "@@fail_times=1@@ @@garbage=1@@ @@id=g@@")) for _ in range(2)]
        assert "weather" in garbage[0]
        assert "weather" not in garbage[1]
        assert [post(client, "@@fail_times=1@@ @@id=n@@").status_code for _ in range(2)] == [503, 200]

    def test_fail_after(self, client: httpx.Client) -> None:
        statuses = [post(client, "@@fail_after=2@@ @@id=late@@ @@status=500@@").status_code for _ in range(4)]
        assert statuses == [200, 200, 500, 500]

    def test_clear_forgets_the_attempts(self, server: OpenAIServer, client: httpx.Client) -> None:
        assert post(client, "@@fail_times=1@@ @@id=c@@").status_code == 503
        server.clear()
        assert post(client, "@@fail_times=1@@ @@id=c@@").status_code == 503

    def test_garbage(self, client: httpx.Client) -> None:
        whole = content(post(client, "@@garbage=1@@"))
        assert not set(whole) & set("[]{}<>")
        assert "".join(deltas(post(client, "@@garbage=1@@", stream=True))) == whole

    @pytest.mark.parametrize("stream", [False, True])
    def test_invalid_json(self, client: httpx.Client, stream: bool) -> None:
        answer = post(client, "@@invalid_json=1@@", stream=stream)
        assert answer.status_code == 200
        with pytest.raises(orjson.JSONDecodeError):
            orjson.loads(answer.text.strip().removeprefix("data: "))

    @pytest.mark.parametrize("stream", [False, True])
    def test_reset(self, server: OpenAIServer, client: httpx.Client, stream: bool) -> None:
        with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
            post(client, "@@reset=1@@", stream=stream)
        wait_until(lambda: server.in_flight == 0)
        assert server.aborted == 0

    def test_cut(self, server: OpenAIServer, client: httpx.Client) -> None:
        received: list[str] = []
        asked = body("@@cut=5@@ @@words=20@@", stream=True)
        with (
            client.stream("POST", "/chat/completions", json=asked) as response,
            pytest.raises(httpx.RemoteProtocolError),
        ):
            received.extend(response.iter_lines())
        assert sum("text_" in line for line in received) == 5
        wait_until(lambda: server.in_flight == 0)
        assert server.aborted == 0

    def test_undone(self, client: httpx.Client) -> None:
        received: list[str] = []
        asked = body("@@undone=1@@", stream=True, stream_options={"include_usage": True})
        with (
            client.stream("POST", "/chat/completions", json=asked) as response,
            pytest.raises(httpx.RemoteProtocolError),
        ):
            received.extend(line for line in response.iter_lines() if line)
        assert '"completion_tokens":' in received[-1]

    @pytest.mark.parametrize(("status", "code"), [(429, "rate_limit_exceeded"), (500, None)])
    def test_an_error_after_some_chunks(self, client: httpx.Client, status: int, code: str | None) -> None:
        answer = post(client, f"@@error_after=3@@ @@error_status={status}@@ @@words=9@@", stream=True)
        lines = [orjson.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line]
        assert sum("choices" in line for line in lines) == 4  # the role and three words
        assert lines[-1]["error"]["code"] == code
        assert SECRET in lines[-1]["error"]["message"]

    def test_garbage_after_some_chunks(self, client: httpx.Client) -> None:
        answer = post(client, "@@garbage_after=3@@ @@words=9@@", stream=True)
        *good, last = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
        assert len([orjson.loads(line) for line in good]) == 4
        with pytest.raises(orjson.JSONDecodeError):
            orjson.loads(last)


class TestClientsThatLeave:
    def test_hang(self, server: OpenAIServer, client: httpx.Client) -> None:
        with pytest.raises(httpx.ReadTimeout):
            client.post("/chat/completions", json=body("@@hang=1@@"), timeout=0.2)
        wait_until(lambda: server.aborted == 1)
        assert server.in_flight == 0

    def test_stall(self, server: OpenAIServer, client: httpx.Client) -> None:
        received: list[str] = []
        asked = body("@@stall=5@@ @@words=20@@", stream=True)
        with (
            client.stream("POST", "/chat/completions", json=asked, timeout=0.2) as response,
            pytest.raises(httpx.ReadTimeout),
        ):
            received.extend(response.iter_lines())
        assert sum("text_" in line for line in received) == 5
        wait_until(lambda: server.aborted == 1)
        assert server.in_flight == 0

    def test_during_a_delay(self, server: OpenAIServer, client: httpx.Client) -> None:
        with pytest.raises(httpx.ReadTimeout):
            client.post("/chat/completions", json=body("@@delay=60@@"), timeout=0.2)
        wait_until(lambda: server.aborted == 1)

    def test_in_the_middle_of_a_stream(self, server: OpenAIServer, client: httpx.Client) -> None:
        asked = body("@@token_delay=0.02@@ @@words=1000@@", stream=True)
        with client.stream("POST", "/chat/completions", json=asked) as response:
            lines = response.iter_lines()  # dropping the iterator would close the response
            next(lines)
            assert server.in_flight == 1
        wait_until(lambda: server.aborted == 1)
        assert server.in_flight == 0

    def test_in_the_middle_of_a_stream_without_delay(self, server: OpenAIServer, client: httpx.Client) -> None:
        asked = body("@@words=200000@@", stream=True)
        with client.stream("POST", "/chat/completions", json=asked) as response:
            lines = response.iter_lines()  # dropping the iterator would close the response
            next(lines)
        wait_until(lambda: server.aborted == 1)

    def test_complete_answers_do_not_count(self, server: OpenAIServer, client: httpx.Client) -> None:
        post(client, "x")
        post(client, "@@delay=0.01@@")
        post(client, "x", stream=True)
        client.close()
        time.sleep(0.1)
        assert (server.aborted, server.in_flight) == (0, 0)


class TestBookkeeping:
    def test_requests_are_recorded(self, server: OpenAIServer, client: httpx.Client) -> None:
        post(client, "first", temperature=1.0)
        client.post("/chat/completions", json=body("second", stream=True), headers={"Authorization": "Bearer k2"})
        first, second = server.requests
        assert (first.model, first.api_key, first.temperature, first.stream) == ("m", "k1", 1.0, False)
        assert (second.api_key, second.temperature, second.stream) == ("k2", None, True)
        assert first.messages == [{"role": "user", "content": "first"}]
        server.clear()
        assert server.requests == []

    def test_stats(self, client: httpx.Client) -> None:
        post(client, "x")
        post(client, "x", stream=True)
        stats = client.get(str(client.base_url.copy_with(path="/stats"))).json()
        assert stats == {"requests": 2, "streams": 1, "in_flight": 0, "peak_in_flight": 1, "aborted": 0}

    def test_concurrent_requests_are_in_flight_together(self, server: OpenAIServer) -> None:
        async def ask() -> None:
            async with httpx.AsyncClient(base_url=server.url) as client:
                asked = [client.post("/chat/completions", json=body("@@delay=0.3@@")) for _ in range(20)]
                await asyncio.gather(*asked)

        start = time.monotonic()
        asyncio.run(ask())
        assert time.monotonic() - start < 2.0
        assert server.peak_in_flight == 20
        wait_until(lambda: server.in_flight == 0)

    def test_models(self, client: httpx.Client) -> None:
        assert "gpt-4o-mini" in [model["id"] for model in client.get("/models").json()["data"]]

    @pytest.mark.parametrize("sent", [b"not JSON", b"[]", b"{}", b'{"model": "m", "messages": []}'])
    def test_what_is_no_request_is_refused(self, client: httpx.Client, sent: bytes) -> None:
        assert client.post("/chat/completions", content=sent).status_code == 400

    def test_an_unknown_endpoint_is_not_found(self, client: httpx.Client) -> None:
        assert client.post("/responses", json={}).status_code == 404


class TestLifeCycle:
    def test_closing_ends_what_hangs_and_frees_the_port(self) -> None:
        server = OpenAIServer()
        with httpx.Client(base_url=server.url) as client, concurrent.futures.ThreadPoolExecutor(1) as pool:
            hanging = pool.submit(post, client, "@@hang=1@@")
            wait_until(lambda: server.in_flight == 1)
            start = time.monotonic()
            server.close()
            assert time.monotonic() - start < 1.0
            with pytest.raises(httpx.TransportError):
                hanging.result()
        server.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), timeout=1)

    def test_two_servers_do_not_share_anything(self) -> None:
        with OpenAIServer() as one, OpenAIServer() as other:
            httpx.post(f"{one.url}/chat/completions", json=body("x"))
            assert one.port != other.port
            assert (len(one.requests), len(other.requests)) == (1, 0)

    def test_as_a_process(self) -> None:
        command = [sys.executable, "-m", "tests.load.openai_server", "--latency", "0.1", "--token-delay", "0.001"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                found = re.fullmatch(r"listening on (http://127\.0\.0\.1:\d+/v1)\n", line)
                assert found is not None
                start = time.monotonic()
                assert httpx.post(f"{found[1]}/chat/completions", json=body("x")).status_code == 200
                assert time.monotonic() - start >= 0.1
            finally:
                process.terminate()
        assert process.returncode in (0, -15)
