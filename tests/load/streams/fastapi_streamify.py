"""What the server is compared with: FastAPI and `dspy.streamify`, put together as their documentation does.

A listener serves one stream, so every request makes its own. Runs in a virtual environment of its own.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Literal

import dspy
import orjson
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from tests.load.serving.modules import AskInThread, AskOnLoop

app = FastAPI()
dspy.configure(async_max_workers=128)
lm = dspy.LM("openai/gpt-4o-mini", api_base=os.environ["STREAMS_PROVIDER"], api_key="benchmark", cache=False)
programs: dict[str, dspy.Module] = {"bench_sync": AskInThread(), "bench_async": AskOnLoop()}


class Question(BaseModel):
    """The body of a request."""

    question: str


@app.post("/stream/{name}")
async def stream(name: Literal["bench_sync", "bench_async"], body: Question) -> StreamingResponse:
    """The answer's pieces as server-sent events, then the whole of it."""
    return StreamingResponse(_events(name, body.question), media_type="text/event-stream")


async def _events(name: str, question: str) -> AsyncIterator[bytes]:
    with dspy.context(lm=lm):
        run = dspy.streamify(
            programs[name],
            stream_listeners=[dspy.streaming.StreamListener(signature_field_name="answer")],
            is_async_program=name == "bench_async",
        )
        async for value in run(question=question):
            if isinstance(value, dspy.streaming.StreamResponse):
                piece = {"field": value.signature_field_name, "delta": value.chunk}
                yield b"event: token\ndata: %b\n\n" % orjson.dumps(piece)
            elif isinstance(value, dspy.Prediction):
                yield b"event: end\ndata: %b\n\n" % orjson.dumps({"outputs": dict(value.items())})
    yield b"data: [DONE]\n\n"
