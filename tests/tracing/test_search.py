"""Which traces a search finds, beside what it understands; and that pages are read from where they begin."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from dspyserve.models import Trace
from dspyserve.tracing.query_language import parse
from dspyserve.tracing.search import Cursor, count_up_to, newer, older

pytestmark = pytest.mark.django_db


def make_trace(days: float = 0, **values: Any) -> Trace:
    """A trace that began so many days ago."""
    started_at = timezone.now() - datetime.timedelta(days=days)
    common = {"program_name": "qa", "status": "succeeded", "transport": "rest"}
    return Trace.objects.create(id=uuid.uuid4(), started_at=started_at, **{**common, **values})


def found(text: str) -> set[Trace]:
    return set(parse(text).apply(Trace.objects.all(), payloads=True))


class TestTexts:
    def test_are_searched_in_seven_days_where_nothing_is_said(self) -> None:
        recent, _old = make_trace(6, error_message="boom"), make_trace(8, error_message="boom")
        assert found("boom") == {recent}

    def test_are_searched_in_the_days_before_the_end(self) -> None:
        end = timezone.now() - datetime.timedelta(days=20)
        wanted, _older, _newer = (make_trace(days, error_message="boom") for days in (21, 28, 19))
        assert found(f"boom until:{end.isoformat()}") == {wanted}

    @pytest.mark.parametrize(("until", "count"), [("0001-01-02", 0), ("9999-12-31", 1)])
    def test_take_any_end(self, until: str, count: int) -> None:
        make_trace(error_message="boom")
        assert len(found(f"boom until:{until}")) == count

    def test_are_excluded_however_old_the_trace_is(self) -> None:
        make_trace(10, error_message="boom")
        calm = make_trace(10)
        assert found("time:30d -boom") == {calm}
        assert found("-boom") == {calm}


class TestUsers:
    def test_are_excluded_by_name_and_by_key(self) -> None:
        ann, bob = (User.objects.create(username=name) for name in ("ann", "bob"))
        of_ann, of_bob, of_nobody = make_trace(user=ann), make_trace(user=bob), make_trace()
        assert found("user:ann") == {of_ann}
        assert found("-user:ann") == {of_bob, of_nobody}
        assert found(f"-user:{bob.pk}") == {of_ann, of_nobody}

    def test_one_that_is_not_there_excludes_nothing(self) -> None:
        of_ann, of_nobody = make_trace(user=User.objects.create(username="ann")), make_trace()
        assert found("-user:nobody") == {of_ann, of_nobody}
        assert found("user:nobody") == set()


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="counts the steps of SQLite's machine")
class TestPlaces:
    """SQLite plans alike whichever limit of the time it goes by: only its steps tell how much it reads."""

    COUNT = 3_000

    @pytest.fixture
    def traces(self) -> list[Trace]:
        """A second apart, the newest first."""
        now = timezone.now()
        common = {"program_name": "qa", "status": "succeeded", "transport": "rest"}
        return Trace.objects.bulk_create(
            Trace(id=uuid.uuid4(), started_at=now - datetime.timedelta(seconds=number), **common)
            for number in range(self.COUNT)
        )

    def test_newer_ones_are_read_from_their_place_on_whatever_the_window(self, traces: list[Trace]) -> None:
        wanted, place = parse("time:7d").apply(Trace.objects.all(), payloads=True), Cursor.of(traces[5])
        with steps() as counted:
            assert count_up_to(newer(wanted, place), 100) == 5
            assert list(newer(wanted, place)[:3]) == traces[4:1:-1]
        assert counted[0] < self.COUNT

    def test_older_ones_are_read_from_their_place_on_whatever_the_end(self, traces: list[Trace]) -> None:
        end = traces[0].started_at + datetime.timedelta(hours=1)
        wanted, place = parse(f"until:{end.isoformat()}").apply(Trace.objects.all(), payloads=True), traces[-5]
        with steps() as counted:
            assert list(older(wanted, Cursor.of(place))[:10]) == traces[-4:]
        assert counted[0] < self.COUNT


@contextmanager
def steps() -> Iterator[list[int]]:
    """About how many steps SQLite's machine goes, in the first place of the list."""
    counted = [0]
    every = 10

    def count() -> int:
        counted[0] += every
        return 0

    connection.connection.set_progress_handler(count, every)
    try:
        yield counted
    finally:
        connection.connection.set_progress_handler(None, 0)
