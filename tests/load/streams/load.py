"""Many streams at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tests.load.streams.clients import Client, Reading, StreamFailed, Target, WebSocketClient

_CONNECTING = 50  # connections that are opened at a time
_PATIENCE = 60.0  # seconds that a stream may take beyond its own length


def question(tokens: int, rate: int = 0, latency_ms: int = 0) -> str:
    """What the provider reads its pace from."""
    return f"Say {tokens} tokens at {rate}/s after {latency_ms} ms, please."


class Load:
    """Streams from one target or several, one after the other in turns, opened before any question is asked."""

    def __init__(self, targets: Sequence[Target], count: int) -> None:
        self.readings = [Reading() for _ in range(count)]
        self._targets = [targets[number % len(targets)] for number in range(count)]
        self._clients: list[Client] = []

    async def run(self, asked: str, *, spread: float = 0.0, tokens: int) -> list[Reading]:
        """Ask, over `spread` seconds, and read all answers to their ends.

        Raises:
            StreamFailed: one did not end properly, or has not `tokens` tokens.
        """
        await self._connect()
        asking = asyncio.create_task(self._ask(asked, spread))
        seconds = _PATIENCE + spread + tokens / 5
        await asyncio.wait_for(asyncio.gather(asking, *(client.done for client in self._clients)), seconds)
        for reading in self.readings:
            if reading.tokens != tokens:
                raise StreamFailed(f"{reading.tokens} tokens came of {tokens}")
        return self.readings

    async def _connect(self) -> None:
        for start in range(0, len(self.readings), _CONNECTING):
            part = slice(start, start + _CONNECTING)
            pairs = zip(self._targets[part], self.readings[part], strict=True)
            self._clients += await asyncio.gather(*(_open(target, reading) for target, reading in pairs))

    async def _ask(self, asked: str, spread: float) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        for number, client in enumerate(self._clients):
            if (wait := start + spread * number / len(self._clients) - loop.time()) > 0:
                await asyncio.sleep(wait)
            client.ask(asked)


async def stream(target: Target, count: int, asked: str, *, tokens: int, spread: float = 0.0) -> list[Reading]:
    """`count` streams from `target`."""
    return await Load([target], count).run(asked, spread=spread, tokens=tokens)


async def _open(target: Target, reading: Reading) -> Client:
    kind = WebSocketClient if target.upgrade else Client
    _, client = await asyncio.get_running_loop().create_connection(
        lambda: kind(target, reading), "127.0.0.1", target.port
    )
    await client.ready
    return client
