"""Rollups are written with the traces: every stored trace is in them once, whatever happens on the way."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, connection
from django.db.models import Model
from django.test.utils import CaptureQueriesContext

from dspyserve.models import SpanPayload, Trace, TraceRollup
from dspyserve.tracing import spool, store, tally
from dspyserve.tracing.compaction import added_up
from dspyserve.tracing.figures import COLUMNS, Figures, Key, keys_of
from dspyserve.tracing.tally import Tally
from dspyserve.tracing.writer import TraceWriter
from tests.tracing.test_writer import rows, wait_until

pytestmark = pytest.mark.django_db(transaction=True)

AT = datetime.datetime(2026, 3, 1, 22, 59, tzinfo=datetime.UTC)


@pytest.fixture
def writer(settings: Any, tmp_path: Path) -> Iterator[TraceWriter]:
    settings.DSPYSERVE = {**settings.DSPYSERVE, "TRACE_SPOOL": str(tmp_path), "TRACE_COMMIT_TIMEOUT": 5.0}
    made = TraceWriter()
    yield made
    made.close()


def recounted() -> dict[Key, Figures]:
    """The figures of all traces that are stored."""
    found: dict[Key, Figures] = {}
    for trace in Trace.objects.values(*COLUMNS):
        for key in keys_of(trace):
            found.setdefault(key, Figures()).count(trace)
    return found


def assert_exact(count: int) -> None:
    """`count` traces are stored, and the rollups of all writers together tell of these and no others."""
    assert Trace.objects.count() == count
    assert added_up(TraceRollup.objects.all()) == recounted()


class TestFigures:
    def test_tell_everything_of_an_hour_and_of_its_day(self) -> None:
        common = {"program_name": "qa", "model": "m", "started_at": AT}
        store.insert(
            [
                rows(**common, cost=0.5, input_tokens=10, output_tokens=3, duration_ms=1000.0, first_token_ms=90.0),
                rows(**common, cost=0.25, input_tokens=5, status="timed_out", duration_ms=2000.0),
                rows(**{**common, "started_at": AT + datetime.timedelta(minutes=2)}, status="cancelled"),
            ]
        )
        day = TraceRollup.objects.get(period="day")
        first, second = TraceRollup.objects.filter(period="hour")
        assert (first.start.hour, second.start.hour, day.start.hour) == (22, 23, 0)
        assert (first.traces, first.failures, first.unpriced) == (2, 1, 0)
        assert (second.traces, second.failures, second.unpriced) == (1, 0, 1)
        assert (day.traces, day.failures, day.unpriced) == (3, 1, 1)
        assert (day.input_tokens, day.output_tokens, day.cost) == (15, 3, 0.75)
        assert (sum(day.durations.values()), sum(day.first_tokens.values())) == (2, 1)

    @pytest.mark.parametrize(
        ("status", "is_failure"),
        [("succeeded", 0), ("failed", 1), ("timed_out", 1), ("abandoned", 1), ("cancelled", 0)],
    )
    def test_who_cancels_did_not_fail(self, status: str, is_failure: int) -> None:
        store.insert([rows(status=status)])
        assert {row.failures for row in TraceRollup.objects.all()} == {is_failure}

    def test_one_statement_a_commit_whatever_is_in_it(self) -> None:
        mine = Tally()
        counts = []
        for number in (1, 15):
            with CaptureQueriesContext(connection) as queries:
                store.insert([rows(program_name=f"p{each}") for each in range(number)], mine)
            counts.append(sum("INSERT" in query["sql"] for query in queries))
        assert counts == [1, 1]


class TestExactlyOnce:
    def test_commits_of_one_writer_add_up_in_its_rows(self) -> None:
        mine, other = Tally(), Tally()
        for _ in range(3):
            store.insert([rows(started_at=AT), rows(started_at=AT)], mine)
        store.insert([rows(started_at=AT)], other)
        assert_exact(7)
        assert TraceRollup.objects.filter(period="hour").count() == 2

    def test_a_batch_that_was_refused_is_not_counted(self) -> None:
        mine = Tally()
        store.insert([rows(started_at=AT)], mine)
        with pytest.raises(Exception, match="status"):
            store.insert([rows(started_at=AT), rows(started_at=AT, status=None)], mine)
        store.insert([rows(started_at=AT)], mine)
        assert_exact(2)

    def test_a_commit_whose_answer_was_lost_is_counted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        mine = Tally()
        lost = [rows(started_at=AT)]
        store.insert([rows(started_at=AT)], mine)

        way: Any = store.BY_STATEMENT[connection.vendor]
        known = way.insert

        def insert(*given: Any) -> None:
            known(*given)
            raise OperationalError("the answer to the commit was lost")

        with monkeypatch.context() as patch:
            patch.setattr(way, "insert", insert)
            with pytest.raises(OperationalError):
                store.insert(lost, mine)
        assert_exact(2)
        store.insert_new(lost, mine)
        store.insert([rows(started_at=AT)], mine)
        assert_exact(3)

    def test_the_writer_counts_what_it_stores_alone_once(self, writer: TraceWriter) -> None:
        known = rows(started_at=AT)
        assert writer.store(known)
        given = [known, rows(started_at=AT), rows(started_at=AT, status=None), rows(started_at=AT)]
        threads = [threading.Thread(target=writer.store, args=(each,)) for each in given]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert writer.store(rows(started_at=AT))
        assert_exact(4)

    def test_what_waited_on_disk_is_counted_when_it_is_stored(self, writer: TraceWriter) -> None:
        stored = rows(started_at=AT)
        store.insert([stored])
        spool.save([stored, rows(started_at=AT, cost=0.5), rows(started_at=AT)])
        writer.start()
        wait_until(spool.is_empty)
        assert_exact(3)

    @pytest.mark.parametrize("model", [TraceRollup, SpanPayload])
    def test_traces_and_their_rollups_are_stored_together_or_not_at_all(self, model: type[Model]) -> None:
        table = model._meta.db_table
        if connection.vendor == "sqlite":
            refuse = f"CREATE TRIGGER refuse BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'refused'); END"
            take = "DROP TRIGGER refuse"
        else:
            refuse = f"ALTER TABLE {table} ADD CONSTRAINT refuse CHECK (false) NOT VALID"
            take = f"ALTER TABLE {table} DROP CONSTRAINT refuse"
        with connection.cursor() as cursor:
            cursor.execute(refuse)
        try:
            with pytest.raises(IntegrityError):
                store.insert([rows(started_at=AT)])
        finally:
            with connection.cursor() as cursor:
                cursor.execute(take)
        assert_exact(0)


class TestIdentity:
    def test_begins_anew_after_a_day_and_after_many_keys(self, monkeypatch: pytest.MonkeyPatch) -> None:
        mine = Tally()
        writers = [mine.writer]
        store.insert([rows(program_name=f"p{number}") for number in range(tally.MAX_KEYS // 2 + 1)], mine)
        store.insert([rows()], mine)
        writers.append(mine.writer)
        now = tally.time.time()
        monkeypatch.setattr(tally.time, "time", lambda: now + tally.LIFETIME.total_seconds() + 1)
        store.insert([rows()], mine)
        writers.append(mine.writer)
        assert writers == sorted(set(writers))
        assert added_up(TraceRollup.objects.all()) == recounted()

    def test_tells_who_may_still_write(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert Tally().writer > tally.open_since()
        monkeypatch.setattr(tally, "CLOSED", datetime.timedelta(seconds=-5))
        assert Tally().writer < tally.open_since()
