"""One socket to one program."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from channels.consumer import AsyncConsumer
from channels.exceptions import StopConsumer

from dspyserve import runs
from dspyserve.access.identity import Identity
from dspyserve.access.resuming import owner_name
from dspyserve.access.throttling import spend
from dspyserve.conf import settings
from dspyserve.errors import DspyserveError, Forbidden, ProgramNotFound, StreamNotFound, Unauthenticated
from dspyserve.events import Caller
from dspyserve.models import Trace
from dspyserve.problems import as_request_error
from dspyserve.programs.options import REPLAY_NAMES, STREAM_NAMES, run_options
from dspyserve.programs.variant import OWN
from dspyserve.websocket import messages
from dspyserve.websocket.callers import authorise, authorise_replay
from dspyserve.websocket.messages import (
    SUBPROTOCOL,
    Cancel,
    CloseCode,
    Leave,
    Message,
    Ping,
    ProtocolError,
    Resume,
    Run,
)
from dspyserve.websocket.origin import is_allowed_origin

logger = logging.getLogger(__name__)


class ProgramConsumer(AsyncConsumer):  # type: ignore[misc]
    """Speaks `dspyserve.v1`: starts, tells of and cancels executions of the program that the address names.

    Every execution has a task of its own, so that a long one holds up neither messages nor the end of the socket.
    """

    channel_layer_alias = "dspyserve.none"  # nothing is sent to a socket from outside: no layer is needed

    def __init__(self) -> None:
        self._runs: dict[str, asyncio.Task[None]] = {}
        self._streams: dict[str, runs.RunStream] = {}
        self._cancelled: set[str] = set()
        self._idle: asyncio.TimerHandle | None = None
        self._beating: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._sent_at = 0.0
        self._is_closed = False
        self._payloads = False
        self._name = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The life of the socket. After an exception no disconnect handler runs: what must be ended ends here."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()

    async def dispatch(self, message: dict[str, Any]) -> None:
        """Hand a message to its handler. The stock one closes database connections before each, 0.2 ms in a thread."""
        match message["type"]:
            case "websocket.connect":
                await self._connect()
            case "websocket.receive":
                await self._receive(message.get("text"))
            case "websocket.disconnect":
                self._is_closed = True
                raise StopConsumer

    async def _connect(self) -> None:
        # Accepted first, whatever is wrong: a browser is not told why a handshake failed, but it is told a close code.
        offered = self.scope.get("subprotocols", [])
        await self.send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL if SUBPROTOCOL in offered else None})
        try:
            await self._authorise()
        except ProtocolError as error:
            await self._close(error)
            return
        except Exception:
            logger.exception("A socket could not be opened")
            await self._close(ProtocolError(CloseCode.INTERNAL, "An internal error occurred."))
            return
        loop = asyncio.get_running_loop()
        self._sent_at = loop.time()
        self._idle = loop.call_later(settings().websocket_idle, self._on_idle)
        self._beating = loop.create_task(self._beat())

    async def _authorise(self) -> None:
        self._name = self.scope["url_route"]["kwargs"]["name"]
        if not is_allowed_origin(self.scope["headers"], self.scope.get("scheme", "ws")):
            raise ProtocolError(CloseCode.FORBIDDEN, "This origin is not allowed.")
        try:
            await authorise(self.scope, self._name)
        except ProgramNotFound:
            raise ProtocolError(CloseCode.NO_SUCH_PROGRAM, "There is no such program.") from None
        except Unauthenticated as error:
            raise ProtocolError(CloseCode.UNAUTHENTICATED, error.detail) from None
        except Forbidden as error:
            raise ProtocolError(CloseCode.FORBIDDEN, error.detail) from None

    async def _receive(self, text: str | None) -> None:
        if self._is_closed:
            return
        if self._idle is not None:
            self._idle.cancel()
        try:
            await self._handle(messages.read(text))
        except ProtocolError as error:
            await self._close(error)

    async def _handle(self, message: Message) -> None:
        match message:
            case Ping():
                await self._send_text(messages.PONG)
            case Cancel(run_id):
                self._cancel(run_id)
            case Leave(run_id):
                if (task := self._runs.get(run_id)) is not None:
                    task.cancel()
            case Run(run_id) | Resume(run_id):
                if run_id in self._runs:
                    raise ProtocolError(CloseCode.DUPLICATE_ID, "An execution of this id is under way.")
                if len(self._runs) >= settings().websocket_max_runs:
                    raise ProtocolError(CloseCode.TOO_MANY_RUNS, "Too many executions at once.")
                task = asyncio.get_running_loop().create_task(self._run(message))
                self._runs[run_id] = task
                task.add_done_callback(lambda _: self._forget(run_id))

    def _cancel(self, run_id: str) -> None:
        if (stream := self._streams.get(run_id)) is not None:
            stream.cancel()
        elif run_id in self._runs:
            # It is being started, or found: then it is stopped as soon as that is done.
            self._cancelled.add(run_id)

    async def _run(self, message: Run | Resume) -> None:
        try:
            stream = await (self._start(message) if isinstance(message, Run) else self._resume(message))
        except Exception as error:  # told to the client as a problem
            if not isinstance(error, DspyserveError):
                logger.exception("A run could not be started")
            await self._send_text(messages.error(as_request_error(error), message.id))
            return
        self._streams[message.id] = stream
        if message.id in self._cancelled:
            stream.cancel()
        try:
            async for event in stream:
                await self._send_text(messages.event(message.id, event, payloads=self._payloads))
                if self._is_closed:
                    break
        except StreamNotFound as error:
            await self._send_text(messages.error(error, message.id))
        finally:
            stream.close()

    async def _start(self, message: Run) -> runs.RunStream:
        identity = await self._admit()
        options = run_options(message.options, "/options", (*STREAM_NAMES, *REPLAY_NAMES))
        if options.variant != OWN or options.replay_of:
            await authorise_replay(identity, options.replay_of)
        caller = Caller(
            transport=Trace.Transport.WEBSOCKET,
            owner=identity.name,
            user_id=identity.user_id,
            api_key_id=identity.key_id,
            session_id=options.session_id,
            tags=options.tags,
            metadata=options.metadata,
            replay_of=options.replay_of,
        )
        return await runs.astream(
            self._name,
            message.inputs,
            caller=caller,
            timeout=options.timeout,
            from_json=True,
            on_disconnect=options.on_disconnect,
            payloads=self._payloads,
            variant=options.variant,
        )

    async def _admit(self) -> Identity:
        """Who asks, once more, because a socket may outlive the key or the permission that opened it."""
        identity, self._payloads = await authorise(self.scope, self._name)
        await spend(identity, (self.scope.get("client") or [""])[0])
        return identity

    async def _resume(self, message: Resume) -> runs.RunStream:
        identity = await self._admit()
        owner = owner_name(identity, message.trace_id, message.token)
        stream = await runs.aresume(message.trace_id, owner=owner, after=message.after)
        if stream.is_at_end:
            stream.close()
            raise StreamNotFound("The stream is over, and nothing follows this event.")
        return stream

    async def _beat(self) -> None:
        """Tell a silent client, and the proxies on the way, that the socket lives."""
        loop, interval = asyncio.get_running_loop(), settings().websocket_heartbeat
        while not self._is_closed:
            silent = loop.time() - self._sent_at
            if silent >= interval:
                await self._send_text(messages.HEARTBEAT)
                silent = 0.0
            await asyncio.sleep(interval - silent)

    async def _send_text(self, text: str) -> None:
        if self._is_closed:
            return
        self._sent_at = asyncio.get_running_loop().time()
        try:
            await self.send({"type": "websocket.send", "text": text})
        except Exception:  # noqa: BLE001 - the socket is gone; servers tell so in ways of their own
            self._leave()

    async def _close(self, error: ProtocolError) -> None:
        if not self._is_closed:
            self._leave()
            await self.send({"type": "websocket.close", "code": int(error.code), "reason": error.reason})

    def _on_idle(self) -> None:
        error = ProtocolError(CloseCode.IDLE, "No message came.")
        self._closing = asyncio.get_running_loop().create_task(self._close(error))

    def _forget(self, run_id: str) -> None:
        self._runs.pop(run_id, None)
        self._streams.pop(run_id, None)
        self._cancelled.discard(run_id)

    def _leave(self) -> None:
        """Nobody reads here any more: every execution goes the way that was asked for."""
        self._is_closed = True
        if self._idle is not None:
            self._idle.cancel()
        for task in (self._beating, *list(self._runs.values())):
            if task is not None and task is not asyncio.current_task():
                task.cancel()
        for stream in list(self._streams.values()):
            stream.close()
