"""`EventLog`: every reader, from wherever it begins, gets what there is, in order, and no program waits for it."""

from __future__ import annotations

import asyncio
import itertools
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspyserve.events import RUN_END, RUN_START, STATUS, TOKEN, Event
from dspyserve.execution.event_log import EventLog, LogReader, Trimmed

STEPS = st.lists(st.tuples(st.sampled_from(["a", "b", "event"]), st.text(min_size=1, max_size=3)), max_size=60)


def event(seq: int, kind: str = STATUS, **data: Any) -> Event:
    return Event(type=kind, seq=seq, trace_id="t", at=float(seq), data=data)


def filled(steps: list[tuple[str, str]]) -> EventLog:
    """A log of tokens of the fields a and b, and of other events."""
    log = EventLog("t")
    log.append(event(1, RUN_START))
    for seq, (name, text) in enumerate(steps, 2):
        if name == "event":
            log.append(event(seq, message=text))
        else:
            log.token(seq, float(seq), "span", "predict", name, text)
    log.append(event(len(steps) + 2, RUN_END, outputs={}))
    return log


def read(log: EventLog, after: int = 0, limit: int = 7) -> list[Event]:
    """All that follows, in batches."""
    found: list[Event] = []
    while events := log.since(found[-1].seq if found else after, limit):
        found.extend(events)
    return found


class TestReading:
    @given(STEPS, st.integers(0, 70))
    def test_a_reader_that_resumes_gets_the_identical_tail(self, steps: list[tuple[str, str]], after: int) -> None:
        whole = read(filled(steps))
        assert [found.seq for found in whole] == list(range(1, len(steps) + 3))
        assert [found.data.get("delta", found.data.get("message")) for found in whole[1:-1]] == [t for _, t in steps]
        assert read(filled(steps), after) == whole[after:]

    @given(STEPS, st.integers(0, 70))
    def test_a_slow_reader_gets_merged_tokens_that_cover_the_same(
        self, steps: list[tuple[str, str]], after: int
    ) -> None:
        settings = pytest.MonkeyPatch()
        settings.setattr("dspyserve.execution.event_log.settings", lambda: Limits(stream_buffer=0))
        try:
            merged = read(filled(steps), after)
        finally:
            settings.undo()
        covered = [seq for found in merged for seq in range(found.data.get("first_seq", found.seq), found.seq + 1)]
        assert covered == list(range(after + 1, len(steps) + 3))
        for name in "ab":
            expected = "".join(text for kind, text in steps[max(0, after - 1) :] if kind == name)
            assert "".join(found.data["delta"] for found in merged if found.data.get("field") == name) == expected
        neighbours = itertools.pairwise(merged)
        assert not any(
            one.type == two.type == TOKEN and one.data["field"] == two.data["field"] for one, two in neighbours
        )

    def test_inputs_and_outputs_are_not_kept_for_those_who_may_not_see_them(self) -> None:
        log = EventLog("t", payloads=False)
        log.append(event(1, "lm_start", messages=["secret"], model="m"))
        log.append(event(2, RUN_END, outputs={"answer": "a"}))
        assert [found.data for found in read(log)] == [{"model": "m"}, {"outputs": {"answer": "a"}}]


class TestLimits:
    def test_the_oldest_events_are_let_go(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dspyserve.execution.event_log.settings", lambda: Limits(stream_limit=5_000))
        log = EventLog("t")
        sizes = []
        for seq in range(1, 40_001):
            log.token(seq, 0.0, "span", "predict", "a", "text")
            sizes.append(log.size)
        assert [found.seq for found in read(log, 35_000, 256)] == list(range(35_001, 40_001))
        with pytest.raises(Trimmed):
            log.since(20_000)
        assert sizes[-1] < 1.3 * sizes[6_000], "what is let go must not count any more"

    @pytest.mark.parametrize("name", ["a", "b"])
    def test_nobody_reads_across_events_that_are_missing(self, name: str) -> None:
        log = EventLog("t")
        log.append(event(1))
        log.token(2, 0.0, "span", "predict", "a", "x")
        log.token(9, 0.0, "span", "predict", name, "y")
        log.append(event(10, RUN_END, outputs={}))
        for after in (0, 2, 7):
            with pytest.raises(Trimmed):
                log.since(after)
        assert [found.seq for found in log.since(8)] == [9, 10]


class TestWaking:
    async def test_readers_on_several_loops_get_everything_from_several_threads(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("dspyserve.execution.event_log.settings", Limits)
        log, lock = EventLog("t"), threading.Lock()
        count = 4 * 2_000

        def write(number: int) -> None:
            for _ in range(2_000):
                with lock:  # as the recorder's: numbers are given in order
                    seq = log.last_seq + 1
                    log.token(seq, 0.0, f"span{number}", "predict", "a", "x")

        async def follow() -> list[int]:
            reader, found = LogReader(log), list[int]()
            while len(found) < count:
                if events := reader.ready():
                    found.extend(one.seq for one in events)
                else:
                    await asyncio.wait_for(reader.more(), 20)
            return found

        writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        elsewhere: list[list[int]] = []
        other = threading.Thread(target=lambda: elsewhere.append(asyncio.run(follow())))
        readers = [asyncio.create_task(follow()) for _ in range(3)]
        await asyncio.sleep(0)
        for thread in (*writers, other):
            thread.start()
        found = await asyncio.gather(*readers)
        await asyncio.to_thread(other.join, 30)
        assert [*found, *elsewhere] == [list(range(1, count + 1))] * 4

    async def test_a_reader_that_gave_up_waiting_misses_nothing(self) -> None:
        log = EventLog("t")
        reader = LogReader(log)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.more(), 0.01)
        log.append(event(1))
        await asyncio.wait_for(reader.more(), 5)
        assert [found.seq for found in reader.ready()] == [1]


class TestEnds:
    async def test_an_end_is_held_back_until_it_may_be_told(self) -> None:
        log, ended, held = EventLog("t"), [], []
        log.on_end = lambda: ended.append(True)
        log.hold_end(lambda: held.append(log.held_end))
        log.append(event(1))
        log.append(event(2, RUN_END, outputs={}))
        waiting = log.changed(1)
        assert not waiting.done()
        assert not log.is_over
        assert not ended
        assert [one.seq for one in held] == [2]
        assert [found.seq for found in read(log)] == [1]
        log.tell_end()
        await asyncio.wait_for(waiting, 5)
        assert [found.seq for found in read(log)] == [1, 2]
        assert log.is_over
        assert ended == [True]

    async def test_after_a_loss_everybody_gets_an_end_of_its_own(self) -> None:
        log = EventLog("t")
        log.append(event(1))
        beyond = log.changed(7)
        log.break_off(lambda seq: event(seq, "run_error"))
        await asyncio.wait_for(beyond, 5)
        assert log.changed(7).done()
        assert [found.seq for found in log.since(7)] == [8]
        assert [found.seq for after in (0, 1) for found in log.since(after)] == [1, 2]
        assert not log.is_known(1)


class Limits:
    """Settings as far as a log asks for them."""

    def __init__(self, *, stream_buffer: int = 10**9, stream_limit: int = 10**9) -> None:
        self.stream_buffer = stream_buffer
        self.stream_limit = stream_limit
