"""The group commit: together, in time, without loss, whatever the database does."""

from __future__ import annotations

import asyncio
import datetime
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone

from dspyserve.models import Span, SpanPayload, Trace, TraceRollup
from dspyserve.tracing import spool, store
from dspyserve.tracing import writer as writing
from dspyserve.tracing.columns import Columns
from dspyserve.tracing.rows import TraceRows
from dspyserve.tracing.writer import TraceWriter

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def writer(settings: Any, tmp_path: Path) -> Iterator[TraceWriter]:
    settings.DSPYSERVE = {**settings.DSPYSERVE, "TRACE_SPOOL": str(tmp_path), "TRACE_COMMIT_TIMEOUT": 5.0}
    made = TraceWriter()
    yield made
    made.close()


def rows(**values: Any) -> TraceRows:
    """The rows of a small trace."""
    now = timezone.now()
    trace = {
        "id": uuid.uuid4().hex,
        "program_name": "p",
        "status": "succeeded",
        "transport": "python",
        "started_at": now,
    }
    span = {"sequence": 1, "span_id": "a" * 16, "kind": "run", "name": "p", "started_at": now}
    return TraceRows({**trace, **values}, [span], [{"inputs": {"a": 1}}], size=1000)


class Database:
    """Stands before `store.insert`: counts its calls, and can hold them up or fail them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[int] = []
        self.is_away = False
        self.open = threading.Event()
        self.open.set()
        self._insert = store.insert
        monkeypatch.setattr(store, "insert", self)

    def __call__(self, batch: Any, *tally: Any) -> None:
        self.open.wait(20)
        if self.is_away:
            raise OperationalError("away")
        self._insert(batch, *tally)
        self.batches.append(len(batch))


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    return Database(monkeypatch)


class TestCommit:
    def test_is_told_when_all_rows_are_there(self, writer: TraceWriter) -> None:
        given = rows()
        assert writer.store(given) is True
        trace = Trace.objects.get(pk=given.trace["id"])
        assert SpanPayload.objects.get(span__trace=trace).inputs == {"a": 1}

    async def test_traces_that_wait_are_committed_together(self, writer: TraceWriter, database: Database) -> None:
        database.open.clear()
        tasks = [asyncio.create_task(writer.astore(rows())) for _ in range(50)]
        while writer.pending < 50:
            await asyncio.sleep(0.01)
        database.open.set()
        assert await asyncio.gather(*tasks) == [True] * 50
        assert len(database.batches) <= 2
        assert sum(database.batches) == 50

    def test_where_many_come_at_a_time_the_next_ones_gather(
        self, writer: TraceWriter, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gathering, is_over = threading.Event(), threading.Event()
        is_over.set()

        def sleep(_: float) -> None:
            gathering.set()
            is_over.wait(20)

        def hand_over(number: int) -> None:
            for _ in range(number):
                threading.Thread(target=writer.store, args=(rows(),)).start()

        monkeypatch.setattr(writing, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
        for _ in range(6):
            assert writer.store(rows())
        assert not gathering.is_set()
        database.open.clear()
        hand_over(1)
        wait_until(lambda: writer.pending and not writer._queue)
        hand_over(5)
        wait_until(lambda: writer.pending == 6)
        database.open.set()
        wait_until(lambda: not writer.pending)
        gathering.clear()
        is_over.clear()
        hand_over(1)
        assert gathering.wait(20)
        hand_over(3)
        wait_until(lambda: writer.pending == 4)
        is_over.set()
        wait_until(lambda: not writer.pending)
        assert database.batches[-1] == 4

    async def test_an_event_loop_is_woken_once_for_all_that_were_committed_together(
        self, writer: TraceWriter, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        database.open.clear()
        tasks = [asyncio.create_task(writer.astore(rows())) for _ in range(50)]
        while writer.pending < 50:
            await asyncio.sleep(0.01)
        loop, woken = asyncio.get_running_loop(), []
        call = loop.call_soon_threadsafe

        def count(*args: Any, **options: Any) -> Any:
            woken.append(args)
            return call(*args, **options)

        monkeypatch.setattr(loop, "call_soon_threadsafe", count)
        database.open.set()
        assert await asyncio.gather(*tasks) == [True] * 50
        assert len(woken) == len(database.batches) <= 2

    async def test_a_loop_that_was_blocked_is_told_what_came_true_meanwhile(
        self, writer: TraceWriter, database: Database, settings: Any
    ) -> None:
        settings.DSPYSERVE = {**settings.DSPYSERVE, "TRACE_COMMIT_TIMEOUT": 0.5}
        database.open.clear()
        task = asyncio.create_task(writer.astore(rows()))
        await asyncio.sleep(0.05)
        database.open.set()
        wait_until(lambda: not writer.pending)
        time.sleep(0.6)
        assert await task is True

    async def test_who_waits_no_more_holds_up_nobody(self, writer: TraceWriter, database: Database) -> None:
        database.open.clear()
        gone, other = (asyncio.create_task(writer.astore(rows())) for _ in range(2))
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.sleep(0.05)
        database.open.set()
        assert await other is True
        assert gone.cancelled()
        assert await asyncio.to_thread(writer.flush, 10)
        assert await Trace.objects.acount() == 2

    def test_an_event_loop_that_is_closed_holds_up_nobody(self, writer: TraceWriter, database: Database) -> None:
        database.open.clear()

        async def leave() -> None:
            task = asyncio.create_task(writer.astore(rows()))
            await asyncio.sleep(0.05)
            task.cancel()

        asyncio.run(leave())
        database.open.set()
        assert writer.store(rows()) is True
        assert Trace.objects.count() == 2

    def test_one_bad_record_does_not_hold_up_the_others(
        self, writer: TraceWriter, database: Database, tmp_path: Path
    ) -> None:
        database.open.clear()
        given = [rows(), rows(status=None), rows()]
        results: list[tuple[int, bool]] = []
        threads = [threading.Thread(target=lambda n=n: results.append((n, writer.store(given[n])))) for n in range(3)]
        for thread in threads:
            thread.start()
        database.open.set()
        for thread in threads:
            thread.join()
        assert dict(results) == {0: True, 1: False, 2: True}
        assert Trace.objects.count() == 2
        (refused,) = tmp_path.glob(spool.REFUSED)
        assert given[1].trace["id"] in refused.read_text()

    def test_an_answer_that_was_lost_stores_nothing_twice(self, writer: TraceWriter) -> None:
        given = rows()
        assert writer.store(given) is True
        assert writer.store(given) is True
        assert (Trace.objects.count(), Span.objects.count()) == (1, 1)


class TestPreparing:
    @pytest.mark.parametrize(("size", "is_here"), [(1_000, True), (10**6, False)])
    def test_small_traces_are_made_ready_where_they_were_made(
        self, writer: TraceWriter, size: int, is_here: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        adapted, known = [], Columns.adapted

        def adapt(columns: Columns, row: Any) -> list[Any]:
            if columns.model is not TraceRollup:
                adapted.append(threading.current_thread() is threading.main_thread())
            return known(columns, row)

        monkeypatch.setattr(Columns, "adapted", adapt)
        given = rows()
        given.size = size
        assert writer.store(given) is True
        assert adapted
        assert set(adapted) == {is_here}
        assert (Trace.objects.count(), Span.objects.count()) == (1, 1)

    def test_a_trace_whose_id_is_taken_is_made_ready_anew(self, writer: TraceWriter) -> None:
        first = rows()
        second = rows(id=first.trace["id"], started_at=first.trace["started_at"] + datetime.timedelta(seconds=1))
        assert [writer.store(first), writer.store(second)] == [True, True]
        linked = Trace.objects.exclude(pk=first.trace["id"]).get()
        assert linked.linked_trace_id == first.trace["id"]
        assert linked.spans.count() == 1

    def test_what_is_made_ready_does_not_go_to_disk(self) -> None:
        given = rows()
        store.prepare(given)
        assert given.prepared is not None
        assert "prepared" not in given.as_dict()
        assert TraceRows.from_dict(given.as_dict()) == given


class TestDatabaseAway:
    def test_nobody_waits_and_all_is_stored_when_it_is_back(self, writer: TraceWriter, database: Database) -> None:
        database.is_away = True
        assert [writer.store(rows()) for _ in range(20)] == [False] * 20
        assert writer.is_away
        assert Trace.objects.count() == 0
        database.is_away = False
        assert writer.flush(10)
        assert Trace.objects.count() == 20
        assert writer.store(rows()) is True

    def test_one_that_hangs_is_waited_for_no_longer_than_the_limit(
        self, writer: TraceWriter, database: Database, settings: Any
    ) -> None:
        settings.DSPYSERVE = {**settings.DSPYSERVE, "TRACE_COMMIT_TIMEOUT": 0.1}
        database.open.clear()
        assert writer.store(rows()) is False
        database.open.set()
        assert writer.flush(10)
        assert Trace.objects.count() == 1

    async def test_a_coroutine_waits_no_longer_either(
        self, writer: TraceWriter, database: Database, settings: Any
    ) -> None:
        settings.DSPYSERVE = {**settings.DSPYSERVE, "TRACE_COMMIT_TIMEOUT": 0.1}
        database.open.clear()
        assert await writer.astore(rows()) is False
        database.open.set()
        assert await asyncio.to_thread(writer.flush, 10)
        assert await Trace.objects.acount() == 1

    def test_memory_is_bounded_and_the_rest_waits_on_disk(
        self, writer: TraceWriter, database: Database, settings: Any, tmp_path: Path
    ) -> None:
        settings.DSPYSERVE = {**settings.DSPYSERVE, "TRACE_QUEUE": 10_000}
        database.is_away = True
        for _ in range(60):
            writer.store(rows())
        wait_until(lambda: writer.pending <= 21)
        assert list(tmp_path.glob(spool.WAITING))
        database.is_away = False
        wait_until(lambda: Trace.objects.count() == 60)
        wait_until(spool.is_empty)

    def test_what_had_to_wait_on_disk_while_it_hung_is_stored_when_it_goes_on(
        self, writer: TraceWriter, database: Database, settings: Any
    ) -> None:
        settings.DSPYSERVE = {**settings.DSPYSERVE, "TRACE_QUEUE": 10_000, "TRACE_COMMIT_TIMEOUT": 0.05}
        database.open.clear()
        for _ in range(60):
            writer.store(rows())
        assert not spool.is_empty()
        database.open.set()
        wait_until(lambda: Trace.objects.count() == 60)
        wait_until(spool.is_empty)


class TestShutdown:
    def test_what_is_left_is_on_disk_and_stored_at_the_next_start(
        self, writer: TraceWriter, database: Database, tmp_path: Path
    ) -> None:
        database.is_away = True
        given = [rows() for _ in range(5)]
        for each in given:
            writer.store(each)
        writer.close(timeout=2)
        assert (Trace.objects.count(), spool.is_empty()) == (0, False)
        database.is_away = False
        following = [TraceWriter(), TraceWriter()]
        for each_writer in following:
            each_writer.start()
        wait_until(lambda: Trace.objects.count() == 5)
        wait_until(spool.is_empty)
        for each_writer in following:
            each_writer.close()
        assert {trace.id.hex for trace in Trace.objects.all()} == {each.trace["id"] for each in given}

    def test_what_hangs_in_the_database_is_on_disk_too_and_stored_once(
        self, writer: TraceWriter, database: Database
    ) -> None:
        database.open.clear()
        threading.Thread(target=writer.store, args=(rows(),), daemon=True).start()
        wait_until(lambda: writer.pending == 1)
        writer.close(timeout=0.2)
        assert not spool.is_empty()
        database.open.set()
        wait_until(lambda: Trace.objects.count() == 1)
        writer.start()
        wait_until(spool.is_empty)
        assert Trace.objects.count() == 1

    def test_a_line_that_was_cut_off_does_not_hold_up_the_others(self, writer: TraceWriter) -> None:
        path = spool.save([rows(), rows()])
        assert path is not None
        path.write_bytes(path.read_bytes()[:-40])
        writer.start()
        wait_until(spool.is_empty)
        assert Trace.objects.count() == 1

    def test_one_that_is_refused_does_not_hold_up_the_others(self, writer: TraceWriter, tmp_path: Path) -> None:
        bad = rows(status=None)
        spool.save([rows(), bad, rows()])
        spool.save([rows()])
        writer.start()
        wait_until(spool.is_empty)
        assert Trace.objects.count() == 3
        (refused,) = tmp_path.glob(spool.REFUSED)
        assert bad.trace["id"] in refused.read_text()

    def test_a_forked_child_starts_its_own_thread(self, settings: Any, tmp_path: Path) -> None:
        from django.db import connection

        code = (
            "import os, django; django.setup()\n"
            "from django.db import connections\n"
            "from tests.tracing.test_writer import rows\n"
            "from dspyserve.tracing.writer import writer\n"
            "assert writer.store(rows())\n"
            "connections.close_all()\n"
            "pid = os.fork()\n"
            "if pid == 0:\n"
            "    os._exit(0 if writer.store(rows()) else 1)\n"
            "assert os.waitpid(pid, 0)[1] == 0\n"
            "assert writer.store(rows())\n"
        )
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "DSPYSERVE_TESTS_DATABASE": str(connection.settings_dict["NAME"]),
        }
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=environment, check=True, timeout=60)
        assert Trace.objects.count() == 3


def wait_until(condition: Any, timeout: float = 10) -> None:
    """Wait for another thread."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


class TestDiskAway:
    """A directory that cannot be written, such as that of a container with a read-only file system."""

    @pytest.fixture(autouse=True)
    def _unwritable(self, writer: TraceWriter, settings: Any, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        settings.DSPYSERVE = {**settings.DSPYSERVE, "TRACE_SPOOL": str(tmp_path / "file"), "TRACE_QUEUE": 3000}

    def test_a_trace_that_is_refused_does_not_end_the_writer(self, writer: TraceWriter) -> None:
        assert writer.store(rows(status=None)) is False
        assert writer.store(rows()) is True
        assert Trace.objects.count() == 1

    def test_more_than_memory_holds_does_not_end_it_either(self, writer: TraceWriter, database: Database) -> None:
        database.is_away = True
        assert [writer.store(rows()) for _ in range(20)] == [False] * 20
        database.is_away = False
        assert writer.flush(10)
        assert 0 < Trace.objects.count() < 20, "what memory held is stored"
        assert writer.store(rows()) is True

    def test_the_end_comes_all_the_same(self, writer: TraceWriter, database: Database) -> None:
        database.is_away = True
        assert writer.store(rows()) is False
        writer.close()
