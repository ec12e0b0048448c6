"""The wrapper around a project's ASGI application: it limits bodies, drains at shutdown and flushes traces.

    application = serve(ProtocolTypeRouter({"http": get_asgi_application(), "websocket": ...}))

At SIGTERM no new execution is started; those under way may finish within `SHUTDOWN_GRACE`, and are then stopped with
the reason `shutdown`, which their streams say. Works on uvicorn and others with lifespan, and on Daphne, which has
none.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from dspyserve.api.bodies import too_large
from dspyserve.api.responses import problem_response
from dspyserve.api.urls import api_path
from dspyserve.conf import settings
from dspyserve.runs import live
from dspyserve.runs.replication import publisher
from dspyserve.runs.stream import read_streams
from dspyserve.tracing import spool
from dspyserve.tracing.writer import writer

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

UNWINDING = 2.0
"""Seconds between the moment when all executions are told to stop and the end, for them to end and say so."""

GOING_AWAY = 4503
"""The close code of sockets that are open at the end. Not 1001: Daphne refuses to send it."""
_POLL = 0.05
_STOCK_THRESHOLD = (700, 10, 10)
_THRESHOLD = (20_000, 10, 10)
"""More objects than gone ones after which the collector looks for cycles among the young ones, and how many such looks
one through the older ones follows.
"""


def serve(application: Application) -> Application:
    """`application`, with everything that serving programs needs around it."""
    drain = Drain()
    drain.watch_twisted()
    return _Server(application, drain)


class Drain:
    """The way from SIGTERM to the end of the process."""

    def __init__(self) -> None:
        self.has_begun = False
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self._held: dict[int, tuple[asyncio.AbstractEventLoop, Scope, Send]] = {}

    def begin(self) -> None:
        """Refuse new executions, let those under way finish, then stop them. Returns at once."""
        with self._lock:
            if self.has_begun:
                return
            self.has_begun = True
        live.refuse()
        threading.Thread(target=self._drain, name="dspyserve-drain", daemon=True).start()

    def finish(self) -> None:
        """Wait until all is over and all traces are stored, or on disk."""
        self.begin()
        self._is_over.wait(settings().shutdown_grace + UNWINDING)
        self._let_go()
        writer.close()
        publisher.close()

    def hold(self, scope: Scope, send: Send) -> None:
        """A request is to be answered, or a socket opens."""
        self._held[id(scope)] = (asyncio.get_running_loop(), scope, send)

    def release(self, scope: Scope) -> None:
        """It is over."""
        del self._held[id(scope)]

    def watch_signals(self) -> None:
        """Begin at SIGTERM and SIGINT, then do what the server does at them."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            previous = signal.getsignal(number)
            if callable(previous):
                signal.signal(number, self._chained(previous))

    def watch_twisted(self) -> None:
        """Begin when Daphne's reactor shuts down. Registered before Daphne's own trigger, so that it comes first."""
        if "daphne.server" not in sys.modules:
            return
        from twisted.internet import reactor, threads  # noqa: PLC0415 - importing it elsewhere would install a reactor

        def shut_down() -> Any:
            self.begin()
            return threads.deferToThread(self.finish)

        reactor.addSystemEventTrigger("before", "shutdown", shut_down)  # type: ignore[attr-defined,arg-type]

    def _let_go(self) -> None:
        """Let the last answers out, and tell open sockets that the server goes away."""
        # A run is over before its end has reached those who read it, the more so where ends are published first.
        self._wait_while(lambda: any(source.is_ending for source in list(read_streams)), UNWINDING / 2)
        for loop, scope, send in list(self._held.values()):
            if scope["type"] == "websocket":
                close = {"type": "websocket.close", "code": GOING_AWAY}
                asyncio.run_coroutine_threadsafe(_try_to_send(send, close), loop)
        self._wait_while(lambda: bool(self._held), UNWINDING)

    def _wait_while(self, condition: Callable[[], bool], timeout: float) -> None:
        end = time.monotonic() + timeout
        while condition() and time.monotonic() < end:
            time.sleep(_POLL)

    def _drain(self) -> None:
        if live.wait(settings().shutdown_grace):
            self._is_over.set()
            return
        logger.warning("Stopping %d executions for the shutdown", len(live))
        live.stop_all()
        live.wait(UNWINDING)
        self._is_over.set()

    def _chained(self, previous: Callable[..., Any]) -> Callable[..., Any]:
        def handle(number: int, frame: Any) -> Any:
            self.begin()
            return previous(number, frame)

        return handle


class _Server:
    """The ASGI application itself."""

    def __init__(self, application: Application, drain: Drain) -> None:
        self._application = application
        self._drain = drain
        self._restored = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        self._restore()
        work = self._http if scope["type"] == "http" else self._websocket
        self._drain.hold(scope, send)
        try:
            await self._outlast_shutdown(work(scope, receive, send))
        finally:
            self._drain.release(scope)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = _BodyLimit(receive) if scope["path"].startswith(api_path()) else None
        try:
            await self._application(scope, limit or receive, send)
        except _BodyTooLarge:
            await _send_too_large(send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._drain.has_begun:
            await receive()
            await send({"type": "websocket.close", "code": GOING_AWAY})
            return
        await self._application(scope, receive, send)

    async def _outlast_shutdown(self, work: Any) -> None:
        """Await `work`. Daphne cancels what is under way when it shuts down: it may finish within the drain."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if self._drain.has_begun:
                await asyncio.wait({task}, timeout=settings().shutdown_grace + 2 * UNWINDING)
            task.cancel()
            raise

    def _restore(self) -> None:
        if not self._restored:
            self._restored = True
            _settle_memory()
            if not spool.is_empty():
                writer.start()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._drain.watch_signals()
                self._restore()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await asyncio.to_thread(self._drain.finish)
                await send({"type": "lifespan.shutdown.complete"})
                return


def _settle_memory() -> None:
    """Leave out of further garbage collections what is loaded by now and stays.

    DSPy, pydantic and Django are some hundred thousand objects. To look through them takes the collector a tenth of a
    second or more, in which nothing else goes on, now and then under load. What is left is little, and is looked
    through less often, unless the project has set thresholds of its own: with Python's, the collector looks for cycles
    several times in each execution, most of whose objects go by themselves.
    """
    gc.collect()
    gc.freeze()
    if gc.get_threshold() == _STOCK_THRESHOLD:
        gc.set_threshold(*_THRESHOLD)


async def _try_to_send(send: Send, message: MutableMapping[str, Any]) -> None:
    # A socket that is closed already refuses, each server in its own way.
    with suppress(Exception):
        await send(message)


class _BodyTooLarge(Exception):
    pass


class _BodyLimit:
    """`receive`, until the body is larger than the setting `MAX_BODY`.

    Django would spool it to disk whole, whatever its size, before any view could refuse it.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._left = settings().max_body

    async def __call__(self) -> MutableMapping[str, Any]:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise _BodyTooLarge
        return message


async def _send_too_large(send: Send) -> None:
    response = problem_response(too_large())
    headers = [(name.lower().encode(), str(value).encode()) for name, value in response.items()]
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": response.content})
