"""`/openai/v1/models` and `/openai/v1/chat/completions`."""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from ninja import Router

from dspyserve import runs
from dspyserve.access.permissions import check_may_run, visible_programs
from dspyserve.api.bodies import read_object
from dspyserve.api.callers import admit, caller
from dspyserve.api.openai.translation import (
    REASONING,
    ChatRequest,
    Conversation,
    conversation,
    error_body,
    inputs_of,
    read_chat,
    usage_of,
)
from dspyserve.api.responses import json_response, problem_response
from dspyserve.api.sse import EventSource
from dspyserve.api.streaming import StreamedBody, unbuffered
from dspyserve.encoding import encode
from dspyserve.errors import InvalidInput, ProgramError, ProgramNotFound, RequestError
from dspyserve.events import REASONING_CONTENT, RUN_END, RUN_START, TOKEN, Event
from dspyserve.models import Trace
from dspyserve.programs.catalogue import catalogue

router = Router()

DONE = b"data: [DONE]\n\n"

_View = Callable[..., Awaitable[HttpResponseBase]]


def _in_their_words(view: _View) -> _View:
    """Errors in the protocol's shape, with the status and the headers that they have everywhere."""

    @functools.wraps(view)
    async def answer(request: HttpRequest) -> HttpResponseBase:
        try:
            return await view(request)
        except RequestError as error:
            response = problem_response(error)
            response.content = encode(_error(error))
            response["Content-Type"] = "application/json"
            return response

    return answer


@router.get("/models")
@_in_their_words
async def models(request: HttpRequest) -> HttpResponse:
    """The programs that the caller may run and that can be talked to."""
    rows = await visible_programs(await admit(request), await catalogue.arows())
    found = []
    for row in rows:
        try:
            spoken = conversation(await catalogue.aget(row.name))
        except (ProgramError, ProgramNotFound):
            continue
        if spoken is not None:
            created = int(row.created_at.timestamp())
            found.append({"id": row.name, "object": "model", "created": created, "owned_by": "dspyserve"})
    return json_response({"object": "list", "data": found})


@router.post("/chat/completions")
@_in_their_words
async def chat_completions(request: HttpRequest) -> HttpResponseBase:
    """Run the program that `model` names on the last message, and answer with its text output."""
    identity = await admit(request)
    asked = read_chat(read_object(request))
    await check_may_run(identity, await catalogue.arow(asked.model))
    spoken = conversation(await catalogue.aget(asked.model))
    if spoken is None:
        raise ProgramNotFound(
            f"{asked.model!r} has not one text input and one text output: call it by its own address."
        )
    inputs = inputs_of(asked, spoken)
    transport = Trace.Transport.SSE if asked.stream else Trace.Transport.REST
    known = caller(request, identity, asked.options, transport)
    if asked.stream:
        stream = await runs.astream(asked.model, inputs, caller=known, from_json=True)
        chunks = EventSource(stream, _Chunks(stream.trace_id, asked, spoken))
        body = StreamedBody(chunks, lambda error: _data(_error(error)) + DONE, chunks.close)
        response = unbuffered(body, "text/event-stream")
        response["X-Trace-Id"] = stream.trace_id
        return response
    result = await runs.aexecute(asked.model, inputs, caller=known, from_json=True)
    message = {"role": "assistant", "content": result.outputs.get(spoken.answer)}
    if spoken.reasoning:
        message["reasoning_content"] = result.outputs.get(REASONING)
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    completion = {
        **_head(result.trace_id, asked, "chat.completion"),
        "choices": [choice],
        "usage": usage_of(result.usage),
    }
    return json_response(completion, trace_id=result.trace_id)


class _Chunks:
    """What goes out for each event of a run: chunks of its texts, and nothing for others."""

    def __init__(self, trace_id: str, asked: ChatRequest, spoken: Conversation) -> None:
        self._head = _head(trace_id, asked, "chat.completion.chunk")
        self._asked = asked
        self._spoken = spoken
        self._sent = {spoken.answer: "", REASONING: ""}
        if not spoken.reasoning:
            # What the model thinks by itself stands in for a reasoning that the program does not have.
            self._sent[REASONING_CONTENT] = ""

    def __call__(self, event: Event) -> bytes:
        if event.type == RUN_START:
            return _chunk(self._head, {"role": "assistant", "content": ""})
        if event.type == TOKEN and self._spoken.is_direct and event.data["field"] in self._sent:
            name, delta = event.data["field"], event.data["delta"]
            self._sent[name] += delta
            return _chunk(self._head, {_KEYS.get(name, "content"): delta})
        if event.is_terminal:
            return b"".join(_end(self._head, event, self._asked, self._spoken, self._sent))
        return b""


_KEYS = {REASONING: "reasoning_content", REASONING_CONTENT: "reasoning_content"}


def _end(
    head: dict[str, Any], event: Event, asked: ChatRequest, spoken: Conversation, sent: dict[str, str]
) -> list[bytes]:
    """What follows the last token: the rest of the texts, the reason, the usage; or the error."""
    if event.type != RUN_END:
        problem = event.data.get("problem") or {
            "status": 499,
            "code": "cancelled",
            "detail": "The execution was stopped.",
        }
        return [_data(error_body(problem["status"], problem["code"], problem["detail"])), DONE]
    outputs = {name: str(event.data["outputs"].get(name) or "") for name in sent}
    if any(not outputs[name].startswith(text) for name, text in sent.items() if name in event.data["outputs"]):
        # The predictor began anew, and what is sent cannot be taken back.
        return [_data(error_body(502, "output_unparsable", "The answer began anew: ask again.")), DONE]
    lines = []
    for name in (REASONING, spoken.answer) if spoken.reasoning else (spoken.answer,):
        if rest := outputs[name][len(sent[name]) :]:
            lines.append(_chunk(head, {_KEYS.get(name, "content"): rest}))
    lines.append(_chunk(head, {}, finish_reason="stop"))
    if asked.include_usage:
        lines.append(_data({**head, "choices": [], "usage": usage_of(event.data["usage"])}))
    return [*lines, DONE]


def _head(trace_id: str, asked: ChatRequest, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{trace_id}", "object": kind, "created": int(time.time()), "model": asked.model}


def _chunk(head: dict[str, Any], delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
    return _data({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}]})


def _data(value: dict[str, Any]) -> bytes:
    return b"data: %s\n\n" % encode(value)


def _error(error: RequestError) -> dict[str, Any]:
    pointer = error.faults[0].pointer if isinstance(error, InvalidInput) and error.faults else ""
    return error_body(error.status, error.code, error.detail, pointer.removeprefix("/").replace("/", ".") or None)
