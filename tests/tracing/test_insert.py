"""Rows are stored as Django's `bulk_create` stores them, payloads by value and all else to the byte, with less work."""

from __future__ import annotations

import datetime
import json
import sqlite3
import uuid
import zoneinfo
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connection, models, transaction
from django.test.utils import CaptureQueriesContext

from dspyserve.models import Span, SpanPayload, Trace, TraceRollup
from dspyserve.tracing import column_values, insert_postgresql, insert_sqlite, store
from dspyserve.tracing.rows import TraceRows
from dspyserve.tracing.tally import Tally
from tests.tracing.test_writer import rows

pytestmark = pytest.mark.django_db(transaction=True)

AT = datetime.datetime(2026, 3, 1, 22, 59, 1, 20, tzinfo=datetime.UTC)
TABLES = (Trace, Span, SpanPayload, TraceRollup)


class Word(str):
    """A text, and more."""


ODD_COLUMNS: list[dict[str, Any]] = [
    {"program_name": "é ☃ 😀 \x7f \\ ' \" %s ? %% \n\t"},
    {"program_name": Word("p"), "status": Trace.Status.FAILED, "session_id": ""},
    {"program_name": 5, "model": 1.5, "session_id": True},
    {"id": uuid.uuid4(), "replay_of_id": str(uuid.uuid4())},
    {"id": str(uuid.uuid4()), "replay_of_id": uuid.uuid4()},
    {"id": uuid.uuid4().hex.upper(), "replay_of_id": uuid.uuid4().hex},
    {"started_at": AT.isoformat(), "ended_at": "2026-03-01T23:00:00+02:00"},
    {"started_at": AT.astimezone(zoneinfo.ZoneInfo("Asia/Tokyo")), "ended_at": AT.replace(microsecond=0)},
    {"started_at": AT.astimezone(datetime.timezone(datetime.timedelta(hours=-3)))},
    {"program_id": 2**40, "user_id": "7", "api_key_id": True, "version_number": 7.0, "span_count": "12"},
    {"duration_ms": 1, "cost": 1e-7, "first_token_ms": 1e300},
    {"cost": 0.1 + 0.2, "first_token_ms": 5e-324},
    {"duration_ms": float("inf"), "first_token_ms": float("-inf")},
    {"duration_ms": True, "version_number": True},
    {"replay_of_id": None, "ended_at": None, "cost": None},
]
ODD_JSON: list[Any] = [
    {"b": 1, "a": {"é": "☃ \x7f  </script>", "": []}, "1": None},
    [1e16, 1e-7, 0.1 + 0.2, -0.0, 1.0, 10**30, -(2**63), 2**64],
    "a text with \\ \" ' %s ? \n",
    ["null", None, True, False, {}],
    (1, 2),
    {7: "a", None: "b", True: "c"},
    Word("w"),
    {},
    [],
    "",
    0,
    False,
    None,
]
REFUSED: list[dict[str, Any]] = [
    {"status": None},
    {"tags": None},
    {"duration_ms": "soon"},
    {"started_at": "yesterday"},
    {"started_at": None},
    {"id": "no id"},
    {"span_count": -1},
    {"metadata": {"a": float("nan")}},
    {"metadata": [float("inf")]},
    {"metadata": {"a": object()}},
    {"metadata": {"a": AT}},
    {"program_name": "\ud800"},
    {"no_column": 1},
]


