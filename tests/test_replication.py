"""Streams in Redis: read on from another process, also when the first one is gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import pytest
from asgiref.sync import sync_to_async
from httpx_sse import connect_sse
from hypothesis import given
from hypothesis import strategies as st
from redis.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError
from websockets.exceptions import ConnectionClosed

from dspyserve.conf import settings
from dspyserve.events import RUN_ERROR, STATUS, TERMINAL, TOKEN, Event
from dspyserve.execution.event_log import EventLog
from dspyserve.models import Trace
from dspyserve.runs.replication import store
from dspyserve.runs.replication.follower import Follower
from dspyserve.runs.replication.publisher import Publisher
from dspyserve.runs.stream import StreamSource
from tests.api.test_resume import resume
from tests.api.test_run import wait_for_trace
from tests.api.test_stream import check
from tests.event_streams import sent_events
from tests.server import Server
from tests.websocket.test_consumer import receive, send, socket, until_over

EVENTS = st.lists(
    st.tuples(st.sampled_from(["status", "a", "b"]), st.text(st.characters(codec="utf-8"), min_size=1, max_size=4)),
    min_size=1,
    max_size=40,
)


@given(EVENTS)
def test_what_is_packed_is_unpacked(steps: list[tuple[str, str]]) -> None:
    events = [
        Event(type=STATUS, seq=seq, trace_id="t", at=seq / 3, span_id="s", parent_id="p", data={"message": text})
        if name == "status"
        else Event(
            type=TOKEN,
            seq=seq,
            trace_id="t",
            at=seq / 7,
            span_id="s",
            data={"predictor": "x", "field": name, "delta": text},
        )
        for seq, (name, text) in enumerate(steps, 1)
    ]
    assert store.unpack(store.pack(events)) == events


@contextmanager
def stream(server: Server, question: str, **body: Any) -> Iterator[tuple[str, Iterator[dict[str, Any]]]]:
    """A stream of `echo`: the token that its caller needs, and the events."""
    inputs = {"inputs": {"question": question}, **body}
    with (
        httpx.Client(timeout=30) as client,
        connect_sse(client, "POST", f"{server.url}/api/programs/echo/stream", json=inputs) as source,
    ):
        yield source.response.headers["X-Trace-Id"], (frame.json() for frame in sent_events(source))


SLOW = "@@words=80@@ @@token_delay=0.02@@"
CONTINUE = {"on_disconnect": "continue"}


@pytest.mark.redis
@pytest.mark.slow
class TestOtherProcesses:
    @pytest.fixture
    def servers(self, language_model: Any, start_server: Callable[..., Server]) -> tuple[Server, Server]:
        return start_server("uvicorn"), start_server("daphne")

    def test_a_stream_is_read_on_elsewhere(self, servers: tuple[Server, Server]) -> None:
        one, other = servers
        with stream(one, SLOW, **CONTINUE) as (trace_id, events):
            head = [next(events) for _ in range(9)]
        token = {"X-Resume-Token": head[0]["resume_token"]}
        tail = resume(other, trace_id, 9, **token)
        assert list(check(head + tail).values()) == [tail[-1]["outputs"]["answer"]]
        assert resume(one, trace_id, 9, **token) == tail
        assert resume(other, trace_id, None, **token) == head + tail
        address = f"{other.url}/api/streams/{trace_id}"
        assert httpx.get(address).status_code == 404, "only the owner may"
        assert httpx.get(address, headers={**token, "Last-Event-ID": str(tail[-1]["seq"])}).status_code == 204
        assert httpx.get(f"{other.url}/api/streams/{'0' * 32}").status_code == 404
        assert httpx.get(f"{other.url}/api/streams/nobody").status_code == 404

    def test_a_cancel_reaches_the_process_that_executes(self, servers: tuple[Server, Server]) -> None:
        one, other = servers
        with stream(one, "@@hang=1@@", **CONTINUE) as (trace_id, events):
            token = {"X-Resume-Token": next(events)["resume_token"]}
            assert httpx.delete(f"{other.url}/api/streams/{trace_id}", headers=token).status_code == 202
            last = list(events)[-1]
        assert (last["type"], last["reason"]) == ("run_cancelled", "client")
        assert resume(other, trace_id, None, **token)[-1] == last

    def test_a_process_that_is_killed_leaves_one_end(self, servers: tuple[Server, Server]) -> None:
        one, other = servers
        with stream(one, SLOW, **CONTINUE) as (trace_id, events):
            head = [next(events) for _ in range(20)]
            one.kill()
        token = {"X-Resume-Token": head[0]["resume_token"]}
        first = resume(other, trace_id, 5, **token)
        assert first[: 15 - 3] == head[5 : 20 - 3], "what was published is read on"
        assert [event["type"] in TERMINAL for event in first] == [False] * (len(first) - 1) + [True]
        assert (first[-1]["type"], first[-1]["problem"]["code"]) == (RUN_ERROR, "execution_lost")
        assert first[-1]["trace_stored"] is False
        # Who read more than was published gets an end all the same.
        beyond = resume(other, trace_id, 500, **token)
        assert [(event["seq"], event["problem"]["code"]) for event in beyond] == [(501, "execution_lost")]

    @pytest.mark.parametrize("transport", ["sse", "websocket"])
    async def test_who_waits_for_what_was_not_published_is_told_of_the_loss(
        self, servers: tuple[Server, Server], transport: str
    ) -> None:
        one, other = servers
        with stream(one, SLOW, **CONTINUE) as (trace_id, events):
            token = next(events)["resume_token"]
            [next(events) for _ in range(10)]
            one.kill()
        # Before anybody can know of the loss, for the lease still runs.
        if transport == "sse":
            [end] = await sync_to_async(resume)(other, trace_id, 500, **{"X-Resume-Token": token})
        else:
            async with socket(other, "echo") as found:
                await send(found, type="resume", id="b", trace_id=trace_id, after=500, token=token)
                [end] = (await until_over(found, {"b"}))["b"]
        assert (end["seq"], end["problem"]["code"]) == (501, "execution_lost")

    def test_at_shutdown_an_execution_finishes_for_those_who_read_on(self, servers: tuple[Server, Server]) -> None:
        one, other = servers
        with stream(one, SLOW) as (trace_id, events):
            head = [next(events) for _ in range(9)]
            one.process.terminate()
            time.sleep(0.3)
        token = {"X-Resume-Token": head[0]["resume_token"]}
        tail = resume(other, trace_id, 9, **token)
        assert tail[-1]["type"] == "run_end"
        check(head + tail)
        assert wait_for_trace("echo").status == Trace.Status.SUCCEEDED
        assert one.process.wait(30) is not None


@pytest.mark.redis
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
async def test_a_socket_that_is_sent_away_at_shutdown_reads_on_elsewhere(
    language_model: Any, start_server: Callable[..., Server], kind: str
) -> None:
    one, other = [await sync_to_async(start_server)(name) for name in (kind, "uvicorn")]
    async with socket(one, "echo") as found:
        await send(found, type="run", id="a", inputs={"question": SLOW})
        events = [(await receive(found))["event"] for _ in range(9)]
        one.process.terminate()
        with suppress(ConnectionClosed):
            while True:
                events.append((await receive(found))["event"])
    assert found.close_code in (4503, 1012), "going away"
    if events[-1]["type"] not in TERMINAL:  # Daphne lets sockets stay until their executions ended
        async with socket(other, "echo") as found:
            after, token = events[-1]["seq"], events[0]["resume_token"]
            await send(found, type="resume", id="b", trace_id=events[0]["trace_id"], after=after, token=token)
            events += (await until_over(found, {"b"}))["b"]
    check(events)
    assert events[-1]["type"] == "run_end"
    assert (await sync_to_async(wait_for_trace)("echo")).status == Trace.Status.SUCCEEDED


@pytest.mark.redis
class TestOneProcess:
    """A publisher and a follower, as two processes have them."""

    @pytest.fixture
    def publisher(self) -> Iterator[Publisher]:
        publisher = Publisher()
        yield publisher
        publisher.close()

    def source(self, trace_id: str) -> StreamSource:
        return StreamSource(EventLog(trace_id), owner="key:1", on_disconnect="continue", stop=lambda reason: None)

    def follow(self, follower: Follower, trace_id: str, last: int) -> list[Event]:
        """The events of the replica, when the last is there."""
        replica = wait(lambda: follower.find(trace_id))
        wait(lambda: replica.log.last_seq >= last)
        return replica.log.since(0, 10**6, exact=True)

    def test_many_streams_at_once(self, publisher: Publisher) -> None:
        sources = [self.source(f"{number:032x}") for number in range(1, 41)]
        follower = Follower()
        for source in sources:
            publisher.add(source)
            source.log.token(1, 1.0, "s", "p", "a", "first")
        replicas = [wait(lambda source=source: follower.find(source.log.trace_id)) for source in sources]
        for seq in range(2, 200):
            for source in sources:
                source.log.token(seq, float(seq), "s", "p", "a", f"{seq} ")
        for source, replica in zip(sources, replicas, strict=True):
            wait(lambda replica=replica: replica.log.last_seq == 199)
            assert replica.log.since(0, 10**6, exact=True) == source.log.since(0, 10**6, exact=True)

    def test_redis_that_is_away_loses_nothing(self, publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
        source, client = self.source("a" * 32), may_be_away(monkeypatch)
        publisher.add(source)
        source.log.token(1, 0.0, "s", "p", "a", "x")
        wait(lambda: client.exists(store.stream_key("a" * 32)))
        Away.is_away = True
        for seq in range(2, 3_001):
            source.log.token(seq, 0.0, "s", "p", "a", "x")
        time.sleep(0.2)
        Away.is_away = False
        follower = Follower()
        assert [event.seq for event in self.follow(follower, "a" * 32, 3_000)] == list(range(1, 3_001))

    def test_an_answer_of_redis_that_is_lost_repeats_nothing(
        self, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        losses = [1]
        execute = Pipeline.execute

        def lossy(pipeline: Any, *given: Any) -> Any:
            found = execute(pipeline, *given)
            if losses and 1 in found:  # something was appended
                losses.pop()
                raise RedisConnectionError("the answer is lost")
            return found

        monkeypatch.setattr(Pipeline, "execute", lossy)
        source = self.source("e" * 32)
        publisher.add(source)
        for seq in range(1, 11):
            source.log.token(seq, 0.0, "s", "p", "a", "x")
        wait(lambda: not losses)
        for seq in range(11, 21):
            source.log.token(seq, 0.0, "s", "p", "a", "y")
        found = self.follow(Follower(), "e" * 32, 20)
        assert [event.seq for event in found] == list(range(1, 21))

    def test_a_process_that_only_slept_publishes_no_more(self, publisher: Publisher, transactional_db: None) -> None:
        source = self.source("b" * 32)
        publisher.add(source)
        source.log.token(1, 0.0, "s", "p", "a", "x")
        follower = Follower()
        assert len(self.follow(follower, "b" * 32, 1)) == 1
        client = store.connection(settings().redis_url)
        client.delete(store.lease_key(publisher.process))
        replica = Follower().find("b" * 32)
        assert replica is not None
        assert [event.data["problem"]["code"] for event in replica.log.since(1)] == ["execution_lost"]
        source.log.token(2, 0.0, "s", "p", "a", "y")
        wait(lambda: source.log.on_change is None)
        assert len(client.xrange(store.stream_key("b" * 32))) == 1

    def test_a_stream_that_never_told_anything_expires(self, publisher: Publisher) -> None:
        publisher.add(self.source("b" * 32)).result(10)
        client = store.connection(settings().redis_url)
        assert 0 < client.ttl(store.about_key("b" * 32)) <= settings().stream_resume + settings().max_timeout

    def test_an_end_is_told_after_it_was_published(self, publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
        """Or a process that is killed in between leaves some readers with an end, and others with a loss."""
        client, source = store.connection(settings().redis_url), self.source("a" * 32)
        told_at_publication = []
        execute = Pipeline.execute

        def watched(pipeline: Any, *given: Any) -> Any:
            told_at_publication.append(source.log.is_over or bool(source.log.since(2)))
            return execute(pipeline, *given)

        publisher.add(source)
        source.log.token(1, 0.0, "s", "p", "a", "x")
        source.log.token(2, 0.0, "s", "p", "a", "y")
        wait(lambda: client.exists(store.stream_key("a" * 32)))
        monkeypatch.setattr(Pipeline, "execute", watched)
        source.log.append(Event(type="run_end", seq=3, trace_id="a" * 32, at=0.0))
        wait(lambda: source.log.is_over)
        assert told_at_publication[0] is False
        assert [event.seq for event in self.follow(Follower(), "a" * 32, 3)] == [1, 2, 3]
        assert [event.seq for event in source.log.since(0)] == [1, 2, 3]

    @pytest.mark.parametrize("how", ["away", "closed", "lost"])
    def test_an_end_that_cannot_be_published_is_told(
        self, publisher: Publisher, monkeypatch: pytest.MonkeyPatch, how: str
    ) -> None:
        source, client = self.source("f" * 32), may_be_away(monkeypatch)
        publisher.add(source)
        source.log.token(1, 0.0, "s", "p", "a", "x")
        wait(lambda: client.exists(store.stream_key("f" * 32)))
        if how == "lost":
            client.hset(store.about_key("f" * 32), "lost", 1)
        elif how == "closed":
            publisher.close()
        Away.is_away = how == "away"
        source.log.append(Event(type="run_end", seq=2, trace_id="f" * 32, at=0.0))
        wait(lambda: source.log.is_over)
        Away.is_away = False

    def test_what_is_published_expires(self, publisher: Publisher) -> None:
        source = self.source("c" * 32)
        publisher.add(source)
        client = store.connection(settings().redis_url)
        keys = (store.stream_key("c" * 32), store.about_key("c" * 32))
        source.log.token(1, 0.0, "s", "p", "a", "x")
        wait(lambda: all(client.ttl(key) > 600 for key in keys))
        source.log.append(Event(type="run_end", seq=2, trace_id="c" * 32, at=0.0))
        wait(lambda: all(0 < client.ttl(key) <= 300 for key in keys))
        wait(lambda: source.log.on_change is None)

    def test_replicas_go_with_their_readers(self, publisher: Publisher) -> None:
        source = self.source("d" * 32)
        publisher.add(source)
        source.log.token(1, 0.0, "s", "p", "a", "x")
        follower = Follower()
        wait(lambda: follower.find("d" * 32)) and None
        wait(lambda: not len(follower._replicas) and follower._thread is None)

    @pytest.fixture(autouse=True)
    def _nothing_left(self) -> Iterator[None]:
        client = store.connection(settings().redis_url)
        client.flushdb()
        yield
        client.flushdb()


class Away:
    """A client of Redis that is away for some time."""

    is_away = False

    def __init__(self, client: Any, broken: Any) -> None:
        self._client, self._broken = client, broken

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broken if Away.is_away else self._client, name)


def may_be_away(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The client of Redis; what everybody else gets is away while `Away.is_away`."""
    client = store.connection(settings().redis_url)
    broken = type(client)(host="127.0.0.1", port=1)
    monkeypatch.setattr(store, "connection", lambda url: Away(client, broken))
    Away.is_away = False
    return client


def wait(found: Callable[[], Any], timeout: float = 15) -> Any:
    """What `found` gives, as soon as it gives something."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if result := found():
            return result
        time.sleep(0.02)
    raise AssertionError("it did not come")
