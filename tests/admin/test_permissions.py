"""What members of the staff reach who may not see traces, and those whom a project limits to some of them."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.contrib.admin.sites import site
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest
from django.test import Client

from dspyserve.admin import TraceAdmin
from dspyserve.models import APIKey, Program, Trace
from tests.admin.rows import LIST, make_span, make_trace, page_url, span_url, staff

pytestmark = pytest.mark.django_db


def test_whether_a_trace_is_there_is_told_to_those_who_may_see_traces() -> None:
    stranger = staff("view_program")
    span = make_span(make_trace())
    for pk in (span.trace_id, uuid.uuid4()):
        for page in ("change/", "replay/", f"span/{span.span_id}/", f"span/{span.span_id}/raw/"):
            assert stranger.get(f"{LIST}{pk}/{page}").status_code == 403, page
        assert stranger.post(f"{LIST}{pk}/review/", {"thumb": "up"}).status_code == 403


class TestLimitedToSome:
    """A project limits what people see as everywhere in Django's admin: by `get_queryset`."""

    @pytest.fixture
    def reviewer(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> Client:
        all_traces = TraceAdmin.get_queryset

        def ours(self: TraceAdmin, request: HttpRequest) -> QuerySet[Trace]:
            return all_traces(self, request).filter(environment="ours")

        monkeypatch.setattr(TraceAdmin, "get_queryset", ours)
        client.force_login(User.objects.create_superuser("ann"))
        return client

    def test_is_the_admin_that_is_registered(self) -> None:
        assert type(site._registry[Trace]) is TraceAdmin

    def test_sees_no_other_by_any_way(self, reviewer: Client) -> None:
        mine = make_trace(environment="ours", session_id="chat", input_preview="our question")
        values: dict[str, Any] = {"environment": "theirs", "session_id": "chat", "input_preview": "their question"}
        for replay_of in (None, mine):
            other = make_trace(replay_of=replay_of, **values)
        span = make_span(other, payload={"inputs": {"question": "their question"}}, kind="run")
        for address in (LIST, page_url(mine), f"{LIST}session/chat/"):
            page = reviewer.get(address).content.decode()
            assert "their question" not in page
            assert str(other.pk) not in page
        for address in (page_url(other), f"{LIST}{other.pk}/replay/", span_url(span), span_url(span, "raw/?at=inputs")):
            assert reviewer.get(address).status_code in (302, 404), address
        exported = b"".join(reviewer.get(f"{LIST}export/?format=csv"))  # type: ignore[arg-type]
        assert (b"ours" in exported, b"theirs" in exported) == (True, False)

    def test_goes_on_to_no_other(self, reviewer: Client) -> None:
        mine, _other = make_trace(environment="ours"), make_trace(environment="theirs")
        assert 'rel="prev"' not in reviewer.get(page_url(mine)).content.decode()
        assert reviewer.get(f"{LIST}unreviewed/")["Location"] == page_url(mine)


class TestViewersOfOtherThings:
    def test_are_led_to_traces_only_where_they_may_see_them(self) -> None:
        program = Program.objects.create(name="made", signature="question -> answer")
        for codenames, is_linked in ((["view_program"], False), (["view_program", "view_trace"], True)):
            client = staff(*codenames)
            for page in ("", f"{program.pk}/change/"):
                text = client.get(f"/admin/dspyserve/program/{page}").content.decode().split('id="content"')[1]
                assert (f'href="{LIST}?program=made"' in text) == is_linked
                assert f"program/{program.pk}/playground/" in text

    def test_read_the_scopes_of_a_key_in_words(self) -> None:
        key = APIKey(name="ci", scopes=["run", "view_traces"])
        key.issue()
        key.save()
        page = staff("view_apikey").get(f"/admin/dspyserve/apikey/{key.pk}/change/").content.decode()
        assert ", ".join(str(APIKey.Scope(scope).label) for scope in key.scopes) in page
        assert "[&quot;run" not in page
