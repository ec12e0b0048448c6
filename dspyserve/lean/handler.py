"""The handler itself."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core import signals
from django.core.cache import close_caches
from django.core.exceptions import MiddlewareNotUsed, RequestAborted
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.core.handlers.base import reset_urlconf
from django.core.handlers.exception import convert_exception_to_response
from django.db import close_old_connections, reset_queries
from django.http import HttpRequest
from django.urls import ResolverMatch, set_script_prefix
from django.utils.module_loading import import_string

from dspyserve.api.urls import api_path
from dspyserve.execution.own_thread import own_thread
from dspyserve.lean.addresses import match
from dspyserve.lean.departure import Departure
from dspyserve.lean.middleware import Hooks, hooks_of, in_one_go
from dspyserve.lean.request import LeanRequest

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Any, Any, Any], Awaitable[None]]

_DONE_BY_THREADS: Final = (reset_queries, close_old_connections, close_caches, reset_urlconf)
"""Receivers of the request signals that only concern threads: a thread that was used is cleaned up anyway."""

_KNOWN: Final = frozenset(map(id, _DONE_BY_THREADS))
"""What Django's signals know them by."""


def lean_api(application: Application) -> Application:
    """`application`, Django's, with a handler for the API that starts no threads."""
    handler: LeanHandler | None = None

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal handler
        if not scope["path"].startswith(api_path()):
            await application(scope, receive, send)
            return
        handler = handler or LeanHandler()
        await handler(scope, receive, send)

    return serve


class LeanHandler(ASGIHandler):
    """`ASGIHandler`, with a thread for those requests alone that ask for one."""

    request_class = LeanRequest

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        async with own_thread():
            await self.handle(scope, receive, send)

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request, as the stock handler does, but for the hops."""
        try:
            body = await self.read_body(receive)
        except RequestAborted:
            return
        set_script_prefix(get_script_prefix(scope))
        try:
            await _tell(signals.request_started, scope=scope)
            request, refused = self.create_request(scope, body)
            if request is None:
                assert refused is not None
                await self.send_response(refused, send)
                await self._close(refused)
                return
            await self._answer(request, receive, send)
        finally:
            body.close()

    async def read_body(self, receive: Any) -> Any:
        """As the base does, without a file for a body that comes in one piece, as nearly all do."""
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            body = message.get("body", b"")
            if len(body) <= settings.FILE_UPLOAD_MAX_MEMORY_SIZE:
                return io.BytesIO(body)
        return await super().read_body(_after(message, receive))

    async def _answer(self, request: HttpRequest, receive: Any, send: Any) -> None:
        response: Any = None
        try:
            async with Departure(partial(self.listen_for_disconnect, receive)):
                response = await self.run_get_response(request)
                await self.send_response(response, send)
        finally:
            if response is None:
                await _tell(signals.request_finished)
            else:
                await self._close(response)

    async def send_response(self, response: Any, send: Any) -> None:
        """As the base does; an answer in one piece, as nearly all are, takes two messages and nothing else."""
        if response.streaming or response.cookies or len(response.content) > self.chunk_size:
            await super().send_response(response, send)
            return
        headers = [(name.encode("ascii"), value.encode("latin1")) for name, value in response.items()]
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": response.content, "more_body": False})

    async def _close(self, response: Any) -> None:
        if _strangers(signals.request_finished):
            await sync_to_async(response.close)()
            return
        # As `HttpResponseBase.close`, without the signal that nobody waits for.
        for close in response._resource_closers:
            close()
        response._resource_closers.clear()
        response.closed = True

    def resolve_request(self, request: Any) -> ResolverMatch:
        """As the base does, with a memory."""
        if hasattr(request, "urlconf"):
            found: ResolverMatch = super().resolve_request(request)  # type: ignore[misc]
            return found
        request.resolver_match = found = match(request)
        return found

    def load_middleware(self, is_async: bool = True) -> None:
        """As the base does, with middleware that waits for nothing called where it is, neighbours in one go."""
        self._view_middleware: list[Any] = []
        self._template_response_middleware: list[Any] = []
        self._exception_middleware: list[Any] = []
        handler: Any = convert_exception_to_response(self._get_response_async)  # type: ignore[attr-defined]
        handler_is_async = True
        steps: list[Hooks] = []
        for path in reversed(settings.MIDDLEWARE):
            factory = import_string(path)
            can_async = getattr(factory, "async_capable", False)
            adapted = self.adapt_method_mode(
                can_async, in_one_go(steps, handler) if steps else handler, handler_is_async
            )
            try:
                middleware = factory(adapted)
            except MiddlewareNotUsed:
                continue
            hooks = hooks_of(middleware)
            if hook := getattr(middleware, "process_view", None):
                self._view_middleware.insert(0, _awaitable(hook) if hooks else self.adapt_method_mode(True, hook))
            if hook := getattr(middleware, "process_template_response", None):
                self._template_response_middleware.append(self.adapt_method_mode(True, hook))
            if hook := getattr(middleware, "process_exception", None):
                self._exception_middleware.append(self.adapt_method_mode(False, hook))
            if hooks is None:
                handler, handler_is_async, steps = convert_exception_to_response(middleware), can_async, []
                continue
            if not steps:
                handler, handler_is_async = adapted, True
            steps.insert(0, hooks)
        handler = in_one_go(steps, handler) if steps else handler
        self._middleware_chain = self.adapt_method_mode(True, handler, handler_is_async)


def _after(message: MutableMapping[str, Any], receive: Receive) -> Receive:
    """`receive`, once more from `message` on."""
    read = [message]

    async def receive_again() -> MutableMapping[str, Any]:
        return read.pop() if read else await receive()

    return receive_again


def _awaitable(hook: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        return hook(*args, **kwargs)

    return call


async def _tell(signal: Any, **named: Any) -> None:
    if _strangers(signal):
        await signal.asend(sender=ASGIHandler, **named)


def _strangers(signal: Any) -> bool:
    """Whether anybody but Django listens, on which nothing is known."""
    return any(key[0] not in _KNOWN for key, *_ in signal.receivers)
