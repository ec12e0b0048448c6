"""`/api/streams/<trace id>`: streams that break and are read on, over real servers."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from httpx_sse import connect_sse

from dspyserve import runs
from dspyserve.events import Caller
from dspyserve.models import APIKey
from tests.api.conftest import API, content, make_key, make_user
from tests.api.test_run import wait_for_trace
from tests.api.test_stream import check
from tests.event_streams import sent_events
from tests.load.openai_server import OpenAIServer
from tests.server import Server

SLOW = {"question": "@@words=60@@ @@token_delay=0.02@@"}


@pytest.fixture(params=["daphne", "uvicorn"])
def server(request: pytest.FixtureRequest, language_model: Any, start_server: Callable[..., Server]) -> Server:
    return start_server(request.param)


def start(server: Server, count: int, headers: dict[str, str] | None = None, **body: Any) -> list[dict[str, Any]]:
    """Begin a stream of `echo` and leave after `count` events."""
    address = f"{server.url}/api/programs/echo/stream"
    with (
        httpx.Client(timeout=30, headers=headers) as client,
        connect_sse(client, "POST", address, json={"inputs": SLOW, **body}) as source,
    ):
        frames = sent_events(source)
        return [next(frames).json() for _ in range(count)]


def resume(server: Server, trace_id: str, after: int | None, **headers: str) -> list[dict[str, Any]]:
    """The rest of a stream."""
    known = {} if after is None else {"Last-Event-ID": str(after)}
    with (
        httpx.Client(timeout=30, headers={**known, **headers}) as client,
        connect_sse(client, "GET", f"{server.url}/api/streams/{trace_id}") as source,
    ):
        assert source.response.headers.get("X-Trace-Id") == trace_id, source.response.read()
        return [frame.json() for frame in sent_events(source)]


class TestResume:
    def test_a_broken_stream_goes_on_where_it_was(self, server: Server) -> None:
        own = {"Authorization": f"Bearer {make_key('run')}"}
        head = start(server, 9, own, on_disconnect="continue")
        trace_id = head[0]["trace_id"]
        assert "resume_token" not in head[0], "a key needs none"
        tail = resume(server, trace_id, 9, **own)
        assert list(check(head + tail).values()) == [tail[-1]["outputs"]["answer"]]
        assert resume(server, trace_id, None, **own) == head + tail
        address = f"{server.url}/api/streams/{trace_id}"
        over = httpx.get(address, headers={**own, "Last-Event-ID": str(tail[-1]["seq"])})
        assert (over.status_code, over.content) == (204, b""), "what EventSource takes for the end"
        for known in ({}, {"Authorization": f"Bearer {make_key('run')}"}):
            refused = httpx.get(address, headers=known)
            assert (refused.status_code, refused.json()["code"]) == (404, "stream_not_found")
        assert httpx.get(address, headers={**own, "Last-Event-ID": "x"}).json()["code"] == "invalid_header"

    def test_an_anonymous_caller_comes_back_with_the_token(self, server: Server) -> None:
        head = start(server, 4, on_disconnect="continue")
        token = {"X-Resume-Token": head[0]["resume_token"]}
        assert httpx.get(f"{server.url}/api/streams/{head[0]['trace_id']}").status_code == 404
        check(head + resume(server, head[0]["trace_id"], 4, **token))

    def test_a_cancel_reaches_an_execution_that_nobody_reads(self, server: Server) -> None:
        head = start(server, 4, on_disconnect="continue")
        token = {"X-Resume-Token": head[0]["resume_token"]}
        address = f"{server.url}/api/streams/{head[0]['trace_id']}"
        assert httpx.delete(address).status_code == 404
        assert httpx.delete(address, headers=token).status_code == 202
        events = head + resume(server, head[0]["trace_id"], 4, **token)
        assert (events[-1]["type"], events[-1]["reason"]) == ("run_cancelled", "client")
        assert wait_for_trace("echo").status == "cancelled"

    def test_without_a_word_the_execution_is_stopped(self, server: Server) -> None:
        head = start(server, 4)
        assert wait_for_trace("echo").status == "cancelled"
        tail = resume(server, head[0]["trace_id"], 4, **{"X-Resume-Token": head[0]["resume_token"]})
        assert (tail[-1]["type"], tail[-1]["reason"]) == ("run_cancelled", "client")


def test_the_first_event_comes_before_the_model_answers(server: Server, provider: OpenAIServer) -> None:
    body = {"inputs": {"question": "@@hang=1@@"}}
    with (
        httpx.Client(timeout=10) as client,
        connect_sse(client, "POST", f"{server.url}/api/programs/echo/stream", json=body) as source,
    ):
        frames = sent_events(source)
        assert next(frames).event == "run_start"
        while next(frames).event != "lm_start":
            pass
        assert source.response.headers["Content-Encoding"] == "identity"
        assert "no-transform" in source.response.headers["Cache-Control"]


def test_only_streams_continue_without_their_readers(anonymous: API) -> None:
    for path in ("programs/echo", "programs/echo/batch"):
        answer = anonymous.post(path, {"inputs": {"question": "q"}, "on_disconnect": "continue"})
        assert answer.json()["errors"][0]["pointer"] == "/on_disconnect"
    answer = anonymous.post("programs/echo/stream", {"inputs": {"question": "q"}, "on_disconnect": "stay"})
    assert answer.json()["errors"][0]["pointer"] == "/on_disconnect"


def test_no_middleware_compresses_a_stream(anonymous: API, settings: Any) -> None:
    settings.MIDDLEWARE = ["django.middleware.gzip.GZipMiddleware", *settings.MIDDLEWARE]
    body = {"inputs": {"question": "@@words=200@@"}}
    accepts = {"Accept-Encoding": "gzip"}
    plain = anonymous.post("programs/echo", body, **accepts)
    assert b"outputs" in gzip.decompress(plain.content), "the middleware is at work"
    streamed = anonymous.post("programs/echo/stream", body, **accepts)
    assert streamed["Content-Encoding"] == "identity"
    assert content(streamed).startswith(b"id: 1\nevent: run_start\n")


def test_only_the_owner_finds_a_stream(language_model: Any) -> None:
    ann = make_user("ann")
    key = make_key("run", user=ann)
    owners = {f"user:{ann.pk}": API(user=ann), f"key:{APIKey.objects.get().pk}": API(key), "anonymous": API()}
    others = {
        "another user": API(user=make_user("bob")),
        "a superuser": API(user=User.objects.create_superuser("root", password="x")),
        "another key of the same user": API(make_key("run", "view_traces", "view_payloads", user=ann)),
    }
    for name, owner in owners.items():
        address = f"streams/{stream_of(name)}"
        found = {who: api.get(address).status_code for who, api in {**owners, **others}.items()}
        assert found == dict.fromkeys(found, 404) | ({} if owner is owners["anonymous"] else {name: 200})


@async_to_sync
async def stream_of(owner: str) -> str:
    """The trace id of a stream that is over."""
    stream = await runs.astream("echo", {"question": "q"}, caller=Caller(owner=owner))
    assert [event async for event in stream][-1].type == "run_end"
    return stream.trace_id
