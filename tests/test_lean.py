"""`lean_api`: what Django's own handler does, without its threads."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIHandler
from django.core.signals import request_finished, request_started
from django.db import connection
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import include, path
from django.utils.decorators import sync_and_async_middleware
from django.utils.deprecation import MiddlewareMixin

from dspyserve.execution.own_thread import _idle, _OwnThread
from dspyserve.lean import LeanHandler, lean_api
from dspyserve.models import Trace
from tests.api.conftest import make_key
from tests.api.test_run import wait_for_trace
from tests.server import Server
from tests.websocket.test_consumer import session

BODY = {"inputs": {"question": "q"}}


class Exchange:
    """One request, put to an application, and the answer."""

    def __init__(self, method: str, address: str, body: Any = None, **headers: str) -> None:
        self.sent: list[dict[str, Any]] = []
        self.has_left = asyncio.Event()
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        given = {
            "host": "localhost",
            "content-type": "application/json",
            "content-length": str(len(content)),
            **headers,
        }
        self._content: list[bytes] = [content]
        self._scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "path": address,
            "raw_path": address.encode(),
            "query_string": b"",
            "scheme": "http",
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in given.items()],
        }

    async def run(self, application: Any) -> Exchange:
        """Put it."""
        await asyncio.wait_for(application(dict(self._scope), self._receive, self._send), 30)
        return self

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode().lower(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def content(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])

    async def _receive(self) -> dict[str, Any]:
        if self._content:
            return {"type": "http.request", "body": self._content.pop()}
        await self.has_left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)


CORS = {"origin": "https://shop.example", "access_control_request_method": "POST"}

REQUESTS: dict[str, Callable[[], Exchange]] = {
    "run": lambda: Exchange("POST", "/api/programs/archivist", {"inputs": {"seconds": 0.0}}),
    "list": lambda: Exchange("GET", "/api/programs"),
    "docs": lambda: Exchange("GET", "/api/docs"),
    "health": lambda: Exchange("GET", "/api/health/ready"),
    "nothing there": lambda: Exchange("GET", "/api/nothing"),
    "another method": lambda: Exchange("PUT", "/api/programs"),
    "no JSON": lambda: Exchange("POST", "/api/programs/echo", b"{"),
    "a bad input": lambda: Exchange("POST", "/api/programs/echo", {"inputs": {"question": 3}}),
    "a bad key": lambda: Exchange("GET", "/api/programs", authorization="Bearer x"),
    "a bad host": lambda: Exchange("GET", "/api/programs", host="evil.example"),
    "a slash less": lambda: Exchange("GET", "/api"),
    "preflight": lambda: Exchange("OPTIONS", "/api/programs/echo", **CORS),
    "another origin": lambda: Exchange("GET", "/api/programs", origin="https://shop.example"),
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_it_answers_as_the_stock_handler(language_model: Any, settings: Any, name: str) -> None:
    settings.CORS_ALLOWED_ORIGINS = ["https://shop.example"]
    lean, stock = [await REQUESTS[name]().run(handler()) for handler in (LeanHandler, ASGIHandler)]
    assert lean.status == stock.status
    varying = {"x-request-id", "x-trace-id", "content-length"}
    assert {**lean.headers, **dict.fromkeys(varying)} == {**stock.headers, **dict.fromkeys(varying)}
    assert lean.headers.keys() == stock.headers.keys()
    assert _outline(lean) == _outline(stock)


def _outline(exchange: Exchange) -> Any:
    """What does not change from one answer to the next."""
    try:
        found = json.loads(exchange.content)
    except ValueError:
        return exchange.content
    if isinstance(found, dict):
        found = {key: value for key, value in found.items() if key not in ("trace_id", "outputs", "duration_ms")}
    return found


async def test_a_request_has_a_thread_only_if_it_asks(language_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    key = await sync_to_async(make_key)("run", "view_traces")
    known = {"authorization": f"Bearer {key}"}
    requests = {
        "run": lambda: Exchange("POST", "/api/programs/private", BODY, **known),
        "stream": lambda: Exchange("POST", "/api/programs/private/stream", BODY, **known),
        "anonymous": lambda: Exchange("POST", "/api/programs/echo", BODY),
        "list": lambda: Exchange("GET", "/api/programs"),
        "traces": lambda: Exchange("GET", "/api/traces", **known),
    }
    handler, hops = LeanHandler(), list[Any]()
    for request in requests.values():  # what is kept between requests is there after the first ones
        await request().run(handler)
    submit = _OwnThread.submit
    monkeypatch.setattr(_OwnThread, "submit", lambda *given: hops.append(given) or submit(*given))
    asked = {}
    for name, request in requests.items():
        hops.clear()
        assert (await request().run(handler)).status == 200
        asked[name] = bool(hops)
    assert asked == {**dict.fromkeys(requests, False), "traces": True}, "only that one asks the database"


async def test_a_session_is_recognised(language_model: Any) -> None:
    user_id, cookies = await sync_to_async(session)()
    token = "a" * 32
    cookies = {"cookie": f"{cookies['Cookie']}; csrftoken={token}"}
    lean = LeanHandler()
    answer = await Exchange("POST", "/api/programs/private", BODY, **cookies, x_csrftoken=token).run(lean)
    assert answer.status == 200
    assert (await Trace.objects.aget()).user_id == user_id
    assert (await Exchange("POST", "/api/programs/private", BODY, **cookies).run(lean)).status == 401


async def test_a_thread_that_was_used_is_left_clean(language_model: Any) -> None:
    seen: list[str] = []

    async def look(request: HttpRequest) -> HttpResponse:
        await Trace.objects.acount()
        seen.append(await sync_to_async(lambda: threading.current_thread().name)())
        assert await sync_to_async(lambda: connection.connection is not None)()
        return HttpResponse()

    handler = LeanHandler()
    with addresses(look):
        for _ in range(3):
            assert (await Exchange("GET", "/api/here").run(handler)).status == 200
            executor = _idle.take()
            assert await asyncio.wrap_future(executor.submit(lambda: connection.connection)) is None, "given back"
            _idle.give_back(executor)
    assert len(set(seen)) == 1, "one after the other, they share a thread"
    assert seen[0].startswith("dspyserve-request")


@contextmanager
def addresses(view: Any) -> Iterator[None]:
    """The example deployment with `view` at /api/here."""
    module = type("urls", (), {"urlpatterns": [path("api/here", view), path("", include("project.urls"))]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("django.conf.settings.ROOT_URLCONF", module)
        yield


async def test_a_client_that_leaves_cancels_the_view(language_model: Any) -> None:
    told = []

    async def wait(request: HttpRequest) -> HttpResponse:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            told.append("cancelled")
            raise
        return HttpResponse()

    exchange = Exchange("GET", "/api/here")
    with addresses(wait):
        running = asyncio.create_task(exchange.run(LeanHandler()))
        await asyncio.sleep(0.1)
        exchange.has_left.set()
        await running
    assert told == ["cancelled"]
    assert exchange.sent == []


async def test_a_client_that_leaves_closes_the_stream(language_model: Any) -> None:
    class Endless:
        is_closed = False

        def __aiter__(self) -> AsyncIterator[bytes]:
            return self

        async def __anext__(self) -> bytes:
            await asyncio.sleep(0.01)
            return b"x"

        def close(self) -> None:
            self.is_closed = True

    body = Endless()

    async def stream(request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(body)

    exchange = Exchange("GET", "/api/here")
    with addresses(stream):
        running = asyncio.create_task(exchange.run(LeanHandler()))
        while len(exchange.sent) < 5:
            await asyncio.sleep(0.01)
        exchange.has_left.set()
        await running
    assert body.is_closed


async def test_a_view_that_raises_is_answered(language_model: Any, settings: Any) -> None:
    async def fail(request: HttpRequest) -> HttpResponse:
        raise RuntimeError("no")

    settings.DEBUG_PROPAGATE_EXCEPTIONS = False
    with addresses(fail):
        assert (await Exchange("GET", "/api/here").run(LeanHandler())).status == 500


class Old(MiddlewareMixin):
    """A project's own, as most are written."""

    def process_request(self, request: Any) -> None:
        request.thread = threading.current_thread().name

    def process_response(self, request: Any, response: Any) -> Any:
        response["X-Old"] = request.thread
        return response


