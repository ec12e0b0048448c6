"""Reviewing in the admin: thumbs, opinions, corrections, and the way from trace to trace."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from dspyserve.models import Feedback, Span, SpanPayload, Trace
from tests.admin.test_traces import HOSTILE, LIST, make_traces, viewer

pytestmark = pytest.mark.django_db

OUTPUTS = {"contact": {"name": "Ann", "email": None}, "sentiment": "neutral", "topics": ["a", "b"]}
CORRECTIONS = {
    "correction.contact": '{\r\n  "name": "Ann",\r\n  "email": null\r\n}',
    "correction.sentiment": '"neutral"',
    "correction.topics": '[\r\n  "a",\r\n  "b"\r\n]',
}
"""The form of `OUTPUTS` as a browser sends it when nothing was changed."""


def make_trace(**values: Any) -> Trace:
    """A trace of `extract` with `OUTPUTS`."""
    (trace,) = make_traces(1, program_name="extract", **values)
    SpanPayload.objects.filter(span__trace=trace, span__sequence=1).update(outputs=OUTPUTS)
    return trace


def page_of(trace: Trace, query: str = "") -> str:
    """The address of its page."""
    return f"{LIST}{trace.pk}/change/{query}"


def send(client: Client, trace: Trace, query: str = "", **data: Any) -> Any:
    """Press one of the panel's buttons."""
    return client.post(f"{LIST}{trace.pk}/review/{query}", data)


def opinion(**values: Any) -> dict[str, Any]:
    """The form with nothing but its name, and `values`."""
    return {"name": "review", "span_id": "", "score": "", "label": "", "comment": "", **CORRECTIONS, **values}


@pytest.fixture
def ann() -> User:
    return User.objects.create_superuser("ann")


@pytest.fixture
def reviewer(client: Client, ann: User) -> Client:
    client.force_login(ann)
    return client


def links(page: str) -> list[tuple[str, str]]:
    """The links to neighbours."""
    return re.findall(r'rel="(prev|next)" href="([^"]+)"', page)


def say(trace: Trace, user: User, **values: Any) -> Feedback:
    """An opinion that `user` gave."""
    name = {"name": "review", **values}
    return Feedback.objects.create(trace=trace, user=user, author=f"user:{user.pk}", **name)


class TestThumbs:
    def test_go_up_and_down_and_away(self, reviewer: Client, ann: User) -> None:
        trace = make_trace()
        for thumb, scores in (("up", [1.0]), ("down", [0.0]), ("none", []), ("none", [])):
            response = send(reviewer, trace, thumb=thumb)
            assert (response.status_code, response["Location"]) == (302, f"{page_of(trace)}#review")
            assert [(f.name, f.score, f.author) for f in Feedback.objects.all()] == [
                ("thumbs", score, f"user:{ann.pk}") for score in scores
            ]
        assert [entry.get_change_message() for entry in LogEntry.objects.order_by("pk")] == [
            "Added feedback “thumbs”.",
            "Changed score for feedback “thumbs”.",
            "Deleted feedback “thumbs”.",
        ]
        assert {(entry.object_id, entry.user_id) for entry in LogEntry.objects.all()} == {(str(trace.pk), ann.pk)}
        assert "Deleted feedback" in reviewer.get(f"{LIST}{trace.pk}/history/").content.decode()

    def test_shows_which_way_it_points(self, reviewer: Client) -> None:
        trace = make_trace()
        send(reviewer, trace, thumb="down")
        page = reviewer.get(page_of(trace)).content.decode()
        assert re.findall(r'name="thumb" value="(\w+)" aria-pressed="(\w+)"', page) == [
            ("up", "false"),
            ("none", "true"),
        ]

    def test_keeps_what_was_typed_beside_it(self, reviewer: Client) -> None:
        trace = make_trace()
        response = send(reviewer, trace, **opinion(comment="half a thou", thumb="up"))
        assert response.status_code == 200
        assert "half a thou</textarea>" in response.content.decode()
        assert [f.name for f in Feedback.objects.all()] == ["thumbs"]

    def test_keeps_what_was_said_under_its_name(self, reviewer: Client, ann: User) -> None:
        trace = make_trace()
        say(trace, ann, name="thumbs", score=1, comment="because")
        send(reviewer, trace, thumb="down")
        thumb = Feedback.objects.get()
        assert (thumb.score, thumb.comment) == (0.0, "because")

    def test_a_script_gets_the_opinions_alone(self, reviewer: Client) -> None:
        trace = make_trace()
        response = reviewer.post(f"{LIST}{trace.pk}/review/", {"thumb": "up"}, headers={"X-Requested-With": "fetch"})
        part = response.content.decode()
        assert (response.status_code, part.count('aria-pressed="true"')) == (200, 1)
        assert "<html" not in part
        assert "<textarea" not in part


