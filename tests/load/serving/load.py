"""The load: connections that are kept, each of which asks again as soon as it has its answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Final

from tests.load.raw_http import ClientConnection, Inbox, post
from tests.load.serving.questions import answer, question

_CONNECTING: Final = 4  # connections that are opened at a time
_BETWEEN: Final = 0.002  # seconds from some to the next: opened at once, all would be one worker's of several
_PATIENCE: Final = 120.0  # seconds that answers may take after the last question
_NUMBERS: Final = count(1)

Times = list[tuple[float, float]]
"""When runs started and ended, in seconds of the monotonic clock."""


class RunFailed(Exception):
    """An answer that is not the one that was asked for."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a program is asked; `body` makes the JSON that holds a question."""

    port: int
    path: str
    body: Callable[[str], object]

    def request(self, asked: str) -> bytes:
        """The bytes that ask."""
        return post(self.port, self.path, self.body(asked))


class Asker(ClientConnection):
    """One connection, which asks the questions that it is given, one after the other."""

    def __init__(self, target: Target, questions: Iterator[tuple[int, str]], times: Times) -> None:
        super().__init__()
        self._target = target
        self._questions = questions
        self._times = times
        self._inbox = Inbox()
        self._started = 0.0
        self._expected = b""

    def ask(self) -> None:
        """Send the next question, or be done."""
        following = next(self._questions, None)
        if following is None:
            self.finish()
            return
        number, asked = following
        self._expected = answer(number).encode()
        request = self._target.request(asked)
        self._started = time.monotonic()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Check the answer once it is whole."""
        message = self._inbox.take(data)
        if message is None:
            return
        self._times.append((self._started, time.monotonic()))
        head, body = message
        if head.startswith(b"HTTP/1.1 200") and self._expected in body:
            self.ask()
        else:
            self.finish(RunFailed(f"expected {self._expected!r}, got {head!r} {body[:1000]!r}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Closed, properly where all is answered."""
        self.finish(RunFailed(f"the connection was closed before {self._expected!r} came"))


async def for_seconds(target: Target, concurrency: int, seconds: float, latency_ms: int) -> Times:
    """Ask `concurrency` questions at a time for so long.

    Raises:
        RunFailed: an answer was wrong, or no answer.
    """

    def questions() -> Iterator[tuple[int, str]]:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            yield _next(latency_ms)

    return await _load(target, concurrency, questions(), latency_ms, seconds)


async def at_once(target: Target, number: int, latency_ms: int, spread: float = 0.0) -> Times:
    """Ask `number` questions, in the same moment or one after the other over `spread` seconds, and no more."""
    return await _load(target, number, iter([_next(latency_ms) for _ in range(number)]), latency_ms, 0, spread)


def _next(latency_ms: int) -> tuple[int, str]:
    number = next(_NUMBERS)
    return number, question(number, latency_ms)


async def _load(
    target: Target,
    concurrency: int,
    questions: Iterator[tuple[int, str]],
    latency_ms: int,
    seconds: float,
    spread: float = 0.0,
) -> Times:
    times: Times = []
    askers: list[Asker] = []
    try:
        for start in range(0, concurrency, _CONNECTING):
            part = range(start, min(start + _CONNECTING, concurrency))
            await asyncio.sleep(_BETWEEN)
            askers += await asyncio.gather(*(_open(target, questions, times) for _ in part))
        begun = time.monotonic()
        for number, asker in enumerate(askers):
            if (wait := begun + spread * number / concurrency - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            asker.ask()
        await asyncio.wait_for(
            asyncio.gather(*(asker.done for asker in askers)), seconds + latency_ms / 1000 + _PATIENCE
        )
    finally:
        for asker in askers:
            asker.transport.close()
    return times


async def _open(target: Target, questions: Iterator[tuple[int, str]], times: Times) -> Asker:
    _, asker = await asyncio.get_running_loop().create_connection(
        lambda: Asker(target, questions, times), "127.0.0.1", target.port
    )
    return asker
