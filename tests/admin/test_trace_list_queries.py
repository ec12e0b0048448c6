"""The list's queries at 1,000 and at 100,000 traces: how many they are, and that each goes through an index."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.http import QueryDict
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dspyserve.admin.traces.list_filter import filter_of
from dspyserve.models import Feedback, Program, Span, Trace
from dspyserve.tracing.search import neighbours

pytestmark = pytest.mark.django_db

LIST = "/admin/dspyserve/trace/"
SPAN = "0123456789abcdef"
SMALL, LARGE = 1_000, 100_000
SEARCHES = {
    "default": "",
    "program": "program=program-7",
    "failed": "status=failed",
    "session": "session=session-7",
    "user": "user=user-3",
    "text": "q=needle",
    "unreviewed": "reviewed=false&window=any",
    "tag": "tag=beta",
    "trace id": f"q={uuid.UUID(int=77)}",
    "span id": f"q={SPAN}",
}
AUTHENTICATION = ("django_session", '"auth_user"."id" = ')


@dataclass(frozen=True)
class Answer:
    """What the list took for one search: its queries without those of the session and the user, and its rows."""

    queries: list[str]
    rows: int
    next_page: str


@pytest.fixture(scope="module")
def answers(django_db_setup: None, django_db_blocker: Any) -> Iterator[dict[int, dict[str, Answer]]]:
    """What every search took at both sizes; the larger data set stays for the tests, and goes at the end."""
    with django_db_blocker.unblock(), transaction.atomic():
        client = Client()
        client.force_login(User.objects.create_superuser("ann"))
        fill()
        found = {SMALL: asked(client)}
        multiply(LARGE // SMALL)
        analyse()
        found[LARGE] = asked(client)
        yield found
        transaction.set_rollback(True)


def fill() -> None:
    """A thousand traces of six days: programs, sessions and users in equal parts, one in 20 failed."""
    programs = [Program.objects.create(name=f"program-{number}") for number in range(10)]
    users = [User.objects.create(username=f"user-{number}") for number in range(10)]
    now = timezone.now()
    Trace.objects.bulk_create(
        Trace(
            id=uuid.UUID(int=number + 1),
            program=programs[number % 10],
            program_name=f"program-{number % 10}",
            status="failed" if number % 20 == 0 else "succeeded",
            transport="rest",
            started_at=now - datetime.timedelta(seconds=500 * number + 60),
            input_preview="a needle" if number % 100 == 0 else "hay",
            tags=["beta"] if number % 50 == 0 else [],
            session_id=f"session-{number % 100}" if number % 2 else "",
            user=users[number % 10] if number % 3 == 0 else None,
        )
        for number in range(SMALL)
    )
    traces = Trace.objects.order_by("-started_at")
    Span.objects.bulk_create(
        Span(trace=trace, sequence=1, kind="run", name="run", span_id=f"{number:016x}", started_at=now)
        for number, trace in enumerate(traces)
    )
    Span.objects.filter(trace=traces[500]).update(span_id=SPAN)
    Feedback.objects.bulk_create(
        Feedback(trace=trace, name="helpful", score=1, author="user:1") for trace in traces[:200]
    )


def multiply(times: int) -> None:
    """Copies of all traces, a few milliseconds apart, made where they lie."""
    columns = [field.column for field in Trace._meta.concrete_fields]
    sqlite = connection.vendor == "sqlite"
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {times - 1})"
    changed = {
        "id": "lower(hex(randomblob(16)))" if sqlite else "gen_random_uuid()",
        "started_at": "strftime('%Y-%m-%d %H:%M:%f000', t.started_at, '-' || (n.i * 0.005) || ' seconds')"
        if sqlite
        else "t.started_at - n.i * interval '5 milliseconds'",
    }
    values = ", ".join(changed.get(column, f't."{column}"') for column in columns)
    names = ", ".join(f'"{column}"' for column in columns)
    select = f"SELECT {values} FROM dspyserve_trace t, n"
    with connection.cursor() as cursor:
        if sqlite:
            cursor.execute(f"{numbers} INSERT INTO dspyserve_trace ({names}) {select}")
        else:
            cursor.execute(f"INSERT INTO dspyserve_trace ({names}) {numbers} {select}")


def analyse() -> None:
    """PostgreSQL learns by and by what is in its tables; here it is told. SQLite knows no more than it would."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")