@sync_and_async_middleware
def modern(get_response: Any) -> Any:
    """Another one."""

    async def call(request: Any) -> Any:
        response = await get_response(request)
        response["X-Modern"] = "yes"
        return response

    return call


async def test_other_middleware_works_as_ever(language_model: Any, settings: Any) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.Old", f"{__name__}.modern"]
    answer = await Exchange("GET", "/api/programs").run(LeanHandler())
    assert answer.headers["x-modern"] == "yes"
    assert answer.headers["x-old"].startswith("dspyserve-request"), "it may wait, so it gets a thread"


async def test_whoever_listens_to_requests_is_told(language_model: Any) -> None:
    told: list[str] = []

    def started(sender: Any, **named: Any) -> None:
        told.append(f"started {sender.__name__} {named['scope']['path']}")

    def finished(sender: Any, **named: Any) -> None:
        told.append("finished")

    request_started.connect(started)
    request_finished.connect(finished)
    try:
        await Exchange("GET", "/api/programs").run(LeanHandler())
    finally:
        request_started.disconnect(started)
        request_finished.disconnect(finished)
    assert told == ["started ASGIHandler /api/programs", "finished"]


async def test_only_the_api_is_taken(language_model: Any) -> None:
    asked = []

    async def project(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])

    application = lean_api(project)
    await Exchange("GET", "/admin/").run(application)
    await Exchange("GET", "/").run(application)
    assert (await Exchange("GET", "/api/programs").run(application)).status == 200
    assert asked == ["/admin/", "/"]


@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
def test_a_run_may_ask_the_database_when_its_request_is_over(
    language_model: Any, start_server: Callable[..., Server], kind: str
) -> None:
    server = start_server(kind)
    address = f"{server.url}/api/programs/archivist/stream"
    body = {"inputs": {"seconds": 0.5}, "on_disconnect": "continue"}
    with httpx.stream("POST", address, json=body, timeout=30) as response:
        assert "event: run_start" in next(response.iter_text())
    trace = wait_for_trace("archivist")
    assert (trace.status, trace.error_type) == ("succeeded", "")
    httpx.post(f"{server.url}/api/programs/archivist", json={"inputs": {"seconds": 0.1}}).raise_for_status()