class TestOpinions:
    def test_are_stored_with_what_was_corrected_alone(self, reviewer: Client, ann: User) -> None:
        trace = make_trace()
        changed = {
            "correction.sentiment": '"positive"',
            "correction.contact": '{"name": "Anna"}',
            "score": "0.5",
            "label": " good ",
            "comment": "one\r\ntwo",
        }
        response = send(reviewer, trace, save="", **opinion(**changed))
        assert response.status_code == 302, response.context["review"]["form"].errors
        found = Feedback.objects.get()
        assert (found.name, found.score, found.label, found.comment) == ("review", 0.5, "good", "one\ntwo")
        assert found.correction == {"sentiment": "positive", "contact": {"name": "Anna"}}
        assert (found.author, found.user_id, found.span_id) == (f"user:{ann.pk}", ann.pk, "")

    def test_without_a_correction_keep_none(self, reviewer: Client) -> None:
        trace = make_trace()
        compact = {"correction.topics": '["a","b"]', "correction.contact": '{"name":"Ann","email":null}'}
        for data in (opinion(label="ok"), opinion(name="again", label="ok", **compact)):
            assert send(reviewer, trace, save="", **data).status_code == 302
        assert [feedback.correction for feedback in Feedback.objects.all()] == [None, None]

    def test_of_a_failed_run_may_say_what_was_right(self, reviewer: Client) -> None:
        trace = make_trace(status="failed")
        SpanPayload.objects.filter(span__trace=trace).update(outputs=None)
        blank = dict.fromkeys(CORRECTIONS, "")
        send(reviewer, trace, save="", **{**opinion(), **blank, "correction.sentiment": '"negative"'})
        assert Feedback.objects.get().correction == {"sentiment": "negative"}

    @pytest.mark.parametrize(
        ("values", "field"),
        [
            ({"name": ""}, "name"),
            ({"name": "x" * 101}, "name"),
            ({"score": "many"}, "score"),
            ({"score": "inf"}, "score"),
            ({"label": "x" * 201}, "label"),
            ({"comment": "a\x00"}, "comment"),
            ({"span_id": "f" * 16}, "span_id"),
            ({"correction.contact": "{"}, "correction.contact"),
            ({"correction.contact": '{"name": 3}'}, "correction.contact"),
            ({"correction.sentiment": '"bored"'}, "correction.sentiment"),
            ({"correction.topics": '{"a": 1}'}, "correction.topics"),
            ({}, "__all__"),
        ],
    )
    def test_that_are_wrong_come_back_with_all_that_was_typed(
        self, reviewer: Client, values: dict[str, str], field: str
    ) -> None:
        trace = make_trace()
        typed = {"label": "a label", **values} if values else {}
        response = send(reviewer, trace, save="", **opinion(**typed))
        assert response.status_code == 200
        form = response.context["review"]["form"]
        assert list(form.errors) == [field]
        page = response.content.decode()
        assert 'class="errorlist' in page.partition('id="review-form"')[2]
        for name, text in values.items():
            shown = form[name].value()
            assert shown == text, (name, shown)
        assert not Feedback.objects.exists()

    def test_of_a_field_within_say_where(self, reviewer: Client) -> None:
        trace = make_trace()
        response = send(reviewer, trace, save="", **opinion(**{"correction.contact": '{"name": 3}'}))
        errors = response.context["review"]["form"].errors["correction.contact"]
        assert errors[0].startswith("name: ")

    def test_are_edited_in_place_and_renamed(self, reviewer: Client, ann: User) -> None:
        trace = make_trace()
        found = say(trace, ann, score=1, comment="old", correction={"sentiment": "positive"})
        page = reviewer.get(page_of(trace)).content.decode()
        assert f'name="feedback" value="{found.pk}"' in page
        assert '<option value="&quot;positive&quot;" selected>' in page
        edited = {"feedback": str(found.pk), "name": "tone", "score": "1.0", "comment": "new"}
        assert send(reviewer, trace, save="", **opinion(**edited)).status_code == 302
        assert list(Feedback.objects.values_list("pk", "name", "comment", "correction")) == [
            (found.pk, "tone", "new", None)
        ]
        assert LogEntry.objects.get().get_change_message().startswith("Changed name, comment and correction")

    def test_do_not_take_the_place_of_another_unseen(self, reviewer: Client, ann: User) -> None:
        trace = make_trace()
        say(trace, ann, comment="first")
        other = say(trace, ann, name="tone", comment="second")
        for data in (opinion(comment="third"), opinion(comment="third", feedback=str(other.pk))):
            response = send(reviewer, trace, save="", **data)
            assert list(response.context["review"]["form"].errors) == ["name"]
        assert sorted(Feedback.objects.values_list("comment", flat=True)) == ["first", "second"]

    def test_of_others_cannot_be_edited_or_deleted(self, reviewer: Client) -> None:
        trace = make_trace()
        bob = User.objects.create_user("bob")
        theirs = say(trace, bob, comment="bob's")
        assert f"feedback={theirs.pk}#review" not in reviewer.get(page_of(trace)).content.decode()
        send(reviewer, trace, save="", **opinion(comment="mine", feedback=str(theirs.pk)))
        send(reviewer, trace, delete=str(theirs.pk))
        theirs.refresh_from_db()
        assert theirs.comment == "bob's"
        assert Feedback.objects.count() == 2

    def test_are_deleted(self, reviewer: Client, ann: User) -> None:
        trace = make_trace()
        found = say(trace, ann, comment="x")
        for _ in range(2):
            assert send(reviewer, trace, delete=str(found.pk)).status_code == 302
        assert not Feedback.objects.exists()
        assert [entry.get_change_message() for entry in LogEntry.objects.all()] == ["Deleted feedback “review”."]
        for text in ("", "x", "-1", "9" * 40):
            assert send(reviewer, trace, delete=text).status_code == 302

    def test_may_be_about_one_span(self, reviewer: Client) -> None:
        trace = make_trace()
        page = reviewer.get(page_of(trace, f"?span={'c' * 16}")).content.decode()
        assert f'<option value="{"c" * 16}">' in page
        response = send(reviewer, trace, f"?span={'c' * 16}", save="", **opinion(span_id="c" * 16, label="slow"))
        assert response["Location"] == page_of(trace, f"?span={'c' * 16}#review")
        assert Feedback.objects.get().span_id == "c" * 16

    def test_about_a_span_that_is_not_there_are_refused_beside_the_field(self, reviewer: Client) -> None:
        trace = make_trace()
        response = send(reviewer, trace, f"?span={'f' * 16}", save="", **opinion(span_id="f" * 16, label="slow"))
        assert list(response.context["review"]["form"].errors) == ["span_id"]

    def test_of_people_and_keys_show_with_author_and_time(self, reviewer: Client, ann: User) -> None:
        trace = make_trace()
        bob = User.objects.create_user("bob")
        say(trace, bob, name="helpful", score=0.25, label=HOSTILE, comment=HOSTILE, correction={"topics": [HOSTILE]})
        Feedback.objects.create(trace=trace, name="auto", score=1, author="key:77")
        page = reviewer.get(page_of(trace)).content.decode()
        for text in ("bob", "key:77", "helpful", "0.25", "2 opinions"):
            assert text in page
        assert "<script>alert" not in page
        assert "<img src=x" not in page

    def test_of_a_program_that_is_gone_take_no_correction(self, reviewer: Client) -> None:
        trace = make_trace()
        Trace.objects.update(program_name="gone")
        page = reviewer.get(page_of(trace)).content.decode()
        assert "not served any more" in page
        assert "correction." not in page
        assert send(reviewer, trace, save="", **opinion(label="ok")).status_code == 302

    def test_of_a_program_that_declares_no_outputs_take_an_object(self, reviewer: Client) -> None:
        (trace,) = make_traces(1, program_name="threaded")
        response = send(reviewer, trace, save="", name="review", correction="[1]")
        assert list(response.context["review"]["form"].errors) == ["correction"]
        assert send(reviewer, trace, save="", name="review", correction='{"anything": 1}').status_code == 302
        assert Feedback.objects.get().correction == {"anything": 1}

    def test_more_than_can_be_shown_are_stated(self, reviewer: Client, ann: User) -> None:
        trace = make_trace()
        Feedback.objects.bulk_create(
            Feedback(trace=trace, name="auto", author=f"key:{number}", score=1) for number in range(250)
        )
        mine = say(trace, ann, comment="mine")
        page = reviewer.get(page_of(trace)).content.decode()
        assert "more opinions than are shown" in page
        assert page.count('class="dspyserve-opinion"') == 200
        assert f"feedback={mine.pk}#review" in page

    def test_hostile_outputs_stay_within_their_fields(self, reviewer: Client) -> None:
        trace = make_trace()
        hostile = {"contact": {"name": "</textarea><script>alert(1)</script>"}, "sentiment": HOSTILE, "topics": []}
        SpanPayload.objects.filter(span__trace=trace, span__sequence=1).update(outputs=hostile)
        page = reviewer.get(page_of(trace)).content.decode()
        assert "<script>alert" not in page
        assert page.count("<textarea") == page.count("</textarea>") == 3


