"""`/ws/programs/<name>` over real servers: the protocol, several executions at once, and every close code."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
from asgiref.sync import sync_to_async
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import User
from django.db import OperationalError
from django.test import Client
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from dspyserve.events import TERMINAL
from dspyserve.models import Trace
from dspyserve.websocket.routing import websocket_urlpatterns
from tests.api.test_run import wait_for_trace
from tests.server import Server


@pytest.fixture(params=["daphne", "uvicorn"])
def server(request: pytest.FixtureRequest, language_model: Any, start_server: Callable[..., Server]) -> Server:
    return start_server(request.param)


@asynccontextmanager
async def socket(server: Server, program: str, **options: Any) -> AsyncIterator[ClientConnection]:
    """A socket of the subprotocol."""
    options.setdefault("max_size", None)
    async with connect(f"{server.websocket_url}/{program}", subprotocols=["dspyserve.v1"], **options) as found:
        yield found


async def send(found: ClientConnection, **message: Any) -> None:
    """Send a message."""
    await found.send(json.dumps(message))


async def receive(found: ClientConnection) -> dict[str, Any]:
    """The next message."""
    message: dict[str, Any] = json.loads(await asyncio.wait_for(found.recv(), 20))
    return message


async def until_over(found: ClientConnection, ids: set[str]) -> dict[str, list[dict[str, Any]]]:
    """The events of the executions `ids`, until each has its terminal one."""
    events: dict[str, list[dict[str, Any]]] = defaultdict(list)
    while ids:
        message = await receive(found)
        if message["type"] == "heartbeat":
            continue
        assert message["type"] == "event", message
        events[message["id"]].append(message["event"])
        if message["event"]["type"] in TERMINAL:
            ids = ids - {message["id"]}
    return events


async def close_code(found: ClientConnection) -> int:
    """What the server closes the socket with."""
    with suppress(ConnectionClosed):
        while True:
            await asyncio.wait_for(found.recv(), 20)
    assert found.close_code is not None
    return found.close_code


class TestProtocol:
    async def test_several_executions_share_a_socket(self, server: Server) -> None:
        async with socket(server, "echo") as found:
            assert found.subprotocol == "dspyserve.v1"
            for number in range(8):
                await send(found, type="run", id=f"r{number}", inputs={"question": f"marker-{number} @@delay=0.2@@"})
            await send(found, type="ping")
            assert (await receive_pong(found)) == {"type": "pong"}
            events = await until_over(found, {f"r{number}" for number in range(8)})
        for number in range(8):
            own = events[f"r{number}"]
            assert own[-1]["type"] == "run_end"
            assert f"marker-{number} " in own[-1]["outputs"]["answer"]
            text = "".join(event["delta"] for event in own if event["type"] == "token")
            assert text == own[-1]["outputs"]["answer"]
            trace = await Trace.objects.aget(pk=own[-1]["trace_id"])
            assert (trace.status, trace.transport) == ("succeeded", "websocket")

    async def test_a_cancel_stops_one_execution(self, server: Server) -> None:
        async with socket(server, "sleeper") as found:
            await send(found, type="run", id="long", inputs={"seconds": 30})
            await send(found, type="run", id="short", inputs={"seconds": 0.2})
            message = await receive(found)
            assert message["event"]["type"] == "run_start"
            await send(found, type="cancel", id="long")
            await send(found, type="cancel", id="nobody")
            events = await until_over(found, {"long", "short"})
        assert (events["long"][-1]["type"], events["long"][-1]["reason"]) == ("run_cancelled", "client")
        assert events["short"][-1]["type"] == "run_end"
        assert (await Trace.objects.aget(pk=events["long"][-1]["trace_id"])).status == "cancelled"

    async def test_a_cancel_that_comes_before_the_execution_began(self, server: Server) -> None:
        async with socket(server, "sleeper") as found:
            await send(found, type="run", id="a", inputs={"seconds": 30})
            await send(found, type="cancel", id="a")
            events = await until_over(found, {"a"})
            assert (events["a"][-1]["type"], events["a"][-1]["reason"]) == ("run_cancelled", "client")
            await send(found, type="run", id="a", inputs={"seconds": 0.1})
            assert (await until_over(found, {"a"}))["a"][-1]["type"] == "run_end", "it was of the other one"

    async def test_leaving_an_execution_is_as_closing_the_socket_is(self, server: Server) -> None:
        async with socket(server, "sleeper") as found:
            for run_id, on_disconnect in {"stops": "cancel", "goes on": "continue"}.items():
                options = {"on_disconnect": on_disconnect, "tags": [run_id]}
                await send(found, type="run", id=run_id, inputs={"seconds": 1}, options=options)
                while (message := await receive(found))["event"]["type"] != "run_start":
                    pass
                await send(found, type="leave", id=run_id)
            await send(found, type="leave", id="nobody")
            await send(found, type="run", id="last", inputs={"seconds": 2})
            told = set()
            while message["id"] != "last" or message["event"]["type"] != "run_end":
                message = await receive(found)
                told.add(message["id"]) if message["event"]["type"].startswith("run_") else None
        assert told == {"last"}
        ends = {tuple(trace.tags): trace.status async for trace in Trace.objects.all()}
        assert ends == {("stops",): "cancelled", ("goes on",): "succeeded", (): "succeeded"}

    async def test_options_and_their_faults(self, server: Server) -> None:
        async with socket(server, "sleeper") as found:
            await send(found, type="run", id="a", inputs={"seconds": 20}, options={"timeout": 0.2, "tags": ["t"]})
            events = await until_over(found, {"a"})
            assert (events["a"][-1]["type"], events["a"][-1]["reason"]) == ("run_cancelled", "deadline")
            trace = await Trace.objects.aget(pk=events["a"][-1]["trace_id"])
            assert (trace.status, trace.tags) == ("timed_out", ["t"])
            await send(found, type="run", id="b", inputs={"seconds": "x"})
            assert problem_of(await receive(found), "b") == ("invalid_input", "/inputs/seconds")
            await send(found, type="run", id="c", inputs={"seconds": 1}, options={"lm": "x"})
            assert problem_of(await receive(found), "c") == ("invalid_input", "/options/lm")

    async def test_an_overloaded_program_is_told_to_the_execution(self, server: Server) -> None:
        async with socket(server, "blocking") as found:
            for number in range(5):
                await send(found, type="run", id=str(number), inputs={"question": "q"}, options={"timeout": 1})
            refused = []
            while len(refused) < 2:
                if (message := await receive(found))["type"] == "error":
                    refused.append(message)
        assert {message["problem"]["code"] for message in refused} == {"overloaded"}
        # Which two: the program is built with the first run, and a later message may find it before an earlier one.
        assert len({message["id"] for message in refused}) == 2

    async def test_a_client_that_leaves_stops_its_executions(self, server: Server) -> None:
        async with socket(server, "sleeper") as found:
            await send(found, type="run", id="a", inputs={"seconds": 30})
            await receive(found)
        trace = await sync_to_async(wait_for_trace)("sleeper")
        assert trace.status == "cancelled"
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{server.url}/api/health/ready")).json()["running"] == 0


class TestCloseCodes:
    @pytest.mark.parametrize(
        ("frame", "code"),
        [
            ("{", 4400),
            ("[]", 4400),
            ('{"type": "dance"}', 4400),
            ('{"type": "run", "inputs": {}}', 4400),
            ('{"type": "run", "id": "", "inputs": {}}', 4400),
            ('{"type": "run", "id": 1, "inputs": {}}', 4400),
            ('{"type": "run", "id": "a", "inputs": {}, "lm": 1}', 4400),
            ('{"type": "cancel"}', 4400),
            (r'{"type": "resume", "trace_id": "\ud800"}', 4400),
            (r'{"type": "resume", "trace_id": "a", "token": "\ud800"}', 4400),
            (b"\x00\x01", 4400),
        ],
    )
    async def test_malformed_messages(self, shared_server: Server, frame: str | bytes, code: int) -> None:
        async with socket(shared_server, "echo") as found:
            await found.send(frame)
            assert await close_code(found) == code
        assert "Traceback" not in shared_server.log

    @pytest.mark.parametrize(("program", "code"), [("nobody", 4404), ("private", 4401), ("restricted", 4401)])
    async def test_programs_that_may_not_be_called(self, shared_server: Server, program: str, code: int) -> None:
        async with socket(shared_server, program) as found:
            # A message that comes before the program is found changes nothing.
            with suppress(ConnectionClosed):
                await send(found, type="run", id="a", inputs={})
            assert await close_code(found) == code

    @pytest.mark.parametrize("text", ["x" * 1_000_000, "\N{PILE OF POO}" * 260_000])
    async def test_a_large_message(self, server: Server, text: str) -> None:
        async with socket(server, "echo") as found:
            with suppress(ConnectionClosed):
                message = {"type": "run", "id": "a", "inputs": {"question": text}}
                await found.send(json.dumps(message, ensure_ascii=False))
            assert await close_code(found) == 4413

    async def test_a_duplicate_id(self, server: Server) -> None:
        async with socket(server, "sleeper") as found:
            await send(found, type="run", id="a", inputs={"seconds": 30})
            await send(found, type="run", id="a", inputs={"seconds": 30})
            assert await close_code(found) == 4409

    async def test_too_many_executions(self, server: Server) -> None:
        async with socket(server, "sleeper") as found:
            for number in range(17):
                await send(found, type="run", id=str(number), inputs={"seconds": 30})
            assert await close_code(found) == 4429

    async def test_no_first_message(self, language_model: Any, start_server: Callable[..., Server]) -> None:
        server = start_server(DSPYSERVE_TESTS_IDLE="0.3")
        async with socket(server, "echo") as found:
            assert await close_code(found) == 4408

    async def test_an_error_of_ours(self, transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> None:
        async def fail(*_: Any) -> None:
            raise OperationalError("the database is away")

        monkeypatch.setattr("dspyserve.websocket.consumer.authorise", fail)
        host = [(b"host", b"testserver")]
        found = WebsocketCommunicator(URLRouter(websocket_urlpatterns), "/ws/programs/echo", headers=host)
        assert (await found.connect())[0]
        closed = await found.receive_output()
        assert (closed["type"], closed["code"]) == ("websocket.close", 4500)


class TestOrigin:
    @pytest.mark.parametrize(
        ("origin", "is_allowed"),
        [
            ("http://evil.example", False),
            ("null", False),
            ("{url}", True),
            (None, True),
            ("http://127.0.0.1:1", False),
        ],
    )
    async def test_a_foreign_page_is_refused(self, shared_server: Server, origin: str | None, is_allowed: bool) -> None:
        own = origin.format(url=shared_server.url) if origin else None
        async with socket(shared_server, "echo", origin=own) as found:
            if is_allowed:
                await send(found, type="ping")
                assert await receive(found) == {"type": "pong"}
            else:
                assert await close_code(found) == 4403

    async def test_one_that_is_no_address_is_refused(
        self, language_model: Any, start_server: Callable[..., Server]
    ) -> None:
        server = start_server("uvicorn")  # Daphne refuses it itself
        async with socket(server, "echo", origin="http://[") as found:
            assert await close_code(found) == 4403
        assert "Traceback" not in server.log

    async def test_a_session_opens_what_it_may(self, server: Server) -> None:
        user_id, cookies = await sync_to_async(session)()
        async with socket(server, "private", origin=server.url, additional_headers=cookies) as found:
            await send(found, type="run", id="a", inputs={"question": "q"})
            events = await until_over(found, {"a"})
            trace = await Trace.objects.aget(pk=events["a"][-1]["trace_id"])
            assert trace.user_id == user_id
        async with socket(server, "restricted", origin=server.url, additional_headers=cookies) as found:
            assert await close_code(found) == 4403
        async with socket(server, "private", origin="http://evil.example", additional_headers=cookies) as found:
            assert await close_code(found) == 4403


@pytest.fixture
def shared_server(language_model: Any, start_server: Callable[..., Server]) -> Server:
    return start_server()


def session() -> tuple[int, dict[str, str]]:
    """A user without permissions, and the header of a session of theirs."""
    user = User.objects.create_user("ann", password="x")
    client = Client()
    client.force_login(user)
    return user.pk, {"Cookie": f"sessionid={client.cookies['sessionid'].value}"}


async def receive_pong(found: ClientConnection) -> dict[str, Any]:
    """The next message that is no event."""
    while (message := await receive(found))["type"] == "event":
        assert message["event"]["type"] not in TERMINAL, "the pong had to wait for an execution"
    return message


def problem_of(message: dict[str, Any], run_id: str) -> tuple[str, str]:
    """Code and first pointer of the problem of an execution."""
    assert (message["type"], message["id"]) == ("error", run_id)
    return message["problem"]["code"], message["problem"]["errors"][0]["pointer"]