def asked(client: Client) -> dict[str, Answer]:
    """The list, asked for every search."""
    return {name: ask(client, query) for name, query in SEARCHES.items()}


def ask(client: Client, query: str) -> Answer:
    with CaptureQueriesContext(connection) as captured:
        response = client.get(f"{LIST}?{query}")
    assert response.status_code == 200
    queries = [entry["sql"] for entry in captured if not any(mark in entry["sql"] for mark in AUTHENTICATION)]
    return Answer(queries, len(response.context["rows"]), response.context["older_url"])


def plan(sql: str) -> str:
    """How the database goes about it."""
    explain = "EXPLAIN QUERY PLAN" if connection.vendor == "sqlite" else "EXPLAIN"
    with connection.cursor() as cursor:
        cursor.execute(f"{explain} {sql.replace('%', '%%')}", [])
        return "\n".join(str(row[-1]) for row in cursor.fetchall())


def rows_query(answer: Answer) -> str:
    (found,) = [sql for sql in answer.queries if sql.endswith("LIMIT 51")]
    return found


@pytest.mark.parametrize("search", SEARCHES)
def test_five_queries_whatever_the_number_of_traces(answers: dict[int, dict[str, Answer]], search: str) -> None:
    small, large = answers[SMALL][search], answers[LARGE][search]
    assert len(small.queries) <= 5, small.queries
    assert len(large.queries) <= 5, large.queries
    assert small.rows > 0
    assert (large.rows == 50) is (search not in ("trace id", "span id"))
    if small.next_page:
        assert len(small.queries) == len(large.queries)


@pytest.mark.parametrize(
    ("search", "index"),
    [
        ("default", "dspyserve_trace_time"),
        ("program", "dspyserve_trace_name"),
        ("failed", "dspyserve_trace_failures"),
        ("session", "dspyserve_trace_session"),
        ("user", "dspyserve_trace_user"),
        ("text", "dspyserve_trace_time"),
        ("unreviewed", "dspyserve_trace_time"),
        ("tag", "dspyserve_trace_time"),
    ],
)
def test_rows_come_from_an_index_in_their_order(answers: dict[int, dict[str, Answer]], search: str, index: str) -> None:
    steps = plan(rows_query(answers[LARGE][search]))
    assert index in steps, steps
    assert_no_full_table(steps)
    assert "TEMP B-TREE" not in steps, steps
    assert "Sort" not in steps, steps


@pytest.mark.parametrize(("search", "index"), [("trace id", "dspyserve_trace"), ("span id", "dspyserve_span_id")])
def test_ids_are_found_through_their_indexes(answers: dict[int, dict[str, Answer]], search: str, index: str) -> None:
    steps = plan(rows_query(answers[LARGE][search]))
    assert index in steps, steps
    assert_no_full_table(steps)
    assert "dspyserve_trace_time" not in steps, steps


def test_later_pages_and_neighbours_go_straight_to_their_place(answers: dict[int, dict[str, Answer]]) -> None:
    middle = Trace.objects.order_by("-started_at", "-pk")[LARGE // 2]
    wanted = filter_of(QueryDict("")).apply(Trace.objects.all(), payloads=True)
    with CaptureQueriesContext(connection) as captured:
        found = neighbours(wanted, middle)
    assert [trace is not None for trace in found] == [True, True]
    assert len(captured) == 1
    client = Client()
    client.force_login(User.objects.get(username="ann"))
    later = rows_query(ask(client, answers[LARGE]["default"].next_page.removeprefix("?")))
    for sql in (captured[0]["sql"], later):
        steps = plan(sql)
        assert "dspyserve_trace_time" in steps, steps
        assert_no_full_table(steps)
    assert "TEMP B-TREE" not in steps, steps
    assert "Sort" not in steps, steps


def assert_no_full_table(steps: str) -> None:
    """No step reads all traces without an index."""
    full = [
        step
        for step in steps.splitlines()
        if "Seq Scan on dspyserve_trace" in step or (step.startswith("SCAN dspyserve_trace") and "USING" not in step)
    ]
    assert full == [], steps