class TestRights:
    PERMISSIONS = ("view_trace", "view_payload", "view_feedback", "add_feedback", "change_feedback", "delete_feedback")

    def without(self, *codenames: str) -> Client:
        """A member of the staff with all but these."""
        return viewer(*(name for name in self.PERMISSIONS if name not in codenames))

    def own(self, trace: Trace) -> Feedback:
        """What bob said."""
        return say(
            trace, User.objects.get(username="bob"), score=1, comment="mine", correction={"sentiment": "positive"}
        )

    def test_to_add(self) -> None:
        trace = make_trace()
        bob = self.without("add_feedback")
        assert "review_score" not in bob.get(page_of(trace)).content.decode()
        assert send(bob, trace, save="", **opinion(label="x")).status_code == 403
        assert send(bob, trace, thumb="up").status_code == 403
        theirs = say(trace, User.objects.create_user("eve"), comment="eve's")
        assert send(bob, trace, save="", **opinion(label="x", feedback=str(theirs.pk))).status_code == 403
        found = self.own(trace)
        assert "review_score" in bob.get(page_of(trace)).content.decode()
        assert send(bob, trace, save="", **opinion(label="x", feedback=str(found.pk))).status_code == 302

    def test_to_change(self) -> None:
        trace = make_trace()
        bob = self.without("change_feedback")
        found = self.own(trace)
        page = bob.get(page_of(trace)).content.decode()
        assert f"feedback={found.pk}#review" not in page
        assert f'name="feedback" value="{found.pk}"' not in page
        assert send(bob, trace, save="", **opinion(label="x", feedback=str(found.pk))).status_code == 403
        assert send(bob, trace, thumb="up").status_code == 302
        assert send(bob, trace, thumb="down").status_code == 403

    def test_to_delete(self) -> None:
        trace = make_trace()
        bob = self.without("delete_feedback")
        found = self.own(trace)
        assert 'name="delete"' not in bob.get(page_of(trace)).content.decode()
        assert send(bob, trace, delete=str(found.pk)).status_code == 403
        send(bob, trace, thumb="up")
        assert send(bob, trace, thumb="none").status_code == 403
        assert Feedback.objects.count() == 2

    def test_to_see_that_of_others(self) -> None:
        trace = make_trace()
        say(trace, User.objects.create_user("eve"), comment="a rumour")
        bob = self.without("view_feedback")
        self.own(trace)
        page = bob.get(page_of(trace)).content.decode()
        assert "a rumour" not in page
        assert "1 opinion" in page

    def test_to_see_texts(self) -> None:
        trace = make_trace()
        bob = self.without("view_payload")
        found = self.own(trace)
        say(trace, User.objects.create_user("eve"), score=1, correction={"sentiment": "secret sentiment"})
        page = bob.get(page_of(trace)).content.decode()
        assert "secret sentiment" not in page
        assert "correction." not in page
        sent = opinion(feedback=str(found.pk), comment="new", **{"correction.sentiment": '"negative"'})
        assert send(bob, trace, save="", **sent).status_code == 302
        found.refresh_from_db()
        assert (found.comment, found.correction) == ("new", {"sentiment": "positive"})

    def test_to_see_traces_at_all(self, client: Client) -> None:
        trace = make_trace()
        paths = [f"{LIST}{trace.pk}/review/", f"{LIST}unreviewed/"]
        for path in paths:
            assert client.post(path, {"thumb": "up"}).status_code == 302
        bob = self.without("view_trace")
        for path in paths:
            assert bob.post(path, {"thumb": "up"}).status_code == 403
        assert not Feedback.objects.exists()

    def test_other_sites_cannot_send_the_form(self, ann: User) -> None:
        trace = make_trace()
        strict = Client(enforce_csrf_checks=True)
        strict.force_login(ann)
        assert send(strict, trace, thumb="up").status_code == 403
        assert not Feedback.objects.exists()

    def test_a_trace_that_is_not_there(self, reviewer: Client) -> None:
        for pk in ("nonsense", "0" * 32):
            assert reviewer.post(f"{LIST}{pk}/review/", {"thumb": "up"}).status_code == 302


