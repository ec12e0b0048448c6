"""The project's middleware, with what is known to wait for nothing called in one go.

Django calls each middleware in a coroutine of its own, inside another one that turns its exceptions into answers, and
hops to a thread for each hook. Neighbours that wait for nothing need one coroutine together. What their hooks see, and
in which order, is the same.

What is left at a request for later knows it by a weak reference. Knowing each other, they would stay in memory,
with all that belongs to the request, until the garbage collector looks for them, which takes it long.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from weakref import proxy

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.messages.storage import default_storage
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.handlers.exception import response_for_exception
from django.http import HttpRequest, HttpResponseBase
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.common import CommonMiddleware
from django.middleware.csrf import CsrfViewMiddleware
from django.middleware.security import SecurityMiddleware
from django.utils.functional import SimpleLazyObject

Handler = Callable[[HttpRequest], Awaitable[HttpResponseBase]]
Before = Callable[[HttpRequest], HttpResponseBase | None]
After = Callable[[HttpRequest, HttpResponseBase], HttpResponseBase]

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

_OF_OTHERS: Final = {"corsheaders.middleware.CorsMiddleware": ("check_preflight", "add_response_headers")}
"""Middleware of others that waits for nothing, by its path: its hooks before and after."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What one middleware does before and after the view; `waits` tells whether `after` asks the database."""

    before: Before | None
    after: After | None
    waits: Callable[[HttpRequest], bool] | None = None


def hooks_of(middleware: Any) -> Hooks | None:
    """The hooks of `middleware` where they wait for nothing; None where nothing is known of it, or it may wait."""
    kind = type(middleware)
    if kind not in _WITHOUT_IO:
        return _hooks_of_others(middleware)
    if kind is CsrfViewMiddleware and settings.CSRF_USE_SESSIONS:
        return None
    if kind is MessageMiddleware:
        return _message_hooks(middleware)
    if kind is AuthenticationMiddleware:
        return Hooks(lambda request: middleware.process_request(proxy(request)), after=None)
    before, after = getattr(middleware, "process_request", None), getattr(middleware, "process_response", None)
    return Hooks(before, after, _saves_session if kind is SessionMiddleware else None)


def in_one_go(steps: Sequence[Hooks], get_response: Handler) -> Handler:
    """A handler that does what all of `steps` do, the outermost first, around `get_response`, which raises nothing."""
    befores = [(number, step.before) for number, step in enumerate(steps) if step.before is not None]
    afters = [(number, step.after, step.waits) for number, step in enumerate(steps) if step.after is not None]
    afters.reverse()

    async def handle(request: HttpRequest) -> HttpResponseBase:
        response, reached = None, len(steps)
        try:
            for number, before in befores:
                if response := before(request):
                    reached = number + 1
                    break
        except Exception as error:  # noqa: BLE001 - as Django's `convert_exception_to_response`
            response, reached = await _answer_to(request, error), number
        if not response:
            response = await get_response(request)
        for number, after, waits in afters:
            if number < reached:
                try:
                    if waits is not None and waits(request):
                        response = await sync_to_async(after)(request, response)
                    else:
                        response = after(request, response)
                except Exception as error:  # noqa: BLE001 - likewise
                    response = await _answer_to(request, error)
        return response

    return handle


async def _answer_to(request: HttpRequest, error: Exception) -> HttpResponseBase:
    found: HttpResponseBase = await sync_to_async(response_for_exception, thread_sensitive=False)(request, error)
    return found


def _hooks_of_others(middleware: Any) -> Hooks | None:
    kind = type(middleware)
    names = _OF_OTHERS.get(f"{kind.__module__}.{kind.__qualname__}", ())
    if not names or not all(hasattr(middleware, name) for name in names):
        return None
    return Hooks(*(getattr(middleware, name) for name in names))


def _saves_session(request: Any) -> bool:
    return bool(settings.SESSION_SAVE_EVERY_REQUEST or request.session.modified)


def _message_hooks(middleware: MessageMiddleware) -> Hooks:
    """As the middleware, but the storage is made when something looks at it, which calls of the API never do."""

    def before(request: Any) -> None:
        asked: Any = proxy(request)

        def make() -> Any:
            asked._dspyserve_has_messages = True
            return default_storage(asked)

        request._messages = request._dspyserve_messages = SimpleLazyObject(make)

    def after(request: Any, response: Any) -> Any:
        is_untouched = getattr(request, "_messages", None) is request._dspyserve_messages
        if is_untouched and not hasattr(request, "_dspyserve_has_messages"):
            return response
        return middleware.process_response(request, response)

    return Hooks(before, after)
