"""Many inputs of one program in one request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from uuid_utils.compat import uuid7

from dspyserve import runs
from dspyserve.access.identity import Identity
from dspyserve.api.bodies import RunBody, read_batch
from dspyserve.api.callers import caller, charge
from dspyserve.api.idempotency import Claim, begin, go_on, once
from dspyserve.api.responses import json_response
from dspyserve.api.streaming import unbuffered
from dspyserve.encoding import encode
from dspyserve.errors import RequestError
from dspyserve.models import Trace
from dspyserve.problems import problem
from dspyserve.programs.catalogue import catalogue

NDJSON: Final = "application/x-ndjson"


async def answer_batch(request: HttpRequest, identity: Identity, name: str) -> HttpResponseBase:
    """Execute every item of the body: all answers in the order of the items, or each in a line when it is there."""
    body = read_batch(request)
    await charge(request, identity, len(body.inputs))
    batch_id = uuid7().hex

    def outcomes() -> AsyncIterator[tuple[int, runs.RunResult | RequestError]]:
        return runs.abatch(
            name,
            body.inputs,
            caller=caller(request, identity, body.options, Trace.Transport.BATCH, batch_id=batch_id),
            timeout=body.options.timeout,
        )

    if NDJSON in request.headers.get("Accept", ""):
        return await _lines(request, identity, name, batch_id, outcomes)
    return await once(request, identity, lambda: _whole(body, batch_id, outcomes))


async def _whole(body: RunBody, batch_id: str, outcomes: Any) -> HttpResponse:
    items: list[Any] = [None] * len(body.inputs)
    async with aclosing(outcomes()) as finished:
        async for index, outcome in finished:
            items[index] = _item(index, outcome)
    response = json_response({"batch_id": batch_id, "results": items})
    response["X-Batch-Id"] = batch_id
    return response


async def _lines(request: HttpRequest, identity: Identity, name: str, batch_id: str, outcomes: Any) -> HttpResponseBase:
    # Asked for now, while an error can still be the answer.
    await catalogue.aget(name)
    claim = await begin(request, identity, variant=NDJSON)
    if isinstance(claim, HttpResponse):
        return claim
    response = unbuffered(_Lines(outcomes, batch_id, claim), NDJSON)
    response["X-Batch-Id"] = batch_id
    return response


class _Lines:
    """The body of the response. What runs is stopped when the client leaves, unless it will come back for the answer:
    then the claim on its idempotency key is kept, and the whole answer stored.
    """

    def __init__(self, outcomes: Any, batch_id: str, claim: Claim | None) -> None:
        self._outcomes = outcomes
        self._batch_id = batch_id
        self._claim = claim
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._task = go_on(self._produce() if claim is None else self._produce_once(claim))

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        line = await self._queue.get()
        if line is None:
            raise StopAsyncIteration
        return line

    def close(self) -> None:
        """The response is over."""
        if self._claim is None:
            self._task.cancel()

    async def _produce(self) -> bytes:
        lines = []
        try:
            async with aclosing(self._outcomes()) as finished:
                async for index, outcome in finished:
                    lines.append(encode(_item(index, outcome)) + b"\n")
                    self._queue.put_nowait(lines[-1])
        finally:
            self._queue.put_nowait(None)
        return b"".join(lines)

    async def _produce_once(self, claim: Claim) -> None:
        async with claim:
            try:
                response = HttpResponse(await self._produce(), content_type=NDJSON)
            except BaseException:
                await claim.give_up()
                raise
            response["X-Batch-Id"] = self._batch_id
            await claim.keep(response)


def _item(index: int, outcome: runs.RunResult | RequestError) -> dict[str, Any]:
    if isinstance(outcome, RequestError):
        return {"index": index, **problem(outcome)}
    return {"index": index, **outcome.as_dict()}