class TestNeighbours:
    def test_are_those_of_the_list_that_one_came_from(self, reviewer: Client) -> None:
        traces = make_traces(5)
        Trace.objects.filter(pk__in=[traces[0].pk, traces[2].pk, traces[4].pk]).update(status="failed")
        query = "?" + urlencode({"_changelist_filters": "q=status:failed"})
        page = reviewer.get(page_of(traces[2], query)).content.decode()
        kept = quote("q=status:failed", safe="")
        assert links(page) == [
            ("prev", page_of(traces[0], f"?_changelist_filters={kept}")),
            ("next", page_of(traces[4], f"?_changelist_filters={kept}")),
        ]
        plain = reviewer.get(page_of(traces[2])).content.decode()
        assert links(plain) == [
            ("prev", page_of(traces[1])),
            ("next", page_of(traces[3])),
        ]

    def test_end_where_the_list_ends(self, reviewer: Client) -> None:
        (trace,) = make_traces(1)
        page = reviewer.get(page_of(trace)).content.decode()
        assert 'rel="prev"' not in page
        assert 'rel="next"' not in page

    def test_of_a_list_that_is_not_understood_are_those_of_the_whole(self, reviewer: Client) -> None:
        traces = make_traces(2)
        query = "?" + urlencode({"_changelist_filters": "q=colour:red"})
        page = reviewer.get(page_of(traces[0], query)).content.decode()
        assert [name for name, _ in links(page)] == ["next"]


