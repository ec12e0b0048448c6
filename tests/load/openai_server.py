"""The project's own OpenAI-compatible chat server: real HTTP, deterministic answers, faults on demand.

In a test: ``with OpenAIServer() as server: dspy.LM("openai/gpt-4o-mini", api_base=server.url, api_key="k1")``.
As a process: ``python -m tests.load.openai_server [--port 0] [--latency S] [--token-delay S]``.
The module `answers` says what it answers, `directives` how a prompt steers it.
"""

import argparse
import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Self

import uvicorn

from tests.load.openai_wire import ChatRequest
from tests.load.provider import Provider

__all__ = ["ChatRequest", "OpenAIServer"]

_HOST = "127.0.0.1"
_BACKLOG = 2048
_IDLE_SECONDS = 75  # a client's pooled connection should outlive the pauses of a test
_START_SECONDS = 10
_STOP_SECONDS = 10


class OpenAIServer:
    """The server in a daemon thread of this process, on a free port; it accepts as soon as it is constructed."""

    def __init__(self, latency: float = 0.0, token_delay: float = 0.0) -> None:
        """Latency is the seconds before each answer, token_delay those after each chunk of a stream."""
        self._provider = Provider(latency=latency, token_delay=token_delay)
        self._socket = _listen(0)
        self.port: int = self._socket.getsockname()[1]
        self._ready = threading.Event()
        self._server = _Server(self._provider, self._ready.set)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name=f"openai-server-{self.port}", daemon=True
        )
        self._thread.start()
        if not self._ready.wait(_START_SECONDS):
            raise RuntimeError("the OpenAI server did not start")

    @property
    def url(self) -> str:
        """What an OpenAI client calls its base URL."""
        return _url(self.port)

    @property
    def requests(self) -> list[ChatRequest]:
        """The chat requests since the last `clear`, in the order they arrived."""
        return self._provider.requests

    @property
    def in_flight(self) -> int:
        """Chat requests without a complete answer at this moment."""
        return self._provider.stats.in_flight

    @property
    def peak_in_flight(self) -> int:
        """The most chat requests that were in flight at once since the last `clear`."""
        return self._provider.stats.peak_in_flight

    @property
    def aborted(self) -> int:
        """Answers and streams whose client went away since the last `clear`."""
        return self._provider.stats.aborted

    def clear(self) -> None:
        """Forget the requests, the counts and the attempts of ``fail_times``."""
        self._provider.clear()

    def close(self) -> None:
        """Drop every connection and stop; a second call does nothing."""
        self._server.stop()
        self._thread.join(_STOP_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class _Server(uvicorn.Server):
    """Uvicorn that says when it accepts, and that stops without waiting for the connections."""

    def __init__(self, provider: Provider, on_ready: Callable[[], None]) -> None:
        super().__init__(_config(provider))
        self._on_ready = on_ready
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._loop = asyncio.get_running_loop()
        self._on_ready()

    def stop(self) -> None:
        """Stop, from another thread."""
        self.should_exit = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._drop_connections)

    def _drop_connections(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def _config(provider: Provider) -> uvicorn.Config:
    return uvicorn.Config(
        provider,
        interface="asgi3",
        http="auto",
        loop="auto",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=1,
    )


def _listen(port: int) -> socket.socket:
    return socket.create_server((_HOST, port), backlog=_BACKLOG)


def _url(port: int) -> str:
    return f"http://{_HOST}:{port}/v1"


def main() -> None:
    """Serve until the process is told to stop; requests are counted but not kept."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--token-delay", type=float, default=0.0, help="seconds after each chunk of a stream")
    options = parser.parse_args()
    listener = _listen(options.port)
    url = _url(listener.getsockname()[1])
    provider = Provider(latency=options.latency, token_delay=options.token_delay, record=False)
    _Server(provider, lambda: print(f"listening on {url}", flush=True)).run([listener])


if __name__ == "__main__":
    main()
