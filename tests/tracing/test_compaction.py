"""Rollups merged, let go of, and made anew: no figure changes, and nobody who writes meanwhile is disturbed."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from django.utils import timezone

from dspyserve.models import Trace, TraceRollup
from dspyserve.tracing import compaction, store, tally
from dspyserve.tracing.compaction import added_up, compact
from dspyserve.tracing.recount import recount
from dspyserve.tracing.tally import Tally
from tests.tracing.test_tally import recounted
from tests.tracing.test_writer import rows

pytestmark = pytest.mark.django_db(transaction=True)

DAY = timezone.now().astimezone(datetime.UTC).replace(hour=0, minute=0, second=0, microsecond=0) - datetime.timedelta(3)
AT = DAY + datetime.timedelta(hours=22, minutes=30)


@pytest.fixture
def all_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has written writes no more."""
    monkeypatch.setattr(tally, "CLOSED", datetime.timedelta(seconds=-5))


def insert(number: int, mine: Tally | None = None, **values: Any) -> None:
    store.insert([rows(**{"started_at": AT, **values}) for _ in range(number)], mine)


class TestCompact:
    @pytest.mark.usefixtures("all_closed")
    def test_one_row_is_left_of_many_and_running_twice_changes_nothing(self) -> None:
        for number in range(1, 5):
            insert(number, cost=number / 8, duration_ms=10.0**number)
        insert(1, program_name="other")
        before = added_up(TraceRollup.objects.all())
        assert compact() == (10, 4)
        assert added_up(TraceRollup.objects.all()) == before == recounted()
        assert set(TraceRollup.objects.values_list("writer", flat=True)) == {""}
        assert compact() == (0, 0)
        insert(2)
        assert compact() == (6, 4)
        assert added_up(TraceRollup.objects.all()) == recounted()

    def test_rows_of_those_who_may_still_write_are_left_alone(self) -> None:
        mine = Tally()
        insert(2, mine)
        assert compact() == (0, 0)
        insert(2, mine)
        assert added_up(TraceRollup.objects.all()) == recounted()

    @pytest.mark.usefixtures("all_closed")
    def test_what_another_process_merged_meanwhile_is_not_counted_twice(self) -> None:
        insert(2)
        insert(3)
        mine = list(TraceRollup.objects.all())
        assert compact() == (4, 2)
        assert not compaction.replace(mine, added_up(mine))
        assert added_up(TraceRollup.objects.all()) == recounted()
        TraceRollup.objects.all().delete()
        assert not compaction.replace(mine, added_up(mine))
        assert not TraceRollup.objects.exists()

    @pytest.mark.usefixtures("all_closed")
    def test_old_hours_are_let_go_of_and_their_day_stays(self) -> None:
        insert(2, started_at=AT - datetime.timedelta(days=60))
        insert(2)
        compact()
        assert TraceRollup.objects.filter(period="day").count() == 2
        assert [row.start for row in TraceRollup.objects.filter(period="hour")] == [DAY + datetime.timedelta(hours=22)]


class TestRecount:
    def test_makes_what_was_never_counted(self) -> None:
        insert(3, cost=0.5, duration_ms=20.0)
        insert(1, started_at=DAY)
        before = recounted()
        TraceRollup.objects.all().delete()
        assert recount(DAY) == 4
        assert added_up(TraceRollup.objects.all()) == before
        assert recount(DAY) == 4
        assert added_up(TraceRollup.objects.all()) == before

    def test_leaves_to_those_who_write_what_is_theirs(self) -> None:
        insert(2)
        TraceRollup.objects.all().delete()
        mine = Tally()
        insert(3, mine, duration_ms=7.0)
        recount(DAY)
        insert(4, mine)
        assert added_up(TraceRollup.objects.all()) == recounted()

    @pytest.mark.usefixtures("all_closed")
    def test_figures_of_deleted_traces_stay_unless_it_is_to_be_exact(self) -> None:
        insert(3)
        before = recounted()
        Trace.objects.filter(pk=Trace.objects.first().pk).delete()  # type: ignore[union-attr]
        recount(DAY)
        assert added_up(TraceRollup.objects.all()) == before
        recount(DAY, exactly=True)
        assert added_up(TraceRollup.objects.all()) == recounted()
        Trace.objects.all().delete()
        recount(DAY, exactly=True)
        assert not TraceRollup.objects.exists()

    @pytest.mark.usefixtures("all_closed")
    def test_makes_no_hours_of_days_long_past(self) -> None:
        old = DAY - datetime.timedelta(days=60)
        insert(2, started_at=old)
        TraceRollup.objects.all().delete()
        recount(old)
        assert [row.period for row in TraceRollup.objects.all()] == ["day"]
