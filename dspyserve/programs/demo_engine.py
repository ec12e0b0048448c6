"""The embedded offline engine: serves every DSPy program without a key and without a network.

    dspy.LM("demo/echo", engine=DemoEngine(), async_engine=AsyncDemoEngine(), cache=False)

Its answers are plainly a demo's: deterministic, made from the prompt, of the declared types. `demo_prompt` reads what a
prompt asks for, `demo_agent` and `demo_answers` decide what to say.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Self, TypeAlias

from dspy.lm15 import (
    Message,
    Request,
    Response,
    StreamDeltaEvent,
    StreamEndEvent,
    StreamStartEvent,
    TextDelta,
    TextPart,
    ToolResultPart,
    Usage,
)

from dspyserve.programs.demo_agent import answer_or_act
from dspyserve.programs.demo_prompt import read_task, write_answer

_TOKEN = re.compile(r"\s*\S+|\s+\Z")
_ID = "demo"

StreamEvent: TypeAlias = StreamStartEvent | StreamDeltaEvent | StreamEndEvent


class _Engine:
    """What both engines share: what DSPy asks of an engine beside completions."""

    # Without native features DSPy writes everything into the prompt, where the engine reads it.
    supports_function_calling = False
    supports_reasoning = False
    supports_response_schema = False
    supported_params = frozenset(["temperature", "max_tokens", "response_format"])

    def __init__(self, delay: float = 0.0) -> None:
        """`delay` is the time in seconds before each streamed token; an answer in one piece comes at once."""
        self.delay = delay

    def dump_state(self) -> dict[str, Any]:
        """What `load_state` needs, for DSPy to save a program whose language model this is."""
        return {"delay": self.delay}

    @classmethod
    def load_state(cls, state: Mapping[str, Any]) -> Self:
        """The engine that gave `state`."""
        return cls(delay=state.get("delay", 0.0))


class DemoEngine(_Engine):
    """The engine for synchronous programs. Has no state, so any number of threads may share one."""

    def complete(self, request: Request) -> Response:
        """The answer in one piece."""
        return _response(request)

    def stream(self, request: Request) -> Iterator[StreamEvent]:
        """The same answer word by word, `delay` seconds before each."""
        for event in _events(request):
            if self.delay and isinstance(event, StreamDeltaEvent):
                time.sleep(self.delay)
            yield event

    def close(self) -> None:
        """Nothing is held."""


class AsyncDemoEngine(_Engine):
    """The engine for asynchronous programs."""

    async def complete(self, request: Request) -> Response:
        """The answer in one piece."""
        return _response(request)

    async def stream(self, request: Request) -> AsyncIterator[StreamEvent]:
        """The same answer word by word, `delay` seconds before each."""
        for event in _events(request):
            if isinstance(event, StreamDeltaEvent):
                # Also without a delay: the event loop takes its turn between tokens.
                await asyncio.sleep(self.delay)
            yield event

    async def aclose(self) -> None:
        """Nothing is held."""


def _response(request: Request) -> Response:
    text = _text(request)
    return Response(
        id=_ID,
        model=request.model,
        message=Message.assistant([TextPart(text)]),
        finish_reason="stop",
        usage=_usage(request, text),
    )


def _events(request: Request) -> Iterator[StreamEvent]:
    text = _text(request)
    yield StreamStartEvent(id=_ID, model=request.model)
    for token in _TOKEN.findall(text):
        yield StreamDeltaEvent(TextDelta(text=token, part_index=0))
    yield StreamEndEvent(finish_reason="stop", usage=_usage(request, text))


def _text(request: Request) -> str:
    task = read_task(_system(request), [(message.role, _said(message)) for message in request.messages])
    return write_answer(task, answer_or_act(task))


def _usage(request: Request, text: str) -> Usage:
    """Words stand for tokens."""
    prompt = [_system(request), *map(_said, request.messages)]
    read, written = sum(len(part.split()) for part in prompt), len(text.split())
    return Usage(input_tokens=read, output_tokens=written, total_tokens=read + written)


def _system(request: Request) -> str:
    if request.system is None or isinstance(request.system, str):
        return request.system or ""
    return "\n".join(part.text for part in request.system if isinstance(part, TextPart))


def _said(message: Message) -> str:
    return "\n".join(text for part in message.parts if (text := _part(part)))


def _part(part: object) -> str:
    if isinstance(part, ToolResultPart):
        value = "\n".join(map(_part, part.content))
        # As the adapters write it that know no native tool calls.
        return json.dumps({"tool_call_results": [{"name": part.name, "value": value}]})
    return part.text if isinstance(part, TextPart) else ""