@contextmanager
def by_model(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let rows be stored by `bulk_create`, as on databases of other vendors."""
    with monkeypatch.context() as patch:
        patch.setattr(store, "BY_STATEMENT", {})
        yield


def stored() -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables, as the database itself writes them as text."""
    found = {}
    with connection.cursor() as cursor:
        for model in TABLES:
            fields = [field for field in model._meta.concrete_fields if field.attname not in ("span_id", "writer")]
            columns = [
                connection.ops.quote_name(field.column)
                for field in fields
                if field.get_internal_type() != "BigAutoField"
            ]
            kind = "typeof({0})" if connection.vendor == "sqlite" else "pg_typeof({0})::text"
            read = ", ".join(f"CAST({column} AS text), {kind.format(column)}" for column in columns)
            cursor.execute(f"SELECT {read} FROM {model._meta.db_table} ORDER BY {', '.join(columns[:3])}")
            is_text = model not in (SpanPayload, TraceRollup)
            found[model.__name__] = [row if is_text else tuple(map(respelled, row)) for row in cursor.fetchall()]
        cursor.execute(
            "SELECT s.sequence, CAST(p.inputs AS text) FROM dspyserve_span s"
            " JOIN dspyserve_spanpayload p ON p.span_id = s.id ORDER BY s.trace_id, s.sequence"
        )
        found["payloads of spans"] = [(sequence, respelled(inputs)) for sequence, inputs in cursor.fetchall()]
    return found


def respelled(text: Any) -> Any:
    """A column of a payload or a rollup: of these the value counts, and not how its JSON is written."""
    try:
        return json.dumps(json.loads(text))
    except (TypeError, ValueError):
        return text


def forget() -> None:
    for model in reversed(TABLES):
        model._default_manager.all().delete()


def assert_same(batch: list[TraceRows], monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways store the same."""
    with by_model(monkeypatch):
        store.insert(batch)
    expected = stored()
    forget()
    store.insert(batch)
    assert stored() == expected
    forget()


class TestSame:
    @pytest.mark.parametrize("columns", ODD_COLUMNS, ids=range(len(ODD_COLUMNS)))
    def test_columns(self, columns: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        assert_same([rows(**columns)], monkeypatch)

    def test_json(self, monkeypatch: pytest.MonkeyPatch) -> None:
        batch = []
        for value in ODD_JSON:
            given = rows(started_at=AT, metadata=value if value is not None else {}, tags=[value])
            given.payloads = [{"inputs": value, "outputs": value, "messages": None, "attributes": {"a": value}}]
            batch.append(given)
        assert_same(batch, monkeypatch)

    def test_spans_with_and_without_payloads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = AT
        batch = [rows(started_at=now) for _ in range(3)]
        for given in batch:
            given.spans += [
                {**given.spans[0], "sequence": 2, "status": Span.Status.ERROR, "cost": 0.5, "is_cached": True},
                {**given.spans[0], "sequence": 3, "parent_id": "b" * 16, "started_at": now.isoformat()},
            ]
            given.payloads += [None, {"outputs": ["x"], "messages": [{"role": "user"}]}]
        batch.append(TraceRows(rows().trace))
        assert_same(batch, monkeypatch)

    def test_more_rows_than_one_statement_takes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        batch = [rows(started_at=AT, program_name=f"p{n}") for n in range(2 * insert_sqlite.MOST_ROWS + 1)]
        assert_same(batch, monkeypatch)
        big = rows()
        big.spans = [{**big.spans[0], "sequence": n} for n in range(3_000)]
        big.payloads = [{"inputs": n} for n in range(3_000)]
        store.insert([big])
        assert all(p.inputs == p.span.sequence for p in SpanPayload.objects.select_related("span"))

    def test_every_field_is_one_whose_values_are_known(self) -> None:
        """A new kind of field is stored all the same, but slowly: `column_values` should know it."""
        for model in TABLES:
            for field in model._meta.concrete_fields:
                assert not field.has_db_default(), "a default of the database is left to the database by Django"
                assert column_values.column_of(field, DEFAULT_DB_ALIAS).usual, field

    def test_the_rollups_of_one_writer_are_put_in_place_of_the_former(self) -> None:
        tally = Tally()
        for _ in range(3):
            store.insert([rows(started_at=AT, duration_ms=2.0)], tally)
        assert [(row.traces, sum(row.durations.values())) for row in TraceRollup.objects.all()] == [(3, 3)] * 2


class TestRefused:
    @pytest.mark.parametrize("columns", REFUSED, ids=[str(next(iter(each.items())))[:40] for each in REFUSED])
    def test_what_one_way_refuses_the_other_refuses_too(
        self, columns: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refusal() -> type[Exception] | None:
            try:
                store.insert([rows(), rows(**columns)])
            except Exception as error:
                return type(error)
            return None

        with by_model(monkeypatch):
            expected = refusal()
        assert expected is not None
        assert not issubclass(expected, store.DATABASE_AWAY)
        found = refusal()
        assert found is not None
        assert not issubclass(found, store.DATABASE_AWAY)
        assert issubclass(found, DatabaseError) == issubclass(expected, DatabaseError)
        assert not any(model._default_manager.exists() for model in TABLES)

    def test_a_payload_needs_its_span(self) -> None:
        given = rows()
        given.payloads.append({"inputs": {}})
        with pytest.raises(ValueError):
            store.insert([given])

    def test_texts_are_not_cut(self, monkeypatch: pytest.MonkeyPatch) -> None:
        if connection.vendor == "sqlite":
            assert_same([rows(program_name="x" * 300)], monkeypatch)
        else:
            with pytest.raises(DatabaseError, match="too long"):
                store.insert([rows(program_name="x" * 300)])


class TestStatements:
    def test_one_a_batch(self) -> None:
        batch = [rows() for _ in range(8)]
        store.insert(batch)
        with CaptureQueriesContext(connection) as queries:
            store.insert([rows() for _ in range(8)])
        assert len(queries) == 1

    def test_no_model_is_made(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[models.Model] = []
        monkeypatch.setattr(models.Model, "__init__", lambda self, *_, **__: made.append(self))
        store.insert([rows()])
        assert made == []

    def test_are_put_together_once(self) -> None:
        def made() -> list[int]:
            caches = (insert_sqlite._view, insert_sqlite._View.statement, insert_postgresql._statement)
            return [cache.cache_info().misses for cache in caches]

        store.insert([rows()])
        before = made()
        store.insert([rows()])
        assert made() == before

    def test_whoever_listens_hears_of_each(self) -> None:
        heard: list[str] = []

        def listen(execute: Any, sql: str, *args: Any) -> Any:
            heard.append(sql)
            return execute(sql, *args)

        with connection.execute_wrapper(listen):
            store.insert([rows()])
        assert sum("INSERT INTO" in sql for sql in heard) == 1


@pytest.fixture
def sqlite() -> Iterator[sqlite3.Connection]:
    """The driver's own connection, round whose cursor of Django's `insert_sqlite` goes."""
    if connection.vendor != "sqlite":
        pytest.skip("is about SQLite")
    connection.ensure_connection()
    found = connection.connection
    assert isinstance(found, sqlite3.Connection)
    variables = found.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
    yield found
    if connection.connection is found:
        found.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, variables)


class TestSQLite:
    def test_has_no_more_variables_than_it_takes(self, sqlite: sqlite3.Connection) -> None:
        sqlite.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)
        with CaptureQueriesContext(connection) as queries:
            store.insert([rows() for _ in range(29)])
        assert sum("INSERT" in query["sql"] for query in queries) == 3
        assert (Trace.objects.count(), SpanPayload.objects.count()) == (29, 29)

    def test_several_statements_are_stored_together_or_not_at_all(self, sqlite: sqlite3.Connection) -> None:
        sqlite.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 100)
        first, last = rows(), rows()
        last.spans = [*last.spans, *last.spans]
        last.payloads = [None, None]
        with pytest.raises(DatabaseError):
            store.insert([first, last])
        assert not any(model._default_manager.exists() for model in TABLES)

    def test_a_new_connection_gets_what_it_needs(self, sqlite: sqlite3.Connection) -> None:
        store.insert([rows()])
        if connection.is_in_memory_db():
            pytest.skip("nothing is left of a database in memory once its connection is closed")
        connection.close()
        store.insert([rows()])
        assert Trace.objects.count() == 2

    def test_what_is_made_within_a_transaction_may_go_with_it(self, sqlite: sqlite3.Connection) -> None:
        insert_sqlite._with_view.clear()
        for name in (
            *(f"TRIGGER IF EXISTS dspyserve_incoming_{n}" for n in range(3)),
            "VIEW IF EXISTS dspyserve_incoming",
        ):
            sqlite.execute(f"DROP {name}")
        with transaction.atomic():
            store.insert([rows()])
            transaction.set_rollback(True)
        assert Trace.objects.count() == 0
        store.insert([rows()])
        assert Trace.objects.count() == 1

    def test_nothing_of_it_stays_in_the_database(self, sqlite: sqlite3.Connection) -> None:
        store.insert([rows()])
        assert sqlite.execute("SELECT name FROM sqlite_master WHERE name LIKE '%incoming%'").fetchall() == []
        assert len(sqlite.execute("SELECT name FROM sqlite_temp_master WHERE name LIKE '%incoming%'").fetchall()) == 4

    def test_a_schema_that_changes_meanwhile_is_noticed(self, sqlite: sqlite3.Connection) -> None:
        store.insert([rows()])
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE dspyserve_span ADD COLUMN more integer DEFAULT 7")
        try:
            store.insert([rows()])
            assert Span.objects.count() == 2
        finally:
            with connection.cursor() as cursor:
                cursor.execute("ALTER TABLE dspyserve_span DROP COLUMN more")
