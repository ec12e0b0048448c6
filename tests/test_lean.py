"""`lean_api`: what Django's own handler does, without its threads."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from asgiref.sync import markcoroutinefunction, sync_to_async
from corsheaders.middleware import CorsMiddleware
from django.contrib import messages
from django.contrib.messages.storage.cookie import CookieStorage
from django.core.exceptions import PermissionDenied
from django.core.handlers.asgi import ASGIHandler
from django.core.signals import request_finished, request_started
from django.db import connection
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.request import HttpHeaders
from django.middleware.common import CommonMiddleware
from django.urls import include, path
from django.utils.decorators import sync_and_async_middleware
from django.utils.deprecation import MiddlewareMixin

from dspyserve.execution.own_thread import _idle, _OwnThread
from dspyserve.lean import LeanHandler, lean_api
from dspyserve.lean.addresses import _found
from dspyserve.lean.middleware import hooks_of
from dspyserve.lean.request import _Headers
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


class TestMiddlewareInOneGo:
    """Neighbours that wait for nothing: one coroutine for all of them, and the same order and answers as ever."""

    def test_the_whole_stack_of_the_example_is_one(self, settings: Any) -> None:
        settings.MIDDLEWARE = [path for path in settings.MIDDLEWARE if not path.startswith("tests.")]
        asked: list[Any] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("dspyserve.lean.handler.in_one_go", lambda steps, inner: asked.append(len(steps)) or inner)
            LeanHandler()
        assert asked[-1] == len(settings.MIDDLEWARE) == 8

    @pytest.mark.parametrize("culprit", ["before", "after", "refuses"])
    async def test_what_a_middleware_raises_or_answers_passes_those_around_it(
        self, language_model: Any, settings: Any, monkeypatch: pytest.MonkeyPatch, culprit: str
    ) -> None:
        settings.DEBUG_PROPAGATE_EXCEPTIONS = False

        def fail(*_: Any) -> Any:
            if culprit == "refuses":
                return HttpResponse(status=418)
            raise PermissionDenied

        hook = "process_response" if culprit == "after" else "process_request"
        monkeypatch.setattr(CommonMiddleware, hook, fail)
        lean, stock = [await REQUESTS["list"]().run(handler()) for handler in (LeanHandler, ASGIHandler)]
        assert (lean.status, lean.headers.keys(), lean.content) == (stock.status, stock.headers.keys(), stock.content)
        assert lean.status == (418 if culprit == "refuses" else 403)
        assert lean.headers["x-content-type-options"] == "nosniff", "of the one around it"

    async def test_messages_are_kept_where_a_view_leaves_some_and_cost_nothing_else(
        self, language_model: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made: list[Any] = []
        monkeypatch.setattr(
            "dspyserve.lean.middleware.default_storage",
            lambda request: made.append(request) or CookieStorage(request),
        )

        async def leave(request: HttpRequest) -> HttpResponse:
            messages.info(request, "Come in.")
            return HttpResponse(str(len(messages.get_messages(request))))

        assert (await REQUESTS["list"]().run(LeanHandler())).status == 200
        assert made == []
        with addresses(leave):
            answer = await Exchange("GET", "/api/here").run(LeanHandler())
        assert (len(made), answer.content) == (1, b"1")
        assert answer.headers["set-cookie"].startswith("messages=")

    def test_what_is_known_of_cors_headers_holds(self) -> None:
        assert hooks_of(CorsMiddleware(lambda request: HttpResponse())) is not None
        assert vars(CorsMiddleware).keys() >= {"check_preflight", "add_response_headers"}
        calls = inspect.getsource(CorsMiddleware.__acall__).split("self.")
        assert [call.partition("(")[0] for call in calls[1:]] == [
            "check_preflight",
            "get_response",
            "add_response_headers",
        ]


def test_headers_are_those_of_django() -> None:
    meta = {"HTTP_X_REQUEST_ID": "a", "CONTENT_TYPE": "text/plain", "REMOTE_ADDR": "::1", "HTTP_ORIGIN": "b"}
    lean, stock = _Headers(meta), HttpHeaders(meta)
    assert dict(lean) == dict(stock)
    assert (len(lean), repr(lean)) == (3, repr(stock))
    for name in ("x-request-id", "X_Request_ID", "Content-Type", "origin"):
        assert lean[name] == lean.get(name) == stock[name]
        assert name in lean
    for name in ("remote-addr", "http-origin", "cookie"):
        assert name not in lean
        assert (lean.get(name), lean.get(name, "-")) == (None, "-")
        with pytest.raises(KeyError):
            lean[name]


async def test_addresses_are_looked_up_once(language_model: Any) -> None:
    seen: list[Any] = []

    async def take(request: HttpRequest, name: str) -> HttpResponse:
        seen.append((request.resolver_match, name))
        return HttpResponse()

    class Meddling:
        """Middleware that changes what the view is given."""

        async_capable = True
        sync_capable = False

        def __init__(self, get_response: Any) -> None:
            self.get_response = get_response
            markcoroutinefunction(self)

        def __call__(self, request: Any) -> Any:
            return self.get_response(request)

        async def process_view(self, request: Any, view: Any, args: Any, kwargs: Any) -> None:
            kwargs["name"] += "!"

    module = type("urls", (), {"urlpatterns": [path("api/here/<name>", take), path("", include("project.urls"))]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("django.conf.settings.ROOT_URLCONF", module)
        patch.setattr(f"{__name__}.Meddling", Meddling, raising=False)
        patch.setattr("django.conf.settings.MIDDLEWARE", [f"{__name__}.Meddling"])
        handler, before = LeanHandler(), _found.cache_info()
        for _ in range(3):
            assert (await Exchange("GET", "/api/here/x").run(handler)).status == 200
    assert [name for _, name in seen] == ["x!"] * 3
    assert seen[0][0].route == "api/here/<name>"
    assert _found.cache_info().misses - before.misses == 1


@pytest.mark.parametrize("pieces", [1, 3])
async def test_a_body_may_come_in_pieces(language_model: Any, pieces: int) -> None:
    exchange = Exchange("POST", "/api/programs/echo", BODY)
    whole = exchange._content.pop()
    size = -(-len(whole) // pieces)
    left = [whole[start : start + size] for start in range(0, len(whole), size)]

    async def receive() -> dict[str, Any]:
        if left:
            return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}
        return await exchange._receive()

    await LeanHandler()(dict(exchange._scope), receive, exchange._send)
    assert exchange.status == 200


async def test_a_cancelled_request_is_cancelled(language_model: Any) -> None:
    """As servers do that give up on it: only a client that leaves ends it quietly."""
    told: list[str] = []

    async def wait(request: HttpRequest) -> HttpResponse:
        try:
            await asyncio.sleep(30)
        finally:
            told.append("over")
        return HttpResponse()

    with addresses(wait):
        running = asyncio.create_task(Exchange("GET", "/api/here").run(LeanHandler()))
        await asyncio.sleep(0.1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert told == ["over"]
