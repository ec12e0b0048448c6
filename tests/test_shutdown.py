"""The way from SIGTERM to the end of the process, step by step; `test_durability` goes it in real servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import MutableMapping
from typing import Any

import pytest

from dspyserve.asgi import GOING_AWAY, Drain
from dspyserve.events import RUN_CANCELLED, Event
from dspyserve.execution.event_log import EventLog
from dspyserve.runs import live
from dspyserve.runs.stream import RunStream, StreamSource

SCOPE = {"type": "websocket"}


@pytest.fixture
def drain(monkeypatch: pytest.MonkeyPatch) -> Drain:
    monkeypatch.setattr(live, "is_draining", False)
    return Drain()


async def test_a_socket_is_closed_after_it_was_told_the_end(drain: Drain) -> None:
    log = EventLog("ab" * 16)
    log.hold_end(lambda: None)
    stream = RunStream(StreamSource(log, owner="", on_disconnect="continue", stop=lambda reason: None))
    sent: list[Any] = []

    async def tell() -> None:
        async for event in stream:
            sent.append(event.type)
        stream.close()

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message["code"])
        drain.release(SCOPE)

    drain.hold(SCOPE, send)
    telling = asyncio.create_task(tell())
    # The run is over, and its end is held back until it is published.
    log.append(Event(type=RUN_CANCELLED, seq=1, trace_id=log.trace_id, at=time.time()))
    finishing = asyncio.create_task(asyncio.to_thread(drain.finish))
    await asyncio.sleep(0.3)
    log.tell_end()
    await asyncio.gather(telling, finishing)
    assert sent == [RUN_CANCELLED, GOING_AWAY]
