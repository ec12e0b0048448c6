"""No answered execution without its trace: SIGKILL under load, SIGTERM, and a database that is locked or away."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import httpx
import pytest
from django.db import connection, transaction
from httpx_sse import connect_sse
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from dspyserve.conf import settings
from dspyserve.events import TERMINAL
from dspyserve.models import Program, Trace, TraceRollup
from dspyserve.tracing.compaction import added_up
from tests.event_streams import sent_events
from tests.server import Server
from tests.tracing.test_tally import recounted

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("DSPYSERVE_TESTS_KILLS", "8"))
CONNECTIONS = 16


@pytest.fixture
def server(language_model: Any, start_server: Callable[..., Server], request: pytest.FixtureRequest) -> Server:
    return start_server(getattr(request, "param", "daphne"))


class Load:
    """Calls to `echo` over many connections, until it is stopped; what each was answered."""

    def __init__(self, server: Server) -> None:
        self.bodies: list[dict[str, Any]] = []
        self._server = server
        self._is_over = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()

    def stop(self) -> list[dict[str, Any]]:
        """End the load and give the answers."""
        self._is_over = True
        self._thread.join(60)
        return self.bodies

    @property
    def ids(self) -> set[str]:
        """The trace ids of all answers."""
        return {body["trace_id"] for body in self.bodies}

    async def _run(self) -> None:
        async with httpx.AsyncClient(base_url=self._server.url, timeout=30) as client:
            await asyncio.gather(*(self._call(client) for _ in range(CONNECTIONS)))

    async def _call(self, client: httpx.AsyncClient) -> None:
        while not self._is_over:
            try:
                response = await client.post("/api/programs/echo", json={"inputs": {"question": "@@delay=0.01@@"}})
            except httpx.HTTPError:
                # The server was killed.
                await asyncio.sleep(0.02)
                continue
            assert response.status_code == 200, response.text
            self.bodies.append(response.json())


class TestKill:
    @pytest.mark.timeout(600)
    def test_every_trace_that_was_answered_is_there(
        self, language_model: Any, start_server: Callable[..., Server], capsys: pytest.CaptureFixture[str]
    ) -> None:
        answered: set[str] = set()
        for _ in range(KILLS):
            server = start_server()
            load = Load(server)
            wait_until(lambda load=load: len(load.bodies) >= 40)
            server.kill()
            load.stop()
            assert all(body["trace_stored"] for body in load.bodies)
            answered |= load.ids
        assert len(answered) >= KILLS * 40
        stored = {trace_id.hex for trace_id in Trace.objects.values_list("id", flat=True)}
        with capsys.disabled():
            print(f"\n{len(answered)} answers over {KILLS} kills, {len(answered - stored)} of them without a trace")
        assert answered <= stored
        assert_counted_once()


class TestTerminate:
    @pytest.fixture
    def server(
        self, language_model: Any, start_server: Callable[..., Server], request: pytest.FixtureRequest
    ) -> Server:
        # Started as in production: this is about the way to the very end of such a process.
        return start_server(getattr(request, "param", "daphne"), is_forked=False)

    @pytest.mark.parametrize("server", ["daphne", "uvicorn"], indirect=True)
    def test_executions_under_way_finish(self, server: Server) -> None:
        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(server.run, "echo", question="@@delay=1.5@@") for _ in range(4)]
            answers += [pool.submit(server.run, "threaded", question="@@delay=0.7@@") for _ in range(4)]
            wait_for_runs(server, 8)
            server.terminate()
            bodies = [answer.result() for answer in answers]
        assert [body.status_code for body in bodies] == [200] * 8
        assert {body.json()["trace_id"] for body in bodies} == stored_ids("succeeded")

    @pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
    def test_what_takes_too_long_ends_as_shutdown_and_streams_say_so(
        self, language_model: Any, start_server: Callable[..., Server], kind: str
    ) -> None:
        Program.objects.filter(name="sleeper").update(timeout=60)
        server = start_server(kind, is_forked=False, DSPYSERVE_TESTS_GRACE="1")
        with ThreadPoolExecutor(8) as pool:
            rest = [pool.submit(server.run, "sleeper", seconds=50) for _ in range(2)]
            sse = [pool.submit(read_sse, server) for _ in range(2)]
            sockets = [pool.submit(read_socket, server) for _ in range(2)]
            wait_for_runs(server, 6)
            server.terminate()
            problems = [answer.result().json() for answer in rest]
            streams = [stream.result() for stream in sse]
            told = [socket.result() for socket in sockets]
        assert [problem["code"] for problem in problems] == ["cancelled", "cancelled"]
        for events in streams:
            assert [event["type"] for event in events].count("run_cancelled") == 1
            assert (events[-1]["type"], events[-1]["reason"]) == ("run_cancelled", "shutdown")
        if kind == "daphne":
            # Uvicorn itself closes all sockets at once, with the code 1012.
            assert [events[-1].get("reason") for events in told] == ["shutdown", "shutdown"]
        assert len(stored_ids("cancelled")) == 6
        assert not list(settings().spool_directory.glob("*"))

    def test_an_idle_socket_is_told(self, server: Server) -> None:
        with connect(f"{server.websocket_url}/echo", subprotocols=["dspyserve.v1"]) as socket:  # type: ignore[list-item]
            socket.send('{"type": "ping"}')
            socket.recv()
            server.terminate()
            with pytest.raises(ConnectionClosed, match="4503"):
                socket.recv(timeout=20)


class TestDatabase:
    @pytest.mark.parametrize("trouble", ["locked", "away"])
    def test_answers_go_on_and_every_trace_is_there_afterwards(
        self, server: Server, trouble: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        load = Load(server)
        wait_until(lambda: len(load.bodies) >= 50)
        with locked() if trouble == "locked" else table_away():
            before = len(load.bodies)
            time.sleep(5)
            during = load.bodies[before:]
        wait_until(lambda: load.bodies[-1]["trace_stored"], timeout=40)
        bodies = load.stop()
        unstored = {body["trace_id"] for body in bodies if not body["trace_stored"]}
        with capsys.disabled():
            print(f"\n{trouble}: {len(during)} answers in 5 s, {len(unstored)} before their traces were stored")
        assert len(during) >= CONNECTIONS
        assert unstored
        wait_until(lambda: load.ids <= stored_ids("succeeded"), timeout=40)
        assert_counted_once()

    def test_what_is_left_at_shutdown_is_stored_at_the_next_start(
        self, language_model: Any, start_server: Callable[..., Server]
    ) -> None:
        first = start_server()
        assert first.run("echo", question="q").json()["trace_stored"] is True
        with table_away():
            bodies = [first.run("echo", question="q").json() for _ in range(5)]
            assert not any(body["trace_stored"] for body in bodies)
            first.terminate()
            assert list(settings().spool_directory.glob("*.traces.jsonl"))
        start_server("uvicorn")
        wanted = {body["trace_id"] for body in bodies}
        wait_until(lambda: wanted <= stored_ids("succeeded"))
        wait_until(lambda: not list(settings().spool_directory.glob("*")))
        assert_counted_once()


def assert_counted_once() -> None:
    """The rollups of all writers together tell of every trace that is stored, and of no other."""
    with transaction.atomic():
        found, wanted = added_up(TraceRollup.objects.all()), recounted()
    assert found.keys() == wanted.keys()
    for key, figures in found.items():
        assert replace(figures, cost=0.0) == replace(wanted[key], cost=0.0)
        assert figures.cost == pytest.approx(wanted[key].cost)


def stored_ids(status: str) -> set[str]:
    """The ids of all traces of this status."""
    return {found.hex for found in Trace.objects.filter(status=status).values_list("id", flat=True)}


def read_sse(server: Server) -> list[dict[str, Any]]:
    """A whole stream of `sleeper`."""
    body = {"inputs": {"seconds": 50}}
    with (
        httpx.Client(timeout=60) as client,
        connect_sse(client, "POST", f"{server.url}/api/programs/sleeper/stream", json=body) as source,
    ):
        return [frame.json() for frame in sent_events(source)]


def read_socket(server: Server) -> list[dict[str, Any]]:
    """The events of `sleeper`, as far as the socket tells them."""
    events: list[dict[str, Any]] = []
    with connect(f"{server.websocket_url}/sleeper", subprotocols=["dspyserve.v1"]) as socket:  # type: ignore[list-item]
        socket.send(json.dumps({"type": "run", "id": "a", "inputs": {"seconds": 50}}))
        with suppress(ConnectionClosed):
            while not events or events[-1]["type"] not in TERMINAL:
                events.append(json.loads(socket.recv(timeout=30))["event"])
    return events


def wait_for_runs(server: Server, count: int) -> None:
    """Wait until so many executions are under way."""
    wait_until(lambda: httpx.get(f"{server.url}/api/health/ready").json()["running"] == count)


@contextmanager
def locked() -> Iterator[None]:
    """Nobody else can write traces: a lock of the table, or of the whole of SQLite."""
    stop, begun = threading.Event(), Future[None]()

    def hold() -> None:
        with connection.cursor() as cursor:
            cursor.execute("BEGIN IMMEDIATE" if connection.vendor == "sqlite" else "BEGIN")
            if connection.vendor != "sqlite":
                cursor.execute("LOCK TABLE dspyserve_trace IN ACCESS EXCLUSIVE MODE")
            begun.set_result(None)
            stop.wait(60)
            cursor.execute("ROLLBACK")
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    begun.result(20)
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def table_away() -> Iterator[None]:
    """As if the database were away: the table has another name."""
    rename("dspyserve_trace", "dspyserve_trace_away")
    try:
        yield
    finally:
        rename("dspyserve_trace_away", "dspyserve_trace")


def rename(old: str, new: str) -> None:
    """Rename a table; on SQLite without renaming it in the references of others."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("PRAGMA legacy_alter_table=ON")
        cursor.execute(f"ALTER TABLE {old} RENAME TO {new}")
        if connection.vendor == "sqlite":
            cursor.execute("PRAGMA legacy_alter_table=OFF")


def wait_until(condition: Callable[[], Any], timeout: float = 30) -> None:
    """Wait for another process."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)
