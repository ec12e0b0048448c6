"""The three servers of the benchmark and the targets that they offer: the provider, ours, and FastAPI's."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.load.streams.clients import Target, masked, post, upgrade
from tests.load.streams.environment import baseline_python
from tests.load.streams.processes import ROOT, Process
from tests.server import free_port

_KEY = "benchmark"


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
    environment = {
        "DJANGO_SETTINGS_MODULE": "tests.load.streams.settings",
        "STREAMS_DIRECTORY": str(directory),
        "DATABASE_URL": f"sqlite:///{directory / 'db.sqlite3'}",
        "BENCHMARK_API_KEY": _KEY,
        "LITELLM_LOCAL_MODEL_COST_MAP": "true",
    }
    model = ["bench", "openai/gpt-4o-mini", "--api-base", provider, "--api-key-env", "BENCHMARK_API_KEY", "--default"]
    for command in (["migrate", "-v0"], ["add_language_model", *model]):
        subprocess.run(
            [sys.executable, "manage.py", *command],
            cwd=ROOT,
            env={**os.environ, **environment},
            check=True,
            stdout=sys.stderr,
        )
    return _uvicorn(sys.executable, "project.asgi:application", directory / "ours.log", environment)


def _fastapi(directory: Path, provider: str) -> Process:
    environment = {"STREAMS_PROVIDER": provider, "LITELLM_LOCAL_MODEL_COST_MAP": "true"}
    application = "tests.load.streams.fastapi_streamify:app"
    return _uvicorn(str(baseline_python()), application, directory / "fastapi.log", environment)


def _uvicorn(python: str, application: str, log: Path, environment: dict[str, str]) -> Process:
    port = free_port()
    options = ["--host=127.0.0.1", f"--port={port}", "--log-level=warning", "--backlog=4096", "--loop=uvloop"]
    return Process([python, "-m", "uvicorn", *options, application], port, log, environment)