class TestQueue:
    def test_goes_through_what_nobody_reviewed(self, reviewer: Client, ann: User) -> None:
        traces = make_traces(4)
        say(traces[1], ann)
        assert reviewer.get(f"{LIST}unreviewed/")["Location"] == page_of(traces[0])
        response = send(reviewer, traces[0], **opinion(label="ok", next=""), **{"correction.answer": ""})
        assert response["Location"] == f"{LIST}unreviewed/?after={traces[0].pk.hex}"
        assert reviewer.get(response["Location"])["Location"] == page_of(traces[2])

    def test_goes_on_where_a_thumb_was_all(self, reviewer: Client) -> None:
        trace = make_trace()
        send(reviewer, trace, thumb="up")
        response = send(reviewer, trace, next="", **opinion())
        assert response["Location"].startswith(f"{LIST}unreviewed/")
        assert Feedback.objects.count() == 1
        response = send(reviewer, trace, save="", **opinion())
        assert response.status_code == 200

    def test_comes_back_to_what_was_passed_over_and_ends_at_the_list(self, reviewer: Client, ann: User) -> None:
        traces = make_traces(2)
        last = f"{LIST}unreviewed/?after={traces[1].pk.hex}"
        assert reviewer.get(last)["Location"] == page_of(traces[0])
        say(traces[0], ann)
        page = reviewer.get(last, follow=True)
        assert page.redirect_chain[-1][0] == page_of(traces[1])
        assert "the last one that is not reviewed" in page.content.decode()
        say(traces[1], ann)
        page = reviewer.get(last, follow=True)
        assert page.redirect_chain[-1][0] == LIST
        assert "Everything in this list is reviewed" in page.content.decode()

    def test_stays_within_the_list(self, reviewer: Client) -> None:
        traces = make_traces(3)
        Trace.objects.filter(pk=traces[1].pk).update(status="failed")
        query = urlencode({"_changelist_filters": "q=status:failed"})
        response = reviewer.get(f"{LIST}unreviewed/?{query}")
        assert response["Location"] == page_of(traces[1], f"?{query}")
        response = send(reviewer, traces[1], f"?{query}", next="", name="review", label="x")
        assert query in response["Location"]

    def test_takes_whatever_is_said_of_where_to_go_on(self, reviewer: Client) -> None:
        (trace,) = make_traces(1)
        for after in ("nonsense", "0" * 32, ""):
            assert reviewer.get(f"{LIST}unreviewed/?after={after}")["Location"] == page_of(trace)

    def test_takes_the_same_queries_for_ten_times_the_traces(self, reviewer: Client, ann: User) -> None:
        counts = []
        for more in (10, 90):
            for trace in make_traces(more)[: more // 2]:
                say(trace, ann)
            with CaptureQueriesContext(connection) as queries:
                reviewer.get(f"{LIST}unreviewed/")
            counts.append(len(queries))
        authentication = 2
        assert counts[0] == counts[1] <= 1 + authentication, queries.captured_queries


def test_queries_of_the_page_do_not_grow_with_the_opinions(reviewer: Client) -> None:
    trace = make_trace()
    reviewer.get(page_of(trace))
    counts = []
    for first in (1, 10):
        for number in range(first, 10 * first):
            user = User.objects.create_user(f"user {number}")
            say(trace, user, comment="x", correction={"topics": []})
        with CaptureQueriesContext(connection) as queries:
            assert reviewer.get(page_of(trace)).status_code == 200
        counts.append(len(queries))
    authentication = 2
    assert counts[0] == counts[1] <= 6 + authentication, queries.captured_queries


def test_what_only_looks_at_the_address_goes_to_the_page(reviewer: Client) -> None:
    trace = make_trace()
    response = reviewer.get(f"{LIST}{trace.pk}/review/?span={'c' * 16}")
    assert response["Location"] == page_of(trace, f"?span={'c' * 16}")
    assert Span.objects.filter(trace=trace, span_id="c" * 16).exists()
