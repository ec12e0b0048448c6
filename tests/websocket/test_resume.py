"""`resume` over sockets, heartbeats, and what becomes of executions when sockets go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from dspyserve.models import Trace
from tests.api.conftest import make_key
from tests.api.test_run import wait_for_trace
from tests.api.test_stream import check
from tests.server import Server
from tests.websocket.test_consumer import close_code, receive, send, socket, until_over

SLOW = {"question": "@@words=60@@ @@token_delay=0.02@@"}
CONTINUE = {"on_disconnect": "continue"}


@pytest.fixture(params=["daphne", "uvicorn"])
def server(request: pytest.FixtureRequest, language_model: Any, start_server: Callable[..., Server]) -> Server:
    return start_server(request.param, DSPYSERVE_TESTS_HEARTBEAT="0.3")


async def begin(server: Server, count: int, options: dict[str, Any], **handshake: Any) -> list[dict[str, Any]]:
    """The first events of an execution whose socket breaks then."""
    async with socket(server, "echo", **handshake) as found:
        await send(found, type="run", id="a", inputs=SLOW, options=options)
        events = []
        while len(events) < count:
            message = await receive(found)
            if message["type"] == "event":
                events.append(message["event"])
        found.transport.abort()
    return events


class TestResume:
    async def test_another_socket_reads_on(self, server: Server) -> None:
        own = {"additional_headers": {"Authorization": f"Bearer {await sync_to_async(make_key)('run')}"}}
        head = await begin(server, 9, CONTINUE, **own)
        trace_id = head[0]["trace_id"]
        async with socket(server, "echo", **own) as found:
            await send(found, type="resume", trace_id=trace_id, after=9)
            await send(found, type="resume", id="again", trace_id=trace_id)
            await send(found, type="run", id="new", inputs={"question": "q"})
            events = await until_over(found, {trace_id, "again", "new"})
            assert events["again"] == head + events[trace_id]
            check(events["again"])
            check(events["new"])
            last = events["again"][-1]["seq"]
            await send(found, type="resume", id="over", trace_id=trace_id, after=last)
            assert await code_of(found, "over") == "stream_not_found"
        async with socket(server, "echo") as found:
            await send(found, type="resume", id="x", trace_id=trace_id, after=0)
            assert await code_of(found, "x") == "stream_not_found"

    async def test_an_anonymous_caller_comes_back_with_the_token(self, server: Server) -> None:
        head = await begin(server, 4, CONTINUE)
        async with socket(server, "echo") as found:
            await send(found, type="resume", trace_id=head[0]["trace_id"], after=4, token=head[0]["resume_token"])
            events = await until_over(found, {head[0]["trace_id"]})
        check(head + events[head[0]["trace_id"]])

    async def test_a_resumed_execution_can_be_cancelled(self, server: Server) -> None:
        head = await begin(server, 4, CONTINUE)
        async with socket(server, "echo") as found:
            await send(
                found, type="resume", id="b", trace_id=head[0]["trace_id"], after=4, token=head[0]["resume_token"]
            )
            assert (await receive(found))["event"]["seq"] == 5
            await send(found, type="cancel", id="b")
            events = await until_over(found, {"b"})
        assert (events["b"][-1]["type"], events["b"][-1]["reason"]) == ("run_cancelled", "client")
        assert (await sync_to_async(wait_for_trace)("echo")).status == "cancelled"

    async def test_without_a_word_the_execution_is_stopped(self, server: Server) -> None:
        await begin(server, 4, {})
        assert (await sync_to_async(wait_for_trace)("echo")).status == "cancelled"

    @pytest.mark.parametrize("bad", [{"after": -1}, {"after": "1"}, {"after": True}, {"id": 1}, {"token": 1}, {"x": 1}])
    async def test_malformed_ones(self, language_model: Any, start_server: Callable[..., Server], bad: Any) -> None:
        async with socket(start_server(), "echo") as found:
            await send(found, **{"type": "resume", "trace_id": "0" * 32, **bad})
            assert await close_code(found) == 4400


async def test_a_silent_socket_gets_heartbeats(server: Server) -> None:
    async with socket(server, "echo") as found:
        await send(found, type="run", id="a", inputs={"question": "@@delay=1.2@@"})
        kinds = []
        while "run_end" not in kinds:
            message = await receive(found)
            kinds.append(message["type"] if message["type"] == "heartbeat" else message["event"]["type"])
        assert 2 <= kinds.count("heartbeat") <= 5
        for _ in range(2):
            assert await asyncio.wait_for(receive(found), 2) == {"type": "heartbeat"}
    assert await Trace.objects.acount() == 1


async def code_of(found: Any, run_id: str) -> str:
    """The code of the next problem."""
    while (message := await receive(found))["type"] == "heartbeat":
        pass
    assert (message["type"], message["id"]) == ("error", run_id)
    return message["problem"]["code"]
