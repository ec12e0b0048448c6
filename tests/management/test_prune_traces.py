"""`manage.py prune_traces` and `manage.py rebuild_rollups`."""

from __future__ import annotations

import datetime
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management.base import CommandError
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dspyserve.models import Feedback, Span, SpanPayload, Trace, TraceRollup
from dspyserve.tracing import retention, store
from tests.tracing.test_writer import rows

pytestmark = pytest.mark.django_db(transaction=True)


def traces(program: str, *ages: float) -> list[str]:
    """Traces of the program, of these ages in days; their ids."""
    now = timezone.now()
    made = [rows(program_name=program, started_at=now - datetime.timedelta(days=age)) for age in ages]
    store.insert(made)
    return [each.trace["id"] for each in made]


def left() -> set[str]:
    return {pk.hex for pk in Trace.objects.values_list("pk", flat=True)}


def give_feedback(trace_id: str) -> None:
    Feedback.objects.create(trace_id=trace_id, name="helpful", author="user:1")


class TestPrune:
    def test_by_age_with_all_that_a_trace_has(self, command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(retention, "CHUNK", 2)
        young = traces("qa", 1, 29)
        traces("qa", 31, 32, 33, 34, 35)
        said = command("prune_traces", "--older-than=30d")
        assert said == "5 traces deleted; 0 rows of figures became 0.\n"
        assert left() == set(young)
        assert (Span.objects.count(), SpanPayload.objects.count()) == (2, 2)
        assert sum(row.traces for row in TraceRollup.objects.filter(period="day")) == 7

    def test_by_count_of_all_or_of_each_program(self, command: Any) -> None:
        qa, other = traces("qa", 5, 6, 7), traces("other", 1, 2, 3)
        command("prune_traces", "--keep=2", "--program=qa", "--program=other")
        assert left() == {*qa[:2], *other[:2]}
        command("prune_traces", "--keep=3")
        assert left() == {*qa[:1], *other[:2]}
        command("prune_traces", "--keep=3")
        assert len(left()) == 3
        command("prune_traces", "--keep=0", "--program=qa")
        assert left() == set(other[:2])

    def test_traces_of_one_moment_are_counted_too(self, command: Any) -> None:
        now = timezone.now()
        store.insert([rows(started_at=now) for _ in range(5)])
        command("prune_traces", "--keep=2")
        assert len(left()) == 2

    def test_what_has_feedback_is_kept_unless_it_is_said(self, command: Any) -> None:
        praised, plain = traces("qa", 40, 41)
        give_feedback(praised)
        said = command("prune_traces", "--older-than=30d", "--dry-run")
        assert said == "1 traces would be deleted, 1 more are kept for their feedback.\n"
        assert left() == {praised, plain}
        command("prune_traces", "--older-than=30d")
        assert left() == {praised}
        command("prune_traces", "--older-than=30d", "--with-feedback")
        assert (left(), Feedback.objects.count()) == (set(), 0)

    def test_settings_say_what_the_command_does_not(self, command: Any, settings: Any) -> None:
        young = traces("qa", 1, 2, 3)
        traces("qa", 8)
        assert "0 traces deleted; nothing limits" in command("prune_traces")
        settings.DSPYSERVE = {**settings.DSPYSERVE, "RETENTION_DAYS": 7}
        command("prune_traces")
        assert left() == set(young)
        settings.DSPYSERVE = {**settings.DSPYSERVE, "RETENTION_COUNT": 2}
        command("prune_traces")
        assert left() == set(young[:2])

    def test_reads_what_is_kept_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(retention, "CHUNK", 1)
        kept, *_ = traces("qa", 40, 41, 42, 43)
        give_feedback(kept)
        with CaptureQueriesContext(connection) as queries:
            assert retention.delete(retention.Limits(age=datetime.timedelta(days=30)).beyond()) == 3
        reads = [query["sql"] for query in queries if query["sql"].startswith("SELECT")]
        searches = [read for read in reads if read.endswith("LIMIT 1")]
        assert len(searches) == 4
        assert all('"id" > ' in search for search in searches[1:])

    def test_feedback_that_is_given_meanwhile_keeps_its_trace(self, monkeypatch: pytest.MonkeyPatch) -> None:
        praised, _plain = traces("qa", 40, 41)

        def atomic(using: str) -> Any:
            # After the traces were found, before they are deleted.
            give_feedback(praised)
            return transaction.atomic(using=using)

        monkeypatch.setattr(retention, "transaction", SimpleNamespace(atomic=atomic))
        count = retention.delete(retention.Limits(age=datetime.timedelta(days=30)).beyond())
        assert (count, left(), Feedback.objects.count()) == (1, {praised}, 1)

    @pytest.mark.parametrize("argument", ["--older-than=soon", "--keep=-1", "--older-than=0d"])
    def test_what_is_wrong_is_told(self, command: Any, argument: str) -> None:
        with pytest.raises(CommandError, match="is no"):
            command("prune_traces", argument)


class TestRebuild:
    def test_makes_figures_of_all_days_or_of_some(self, command: Any) -> None:
        traces("qa", 1, 1, 3, 5)
        TraceRollup.objects.all().delete()
        day = timezone.now().astimezone(datetime.UTC) - datetime.timedelta(days=3)
        said = command("rebuild_rollups", f"--since={day:%Y-%m-%d}", f"--until={day:%Y-%m-%d}")
        assert said == "The figures of 1 days are made from 1 traces.\n"
        assert TraceRollup.objects.get(period="day").traces == 1
        assert command("rebuild_rollups") == "The figures of 5 days are made from 4 traces.\n"
        assert sum(row.traces for row in TraceRollup.objects.filter(period="day")) == 4

    def test_says_where_there_is_nothing(self, command: Any) -> None:
        assert command("rebuild_rollups") == "No traces are stored.\n"

    def test_what_is_wrong_is_told(self, command: Any) -> None:
        with pytest.raises(CommandError, match="is no day"):
            command("rebuild_rollups", "--since=yesterday")
