"""`runs.aresume` and `runs.acancel`: streams that are read again, by their owners alone."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from dspyserve import runs
from dspyserve.access.identity import ANONYMOUS
from dspyserve.access.resuming import owner_name
from dspyserve.errors import StreamNotFound
from dspyserve.events import Caller, Event
from dspyserve.models import Trace
from dspyserve.runs.open_streams import open_streams
from dspyserve.runs.stream import RunStream
from tests.api.test_run import wait_for_trace

ANN = Caller(transport="sse", owner="key:1")
SLOW = {"question": "@@words=60@@ @@token_delay=0.01@@"}


async def rest(stream: RunStream) -> list[dict[str, Any]]:
    """All that comes, as clients get it."""
    async with aclosing(stream):
        return [event.as_dict() async for event in stream]


async def some(stream: RunStream, count: int) -> list[Event]:
    """The first events."""
    return [await anext(stream) for _ in range(count)]


@pytest.mark.parametrize("program", ["echo", "threaded"])
async def test_whoever_comes_back_gets_the_identical_tail(language_model: Any, program: str) -> None:
    stream = await runs.astream(program, SLOW, caller=ANN, on_disconnect="continue")
    head = [event.as_dict() for event in await some(stream, 12)]
    stream.close()
    meanwhile = await runs.aresume(stream.trace_id, owner="key:1", after=12)
    tail = await rest(meanwhile)
    assert [event["seq"] for event in head + tail] == list(range(1, len(head + tail) + 1))
    assert tail[-1]["type"] == "run_end"
    whole = await rest(await runs.aresume(stream.trace_id, owner="key:1"))
    assert whole == head + tail
    for after in (1, 5, len(whole) - 1):
        assert await rest(await runs.aresume(stream.trace_id, owner="key:1", after=after)) == whole[after:]
    over = await runs.aresume(stream.trace_id, owner="key:1", after=len(whole))
    assert over.is_at_end
    assert await rest(over) == []


async def test_several_readers_share_a_run_and_the_last_one_stops_it(language_model: Any) -> None:
    one = await runs.astream("sleeper", {"seconds": 30.0}, caller=ANN)
    await some(one, 1)
    two = await runs.aresume(one.trace_id, owner="key:1")
    await some(two, 1)
    one.close()
    one.close()
    await asyncio.sleep(0.2)
    assert len(runs.live) == 1, "somebody still reads"
    two.close()
    trace = await sync_to_async(wait_for_trace)("sleeper")
    assert trace.status == "cancelled"
    events = await rest(await runs.aresume(one.trace_id, owner="key:1"))
    assert (events[-1]["type"], events[-1]["reason"]) == ("run_cancelled", "client")


async def test_a_run_that_continues_is_there_when_its_reader_comes_back(language_model: Any) -> None:
    stream = await runs.astream("echo", {"question": "@@delay=0.3@@"}, caller=ANN, on_disconnect="continue")
    stream.close()
    trace = await sync_to_async(wait_for_trace)("echo")
    assert trace.status == "succeeded"
    assert (await rest(await runs.aresume(stream.trace_id, owner="key:1")))[-1]["type"] == "run_end"


async def test_a_run_that_continues_can_be_cancelled_by_its_owner(language_model: Any) -> None:
    stream = await runs.astream("sleeper", {"seconds": 30.0}, caller=ANN, on_disconnect="continue")
    stream.close()
    with pytest.raises(StreamNotFound):
        await runs.acancel(stream.trace_id, owner="key:2")
    await runs.acancel(stream.trace_id, owner="key:1")
    events = await rest(await runs.aresume(stream.trace_id, owner="key:1"))
    assert (events[-1]["type"], events[-1]["reason"]) == ("run_cancelled", "client")
    # One that is over stays as it is.
    await runs.acancel(stream.trace_id, owner="key:1")


@pytest.mark.parametrize("owner", ["", "key:2", "user:1", "anonymous"])
async def test_nobody_else_may(language_model: Any, owner: str) -> None:
    stream = await runs.astream("echo", {"question": "q"}, caller=ANN)
    await rest(stream)
    with pytest.raises(StreamNotFound):
        await runs.aresume(stream.trace_id, owner=owner)


async def test_streams_of_nobody_are_not_kept(language_model: Any) -> None:
    before = len(open_streams)
    stream = await runs.astream("echo", {"question": "q"})
    await rest(stream)
    assert len(open_streams) == before
    with pytest.raises(StreamNotFound):
        await runs.aresume(stream.trace_id, owner="")


async def test_anonymous_callers_own_what_they_have_the_token_of(language_model: Any) -> None:
    stream = await runs.astream("echo", {"question": "q"}, caller=Caller(owner=ANONYMOUS.name))
    other = await runs.astream("echo", {"question": "q"}, caller=Caller(owner=ANONYMOUS.name))
    token, wrong = [(await rest(found))[0]["resume_token"] for found in (stream, other)]
    assert owner_name(ANONYMOUS, stream.trace_id, token) == ANONYMOUS.name
    for bad in ("", wrong, token[:-1], "é"):
        assert owner_name(ANONYMOUS, stream.trace_id, bad) == ""
    assert "resume_token" not in str((await Trace.objects.aget(pk=stream.trace_id)).__dict__)


async def test_ended_streams_are_let_go(language_model: Any, settings: Any) -> None:
    settings.DSPYSERVE = {**settings.DSPYSERVE, "STREAM_RESUME": 0.2}
    stream = await runs.astream("echo", {"question": "q"}, caller=ANN)
    await rest(stream)
    assert (await runs.aresume(stream.trace_id, owner="key:1")) is not None
    await asyncio.sleep(1.5)  # Redis counts whole seconds
    with pytest.raises(StreamNotFound):
        await runs.aresume(stream.trace_id, owner="key:1")


async def test_the_oldest_go_first_when_memory_is_short(language_model: Any, settings: Any) -> None:
    settings.DSPYSERVE = {**settings.DSPYSERVE, "STREAM_MEMORY": 0}
    open_streams.find("")
    running = await runs.astream("sleeper", {"seconds": 0.4}, caller=ANN)
    ended = [await runs.astream("echo", {"question": "q"}, caller=ANN) for _ in range(3)]
    sizes = [(await rest(stream)) and open_streams.find(stream.trace_id) for stream in ended]
    assert sizes == [None, None, None]
    assert (await runs.aresume(running.trace_id, owner="key:1")).trace_id == running.trace_id, "it is under way"
    await rest(running)
    settings.DSPYSERVE = {**settings.DSPYSERVE, "STREAM_MEMORY": 2 * 12_000}
    kept = []
    for _ in range(6):
        kept.append(await runs.astream("echo", {"question": "@@words=20@@"}, caller=ANN))
        await rest(kept[-1])
    found = [open_streams.find(stream.trace_id) is not None for stream in kept]
    assert found == sorted(found), "the oldest go first"
    assert 0 < sum(found) < 6


async def test_a_reader_that_is_too_late_is_told_so(language_model: Any, settings: Any) -> None:
    settings.DSPYSERVE = {**settings.DSPYSERVE, "STREAM_LIMIT": 10}
    stream = await runs.astream("echo", {"question": "@@words=2000@@ @@chunk=2@@"}, caller=ANN)
    first = await anext(stream)
    assert first.seq == 1
    while len(runs.live):
        await asyncio.sleep(0.05)
    with pytest.raises(StreamNotFound, match="not kept"):
        await runs.aresume(stream.trace_id, owner="key:1", after=1)
