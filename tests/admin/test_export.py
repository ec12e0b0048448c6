"""Exports from the list: exactly what its filter leaves, for those who may, piece by piece under every server."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.http import StreamingHttpResponse
from django.test import AsyncClient, Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dspyserve.models import Feedback, Span, Trace
from dspyserve.tracing.export import reading
from dspyserve.tracing.search import page
from tests.admin.test_traces import make_traces, viewer

pytestmark = pytest.mark.django_db

EXPORT = "/admin/dspyserve/trace/export/"
LIST = "/admin/dspyserve/trace/"


@pytest.fixture
def reviewer(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ann"))
    return client


def exported(client: Client, **query: str) -> bytes:
    response = client.get(EXPORT, query)
    assert response.status_code == 200, response.content
    assert isinstance(response, StreamingHttpResponse)
    return b"".join(response.streaming_content)  # type: ignore[arg-type]


def ids(client: Client, **query: str) -> list[str]:
    return [json.loads(line)["id"] for line in exported(client, format="jsonl", **query).splitlines()]


class TestFilter:
    def test_is_that_of_the_list(self, reviewer: Client) -> None:
        ok, failed, old = make_traces(3)
        Trace.objects.filter(pk=failed.pk).update(status="failed", tags=["beta"])
        Trace.objects.filter(pk=old.pk).update(started_at=timezone.now() - datetime.timedelta(days=30))
        assert ids(reviewer) == [ok.id.hex, failed.id.hex]
        assert ids(reviewer, q="status:failed tag:beta") == [failed.id.hex]
        assert ids(reviewer, window="any", q="-tag:beta") == [ok.id.hex, old.id.hex]

    def test_the_list_offers_every_format_with_its_filter(self, reviewer: Client) -> None:
        make_traces(2)
        links = reviewer.get(LIST, {"q": "program:qa"}).context["exports"]
        assert [link.url.partition("&")[0] for link in links] == [
            f"export/?format={name}" for name in ("jsonl", "csv", "dspy", "otlp", "dspy")
        ]
        for link in links:
            response = reviewer.get(f"{LIST}{link.url}")
            assert response.status_code == 200, link
            assert len(b"".join(response.streaming_content)) > 0 or "judged" in link.url  # type: ignore[attr-defined]

    def test_may_leave_only_what_was_liked(self, reviewer: Client) -> None:
        liked, _ = make_traces(2)
        Span.objects.filter(kind="module").update(kind="tool")
        Feedback.objects.create(trace=liked, name="helpful", author="user:1", score=1)
        lines = exported(reviewer, format="dspy", judged="positive").splitlines()
        assert [json.loads(line)["trace_id"] for line in lines] == [liked.id.hex]

    @pytest.mark.parametrize("query", [{}, {"format": "xml"}, {"format": "csv", "q": "status:odd"}])
    def test_what_is_not_understood_is_refused(self, reviewer: Client, query: dict[str, str]) -> None:
        make_traces(1)
        assert reviewer.get(EXPORT, query).status_code == 400


class TestPermissions:
    def test_it_takes_the_one_to_export(self) -> None:
        make_traces(1)
        assert viewer("view_trace", "view_payload").get(EXPORT, {"format": "csv"}).status_code == 403
        User.objects.all().delete()
        assert viewer("export_trace").get(EXPORT, {"format": "csv"}).status_code == 403

    @pytest.mark.parametrize("name", ["jsonl", "csv", "otlp"])
    def test_texts_take_another_one(self, name: str) -> None:
        make_traces(1, input_preview="alert", error_message="alert")
        assert b"alert" not in exported(viewer("view_trace", "export_trace"), format=name)
        User.objects.all().delete()
        assert b"alert" in exported(viewer("view_trace", "export_trace", "view_payload"), format=name)

    def test_examples_are_nothing_without_texts(self) -> None:
        make_traces(1)
        client = viewer("view_trace", "export_trace")
        assert client.get(EXPORT, {"format": "dspy"}).status_code == 403
        assert not any("dspy" in link.url for link in client.get(LIST).context["exports"])

    def test_text_cannot_be_guessed_by_searching(self) -> None:
        make_traces(1, input_preview="secret")
        assert ids(viewer("view_trace", "export_trace"), q="secret") == []


class TestStreaming:
    @pytest.mark.parametrize("name", ["jsonl", "csv", "otlp"])
    def test_one_query_a_table_and_chunk(self, reviewer: Client, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reading, "CHUNK", 10)
        make_traces(20)
        authentication = 2
        with CaptureQueriesContext(connection) as queries:
            exported(reviewer, format=name)
        assert len(queries) == 2 * 3 + authentication, queries.captured_queries

    def test_breaks_off_with_a_line_that_says_so(self, reviewer: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        make_traces(3)
        left = [1]

        def failing(*args: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise OperationalError("the database is away")
            return page(*args)

        monkeypatch.setattr(reading, "CHUNK", 2)
        monkeypatch.setattr(reading, "page", failing)
        *whole, last = exported(reviewer, format="jsonl").splitlines()
        assert len(whole) == 2
        assert json.loads(last)["problem"]["code"] == "program_error"

    @pytest.mark.django_db(transaction=True)
    async def test_under_asgi_piece_by_piece(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from asgiref.sync import sync_to_async

        monkeypatch.setattr(reading, "CHUNK", 2)
        await sync_to_async(make_traces)(5)
        client = AsyncClient()
        await sync_to_async(client.force_login)(await sync_to_async(User.objects.create_superuser)("ann"))
        response = await client.get(EXPORT, {"format": "jsonl"})
        assert isinstance(response, StreamingHttpResponse)
        assert response.is_async
        chunks = [chunk async for chunk in response]  # type: ignore[union-attr]
        assert len(chunks) == 3
        assert len(b"".join(chunks).splitlines()) == 5
