"""Django's handler for the API without its threads: `"http": lean_api(get_asgi_application())`.

The stock one starts two threads for a request, keeps one for as long as the request goes on, and hops to it for signals
and for every middleware: more work than most calls of the API are. Here a request has a thread only if something
asks for one. Everything else is Django's: the project's middleware, cancellation, streaming, the logging of errors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.core import signals
from django.core.cache import close_caches
from django.core.exceptions import MiddlewareNotUsed, RequestAborted
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.core.handlers.base import reset_urlconf
from django.core.handlers.exception import convert_exception_to_response
from django.db import close_old_connections, reset_queries
from django.http import HttpRequest, HttpResponseBase
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.common import CommonMiddleware
from django.middleware.csrf import CsrfViewMiddleware
from django.middleware.security import SecurityMiddleware
from django.urls import set_script_prefix
from django.utils.module_loading import import_string

from dspyserve.api.urls import api_path
from dspyserve.execution.own_thread import own_thread

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Any, Any, Any], Awaitable[None]]

_WITHOUT_IO: Final = frozenset(
    {
        SecurityMiddleware,
        SessionMiddleware,
        CommonMiddleware,
        CsrfViewMiddleware,
        AuthenticationMiddleware,
        MessageMiddleware,
        XFrameOptionsMiddleware,
    }
)
"""Middleware of Django's that waits for nothing: these very classes, not what projects derive from them."""

_DONE_BY_THREADS: Final = (reset_queries, close_old_connections, close_caches, reset_urlconf)
"""Receivers of the request signals that only concern threads: a thread that was used is cleaned up anyway."""


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

    async def _answer(self, request: HttpRequest, receive: Any, send: Any) -> None:
        answering = asyncio.ensure_future(self._respond(request, send))
        leaving = asyncio.ensure_future(self.listen_for_disconnect(receive))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not answering.done():
                answering.cancel()
            leaving.cancel()
            await asyncio.wait({answering, leaving})
        if not leaving.cancelled() and not isinstance(failure := leaving.exception(), RequestAborted | None):
            raise failure
        if answering.cancelled():
            await _tell(signals.request_finished)
        else:
            await self._close(answering.result())

    async def _respond(self, request: HttpRequest, send: Any) -> HttpResponseBase:
        response = await self.run_get_response(request)
        try:
            await self.send_response(response, send)
        except asyncio.CancelledError:
            # The client is gone; the response still has to be closed.
            pass
        return response

    async def _close(self, response: Any) -> None:
        if _strangers(signals.request_finished):
            await sync_to_async(response.close)()
            return
        # As `HttpResponseBase.close`, without the signal that nobody waits for.
        for close in response._resource_closers:
            close()
        response._resource_closers.clear()
        response.closed = True

    def load_middleware(self, is_async: bool = True) -> None:
        """As the base does, with middleware that waits for nothing called where it is."""
        self._view_middleware: list[Any] = []
        self._template_response_middleware: list[Any] = []
        self._exception_middleware: list[Any] = []
        handler: Any = convert_exception_to_response(self._get_response_async)  # type: ignore[attr-defined]
        handler_is_async = True
        for path in reversed(settings.MIDDLEWARE):
            factory = import_string(path)
            can_async = getattr(factory, "async_capable", False)
            adapted = self.adapt_method_mode(can_async, handler, handler_is_async)
            try:
                middleware = factory(adapted)
            except MiddlewareNotUsed:
                continue
            waits = not _waits_for_nothing(middleware)
            if not waits:
                middleware.__acall__ = _called_here(middleware)
            if hook := getattr(middleware, "process_view", None):
                self._view_middleware.insert(0, self.adapt_method_mode(True, hook) if waits else _awaitable(hook))
            if hook := getattr(middleware, "process_template_response", None):
                self._template_response_middleware.append(self.adapt_method_mode(True, hook))
            if hook := getattr(middleware, "process_exception", None):
                self._exception_middleware.append(self.adapt_method_mode(False, hook))
            handler, handler_is_async = convert_exception_to_response(middleware), can_async
        self._middleware_chain = self.adapt_method_mode(True, handler, handler_is_async)


def _waits_for_nothing(middleware: Any) -> bool:
    if type(middleware) is CsrfViewMiddleware and settings.CSRF_USE_SESSIONS:
        return False
    return type(middleware) in _WITHOUT_IO


def _called_here(middleware: Any) -> Callable[[HttpRequest], Awaitable[Any]]:
    """`MiddlewareMixin.__acall__` without its hops."""
    process_request = getattr(middleware, "process_request", None)
    process_response = getattr(middleware, "process_response", None)
    is_session = isinstance(middleware, SessionMiddleware)

    async def call(request: HttpRequest) -> Any:
        response = process_request(request) if process_request else None
        response = response or await middleware.get_response(request)
        if process_response is None:
            return response
        if is_session and (settings.SESSION_SAVE_EVERY_REQUEST or request.session.modified):
            return await sync_to_async(process_response)(request, response)
        return process_response(request, response)

    return call


def _awaitable(hook: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        return hook(*args, **kwargs)

    return call


async def _tell(signal: Any, **named: Any) -> None:
    if _strangers(signal):
        await signal.asend(sender=ASGIHandler, **named)


def _strangers(signal: Any) -> bool:
    """Whether anybody but Django listens, on which nothing is known."""
    sync_receivers, async_receivers = signal._live_receivers(ASGIHandler)
    return bool(async_receivers) or any(receiver not in _DONE_BY_THREADS for receiver in sync_receivers)
