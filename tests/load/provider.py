"""The provider as an ASGI application: endpoints, pace, faults and streams."""

import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, HTTPScope

from tests.load.answers import pieces, write_answer
from tests.load.directives import DirectiveError, Directives, read_directives
from tests.load.exchange import ClientLeft, Exchange
from tests.load.openai_wire import (
    ChatRequest,
    RequestError,
    chunk,
    completion,
    error_body,
    models,
    read_request,
    usage_of,
)

_NOT_JSON = b'{"id": "chatcmpl-'


@dataclass(slots=True, kw_only=True)
class Stats:
    """Counts since the start or the last `clear`."""

    requests: int = 0
    streams: int = 0
    """How many of the requests asked for a stream."""
    in_flight: int = 0
    peak_in_flight: int = 0
    aborted: int = 0
    """Answers and streams whose client went away."""

    def reset(self) -> None:
        """Begin anew; what is in flight stays so, for the loop's thread may count it down at any moment."""
        self.requests = self.streams = self.aborted = 0
        self.peak_in_flight = self.in_flight


class Provider:
    """The ASGI application."""

    def __init__(self, *, latency: float = 0.0, token_delay: float = 0.0, record: bool = True) -> None:
        self.latency = latency
        self.token_delay = token_delay
        self.record = record
        self.stats = Stats()
        self.requests: list[ChatRequest] = []
        self._attempts: Counter[str] = Counter()
        self._numbers = itertools.count(1)
        self._routes: dict[tuple[str, str], Callable[[Exchange, HTTPScope], Awaitable[None]]] = {
            ("POST", "/v1/chat/completions"): self._chat,
            ("GET", "/v1/models"): self._models,
            ("GET", "/stats"): self._stats,
        }

    def clear(self) -> None:
        """Forget the requests, the counts and the attempts of ``fail_times``."""
        self.requests.clear()
        self._attempts.clear()
        self.stats.reset()

    async def __call__(self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        exchange = Exchange(receive, send)
        endpoint = self._routes.get((scope["method"], scope["path"]), self._nothing)
        try:
            await endpoint(exchange, scope)
        except ClientLeft:
            self.stats.aborted += 1
        finally:
            exchange.close()

    async def _chat(self, exchange: Exchange, scope: HTTPScope) -> None:
        self.stats.requests += 1
        self.stats.in_flight += 1
        self.stats.peak_in_flight = max(self.stats.peak_in_flight, self.stats.in_flight)
        try:
            await self._complete(exchange, await exchange.body(), _authorization(scope))
        finally:
            self.stats.in_flight -= 1

    async def _models(self, exchange: Exchange, scope: HTTPScope) -> None:
        await exchange.answer(200, orjson.dumps(models()))

    async def _stats(self, exchange: Exchange, scope: HTTPScope) -> None:
        await exchange.answer(200, orjson.dumps(asdict(self.stats)))

    async def _nothing(self, exchange: Exchange, scope: HTTPScope) -> None:
        await _refuse(exchange, 404, f"unknown endpoint: {scope['path']}", code="unknown_url")

    async def _complete(self, exchange: Exchange, body: bytes, authorization: str) -> None:
        try:
            request = read_request(body, authorization)
            directives = self._directives(request)
        except (RequestError, DirectiveError) as exc:
            await _refuse(exchange, 400, str(exc))
            return
        self.stats.streams += request.stream
        if self.record:
            self.requests.append(request)
        if directives.delay:
            await exchange.pause(directives.delay)
        if not await _misbehave(exchange, request, directives):
            await self._answer(exchange, request, directives)

    def _directives(self, request: ChatRequest) -> Directives:
        """What the prompt asks for, the server's own pace filled in and the failures that are over taken out."""
        directives = read_directives(request.last_user)
        if directives.delay is None:
            directives = replace(directives, delay=self.latency)
        if directives.token_delay is None:
            directives = replace(directives, token_delay=self.token_delay)
        if directives.fail_times is None and directives.fail_after is None:
            return directives
        self._attempts[directives.id] += 1
        attempts = self._attempts[directives.id]
        if directives.fail_after is not None and attempts <= directives.fail_after:
            return directives.healed()
        if directives.fail_times is not None and attempts > directives.fail_times:
            return directives.healed()
        return directives if directives.fails else replace(directives, status=503)

    async def _answer(self, exchange: Exchange, request: ChatRequest, directives: Directives) -> None:
        identity = f"chatcmpl-{next(self._numbers)}"
        answers = [write_answer(request, directives, choice) for choice in range(request.choices)]
        if request.stream:
            await _Stream(exchange, request, directives, identity).send(answers)
        elif directives.invalid_json:
            await exchange.answer(200, _NOT_JSON)
        else:
            await self._answer_at_once(exchange, request, directives, identity, answers)

    @staticmethod
    async def _answer_at_once(
        exchange: Exchange, request: ChatRequest, directives: Directives, identity: str, answers: list[str]
    ) -> None:
        usage = usage_of(request, directives, answers)
        body = orjson.dumps(completion(identity, request, directives, answers, usage))
        await exchange.answer(200, body, [(b"x-request-id", identity.encode())])


class _Stream:
    """One answer sent in chunks."""

    def __init__(self, exchange: Exchange, request: ChatRequest, directives: Directives, identity: str) -> None:
        self._exchange = exchange
        self._request = request
        self._directives = directives
        self._identity = identity
        self._sent = 0

    async def send(self, answers: list[str]) -> None:
        """Send every choice, one after the other."""
        await self._exchange.start_events([(b"x-request-id", self._identity.encode())])
        if self._directives.invalid_json:
            await self._end_early(_NOT_JSON)
            return
        for index, text in enumerate(answers):
            if not await self._send_choice(index, text):
                return
        await self._send_end(answers)

    async def _send_choice(self, index: int, text: str) -> bool:
        """Send one choice; False when a directive broke the stream off."""
        await self._send_chunk(index, {"role": "assistant", "content": ""})
        size = self._directives.chunk
        for piece in pieces(self._directives.reasoning_content or "", size):
            await self._send_chunk(index, {"reasoning_content": piece})
        for piece in pieces(text, size):
            if await self._break_off():
                return False
            await self._send_chunk(index, {"content": piece})
            self._sent += 1
        await self._send_chunk(index, {}, finish=self._directives.finish)
        return True

    async def _break_off(self) -> bool:
        if self._sent == self._directives.cut:
            await self._exchange.drop()
            return True
        if self._sent == self._directives.stall:
            await self._exchange.until_client_leaves()
            raise ClientLeft
        if self._sent == self._directives.error_after:
            error = error_body(self._directives.error_status, "the provider failed in the middle of its answer")
            await self._end_early(orjson.dumps(error))
            return True
        if self._sent == self._directives.garbage_after:
            await self._end_early(_NOT_JSON)
            return True
        return False

    async def _end_early(self, event: bytes) -> None:
        await self._exchange.event(event)
        await self._exchange.end_events()

    async def _send_chunk(self, index: int, delta: dict[str, Any], finish: str | None = None) -> None:
        await self._exchange.event(orjson.dumps(chunk(self._identity, self._request, index, delta, finish=finish)))
        if finish is None:
            await self._exchange.pause(self._directives.token_delay or 0.0)

    async def _send_end(self, answers: list[str]) -> None:
        if self._request.include_usage:
            usage = usage_of(self._request, self._directives, answers)
            await self._exchange.event(orjson.dumps(chunk(self._identity, self._request, usage=usage)))
        if self._directives.undone:
            await self._exchange.drop()
            return
        await self._exchange.event(b"[DONE]")
        await self._exchange.end_events()


async def _misbehave(exchange: Exchange, request: ChatRequest, directives: Directives) -> bool:
    """Fail before the answer as the directives ask; False when they ask for no such failure."""
    if directives.reset:
        await exchange.drop()
    elif directives.hang:
        await exchange.until_client_leaves()
        raise ClientLeft
    elif directives.error is not None or directives.status is not None:
        await _fail(exchange, request, directives)
    else:
        return False
    return True


async def _fail(exchange: Exchange, request: ChatRequest, directives: Directives) -> None:
    headers = [(b"retry-after", directives.retry_after.encode())] if directives.retry_after else []
    if directives.error == "context_length":
        status, message, code = 400, "This model's maximum context length is 128 tokens.", "context_length_exceeded"
    elif directives.error == "echo":
        status, message, code = directives.status or 500, f"refused {request.api_key}: {request.last_user}", None
    else:
        status, message, code = directives.status or 500, "the provider failed as it was asked to", directives.error
    await exchange.answer(status, orjson.dumps(error_body(status, message, code)), headers)


async def _refuse(exchange: Exchange, status: int, message: str, code: str | None = None) -> None:
    await exchange.answer(status, orjson.dumps(error_body(status, message, code)))


def _authorization(scope: HTTPScope) -> str:
    return next((value.decode() for name, value in scope["headers"] if name == b"authorization"), "")
