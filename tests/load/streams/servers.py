"""The three servers of the benchmark and the targets that they offer: the provider, ours, and FastAPI's."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.load.deployment import deploy, serve
from tests.load.environments import FASTAPI
from tests.load.processes import Process, uvicorn
from tests.load.raw_http import post
from tests.load.streams.clients import Target, masked, upgrade
from tests.server import free_port


@dataclass(frozen=True, slots=True)
class Servers:
    """What is measured."""

    provider: Process
    ours: Process
    fastapi: Process | None

    def raw(self) -> Target:
        """The provider itself."""
        port = self.provider.port

        def request(question: str) -> bytes:
            messages = [{"role": "user", "content": question}]
            return post(port, "/v1/chat/completions", {"model": "gpt-4o-mini", "messages": messages, "stream": True})

        return Target(name="provider alone", port=port, request=request, end=b"data: [DONE]")

    def sse(self, program: str) -> Target:
        """Our server, over server-sent events."""
        port, path = self.ours.port, f"/api/programs/{program}/stream"
        return Target(
            name=f"dspyserve, SSE, {_label(program)}",
            port=port,
            request=lambda question: post(port, path, {"inputs": {"question": question}}),
            end=b"event: run_end",
        )

    def websocket(self, program: str) -> Target:
        """Our server, over a WebSocket."""
        port = self.ours.port
        return Target(
            name=f"dspyserve, WebSocket, {_label(program)}",
            port=port,
            request=lambda question: masked(b'{"type":"run","id":"1","inputs":{"question":"%b"}}' % question.encode()),
            end=b'"type":"run_end"',
            upgrade=upgrade(port, f"/ws/programs/{program}"),
        )

    def streamify(self, program: str) -> Target:
        """FastAPI and `dspy.streamify`."""
        assert self.fastapi is not None
        port, path = self.fastapi.port, f"/stream/{program}"
        return Target(
            name=f"FastAPI + streamify, {_label(program)}",
            port=port,
            request=lambda question: post(port, path, {"question": question}),
            end=b"data: [DONE]",
        )


def _label(program: str) -> str:
    return {"bench_sync": "synchronous", "bench_async": "native-async"}[program]


@contextlib.contextmanager
def servers(directory: Path, *, with_fastapi: bool) -> Iterator[Servers]:
    """All of them, started; what they write goes to `directory`."""
    with contextlib.ExitStack() as stack:
        port = free_port()
        command = [sys.executable, "-m", "tests.load.streams.provider", str(port)]
        provider = stack.enter_context(Process(command, port, directory / "provider.log", {}))
        url = f"http://127.0.0.1:{provider.port}/v1"
        ours = stack.enter_context(_ours(directory, url))
        fastapi = stack.enter_context(_fastapi(directory, url)) if with_fastapi else None
        yield Servers(provider, ours, fastapi)


def _ours(directory: Path, provider: str) -> Process:
    database = f"sqlite:///{directory / 'db.sqlite3'}"
    environment = deploy("tests.load.streams.settings", directory, database, provider)
    return serve(environment, directory / "ours.log")


def _fastapi(directory: Path, provider: str) -> Process:
    environment = {"STREAMS_PROVIDER": provider, "LITELLM_LOCAL_MODEL_COST_MAP": "true"}
    application = "tests.load.streams.fastapi_streamify:app"
    return uvicorn(FASTAPI.python(), application, directory / "fastapi.log", environment)
