"""The list of traces: what it shows, whom, how it is searched, paged and emptied."""

from __future__ import annotations

import datetime
import re
import uuid
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from django.contrib.admin.models import DELETION, LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from dspyserve.models import APIKey, Feedback, LanguageModel, Program, SavedView, Span, SpanPayload, Trace
from dspyserve.tracing.search import Cursor
from tests.admin.test_traces import HOSTILE, LIST, make_traces, viewer

pytestmark = pytest.mark.django_db


@pytest.fixture
def ann() -> User:
    return User.objects.create_superuser("ann")


@pytest.fixture
def reviewer(client: Client, ann: User) -> Client:
    client.force_login(ann)
    return client


def listed(client: Client, **query: Any) -> list[Trace]:
    """The traces of the first page."""
    response = client.get(LIST, query)
    assert response.status_code == 200, response.content
    return [row.trace for row in response.context["rows"]]


def text(client: Client, **query: Any) -> str:
    return str(client.get(LIST, query).content.decode())


class TestRows:
    def test_tell_how_traces_went(self, reviewer: Client, ann: User) -> None:
        make_traces(
            1,
            input_preview="the question",
            output_preview="the answer",
            duration_ms=1234,
            first_token_ms=321,
            cost=0.0012,
            input_tokens=5,
            version_number=7,
            user=ann,
            session_id="chat 1",
            tags=["beta", "b", "c", "d"],
            error_count=2,
        )
        page = text(reviewer)
        for said in (
            "the question",
            "the answer",
            "1.23 s",
            "321 ms",
            "$0.0012",
            "5 → –",
            "v7",
            "Succeeded",
            "2 errors",
        ):
            assert said in page
        assert "?q=user%3Aann" in page
        assert "?q=session%3A%22chat+1%22" in page
        assert "?q=tag%3Abeta" in page
        assert "+1</span>" in page

    def test_are_text_whatever_they_hold(self, reviewer: Client) -> None:
        (trace,) = make_traces(
            1, input_preview=HOSTILE, output_preview=HOSTILE, session_id=HOSTILE, tags=[HOSTILE], program_name=HOSTILE
        )
        Feedback.objects.create(trace=trace, name=HOSTILE, label=HOSTILE, author="user:1")
        page = text(reviewer, q=HOSTILE.split(">")[1])
        assert page.count("&lt;script&gt;") >= 5
        assert "<script>alert" not in page
        assert "<img" not in page
        assert "style=" not in page.split('id="content-main"')[1]
        assert "onclick" not in page
        # What stands in the fields of a form is to be searched for as it is.
        shown = re.sub("<input[^>]*>", "", page.split('id="content-main"')[1])
        assert "\u202e" not in shown
        assert shown.count("[U+202E]") >= 8

    def test_show_texts_to_those_who_may_see_them(self) -> None:
        make_traces(1, input_preview="a secret question", metadata={"k": "v"})
        bob = viewer("view_trace")
        assert "a secret question" not in text(bob)
        assert "Input" not in text(bob)
        (row,) = bob.get(LIST).context["rows"]
        assert (row.input, row.output) == ("", "")
        assert listed(bob, q="secret") == []

    def test_show_feedback(self, reviewer: Client) -> None:
        (trace,) = make_traces(1)
        for author, values in enumerate(
            [
                {"name": "helpful", "score": 1},
                {"name": "safe", "score": 0},
                {"name": "tone", "label": "rude"},
                {"name": "x"},
            ]
        ):
            Feedback.objects.create(trace=trace, author=f"user:{author}", **values)
        (row,) = reviewer.get(LIST).context["rows"]
        assert [(badge.kind, badge.symbol, badge.text) for badge in row.feedback] == [
            ("good", "▲", "helpful"),
            ("bad", "▼", "safe"),
            ("", "", "tone: rude"),
        ]
        assert row.more_feedback == 1

    def test_show_the_feedback_of_others_to_those_who_may_see_it(self) -> None:
        (trace,) = make_traces(1)
        bob = viewer("view_trace")
        me = User.objects.get(username="bob")
        for author, label in (("user:0", "a rumour"), (f"user:{me.pk}", "my own")):
            Feedback.objects.create(trace=trace, author=author, name="tone", label=label)
        assert [badge.text for badge in bob.get(LIST).context["rows"][0].feedback] == ["tone: my own"]
        me.user_permissions.add(Permission.objects.get(codename="view_feedback"))
        assert len(bob.get(LIST).context["rows"][0].feedback) == 2

    def test_lead_to_pages_that_know_the_filter(self, reviewer: Client) -> None:
        make_traces(1)
        (row,) = reviewer.get(LIST, {"status": "succeeded"}).context["rows"]
        kept = parse_qs(urlsplit(row.url).query)["_changelist_filters"]
        assert kept == [urlencode({"q": "status:succeeded"})]
        assert reviewer.get(row.url).status_code == 200
        (row,) = reviewer.get(LIST).context["rows"]
        assert "?" not in row.url

    def test_are_for_those_who_may_see_traces(self, client: Client) -> None:
        assert client.get(LIST).status_code == 302
        stranger = viewer("view_program")
        for path in ("", "new/", "views/", "views/1/delete/"):
            assert stranger.get(LIST + path).status_code == 403

    def test_of_models_that_are_unknown_today(self, reviewer: Client) -> None:
        make_traces(1, status="exploded", transport="pigeon", version_number=0)
        assert "exploded" in text(reviewer)


class TestSearch:
    @pytest.mark.parametrize(
        ("query", "values"),
        [
            ({"q": "program:other"}, {"program_name": "other"}),
            ({"program": "other"}, {"program_name": "other"}),
            ({"version": "4"}, {"version_number": 4}),
            ({"status": "failed"}, {"status": "failed"}),
            ({"q": "-status:succeeded"}, {"status": "timed_out"}),
            ({"transport": "sse"}, {"transport": "sse"}),
            ({"model": "openai/gpt-5"}, {"model": "openai/gpt-5"}),
            ({"q": "model:openai/gpt"}, {"model": "openai/gpt-5"}),
            ({"environment": "prod"}, {"environment": "prod"}),
            ({"error_type": "ValueError"}, {"error_type": "ValueError"}),
            ({"has_errors": "true"}, {"error_count": 2}),
            ({"tag": "Grün"}, {"tags": ["x", "Grün"]}),
            ({"session": "s 1"}, {"session_id": "s 1"}),
            ({"q": "meta.tenant=acme"}, {"metadata": {"tenant": "acme"}}),
            ({"q": "meta.n=5 meta.ok=true"}, {"metadata": {"n": 5, "ok": True}}),
            ({"meta_name": "0", "meta_value": "ü"}, {"metadata": {"0": "ü"}}),
            ({"duration_min": "2s"}, {"duration_ms": 2000}),
            ({"q": "first_token<10ms"}, {"first_token_ms": 9}),
            ({"tokens_min": "100", "tokens_max": "1k"}, {"input_tokens": 60, "output_tokens": 40}),
            ({"cost_min": "$0.5"}, {"cost": 0.5}),
            ({"q": "needle hay"}, {"input_preview": "hay with a Needle"}),
            ({"q": '"a needle"'}, {"output_preview": "hay with a Needle"}),
            ({"text": "a needle"}, {"error_message": "hay with a Needle"}),
        ],
    )
    def test_finds(self, reviewer: Client, query: dict[str, str], values: dict[str, Any]) -> None:
        make_traces(2, duration_ms=5, first_token_ms=10, tags=["grü"], input_preview="needle")
        Trace.objects.create(id=uuid.uuid4(), program_name="qa", status="succeeded", started_at=timezone.now())
        wanted = make_traces(1, **values)
        assert listed(reviewer, **query) == wanted

    def test_finds_what_lacks_something(self, reviewer: Client) -> None:
        (without,) = make_traces(1)
        make_traces(1, tags=["beta"], metadata={"tenant": "acme"}, cost=2.0, error_count=1)
        for term in ("-tag:beta", "-meta.tenant=acme", "-cost>1", "-has:error"):
            assert listed(reviewer, q=term) == [without], term

    def test_finds_by_caller(self, reviewer: Client, ann: User) -> None:
        key = APIKey.objects.create(name="shop", prefix="dsk_abc", digest="d", scopes=[])
        make_traces(1)
        by_user, by_key = make_traces(1, user=ann), make_traces(1, api_key=key)
        for name in ("ann", str(ann.pk)):
            assert listed(reviewer, user=name) == by_user
        for name in ("shop", "dsk_abc", str(key.pk)):
            assert listed(reviewer, api_key=name) == by_key
        for name in ("nobody", "9" * 30):
            assert listed(reviewer, user=name) == listed(reviewer, api_key=name) == []

    def test_finds_by_feedback(self, reviewer: Client) -> None:
        plain, judged, graded = make_traces(3)
        Feedback.objects.create(trace=judged, name="helpful", score=0.2, label="bad", author="user:1")
        Feedback.objects.create(trace=graded, name="grounded", score=0.9, author="evaluator")
        for query, found in [
            ({"has_feedback": "true"}, [judged, graded]),
            ({"has_feedback": "false"}, [plain]),
            ({"reviewed": "false"}, [plain, graded]),
            ({"q": "is:reviewed"}, [judged]),
            ({"q": "feedback:grounded"}, [graded]),
            ({"q": "feedback:helpful<0.5"}, [judged]),
            ({"q": "feedback:helpful>0.5"}, []),
            ({"feedback_name": "helpful", "feedback_value": "bad"}, [judged]),
            ({"feedback_name": "grounded", "feedback_operator": ">=", "feedback_value": "0.9"}, [graded]),
            ({"q": "-feedback:helpful"}, [plain, graded]),
        ]:
            assert listed(reviewer, **query) == found, query

    def test_is_about_seven_days_unless_it_says_when(self, reviewer: Client) -> None:
        new, old = make_traces(2, input_preview="needle", session_id="s")
        when = timezone.now() - datetime.timedelta(days=40)
        Trace.objects.filter(pk=old.pk).update(started_at=when)
        day = datetime.timedelta(days=1)
        for query, found in [
            ({}, [new]),
            ({"q": "needle"}, [new]),
            ({"q": "needle time:any"}, [new, old]),
            ({"window": "any"}, [new, old]),
            ({"window": "30d"}, [new]),
            ({"since": (when - day).isoformat()}, [new, old]),
            ({"since": (when - day).isoformat(), "until": (when + day).isoformat()}, [old]),
            ({"session": "s"}, [new, old]),
            ({"q": old.id.hex}, [old]),
            ({"q": str(old.id)}, [old]),
        ]:
            assert listed(reviewer, **query) == found, query

    def test_finds_a_trace_by_one_of_its_spans(self, reviewer: Client) -> None:
        first, _second = make_traces(2)
        Span.objects.filter(trace=first, kind="lm").update(span_id="0123456789abcdef")
        assert listed(reviewer, q="0123456789ABCDEF time:any") == [first]

    def test_that_is_not_understood_shows_nothing_and_loses_nothing(self, reviewer: Client) -> None:
        make_traces(1)
        response = reviewer.get(LIST, {"q": 'statsu:failed "x y"', "cost_min": "lots", "tag": "beta"})
        page = response.content.decode()
        assert response.status_code == 200
        assert response.context["rows"] == []
        assert "Did you mean status?" in page
        assert "“lots” is no number" in page
        assert 'value="statsu:failed &quot;x y&quot;"' in page
        assert 'value="lots"' in page
        assert 'value="beta"' in page

    def test_box_and_form_say_the_same(self, reviewer: Client) -> None:
        Program.objects.create(name="shop")
        LanguageModel.objects.create(name="m", model="openai/m")
        page = reviewer.get(LIST, {"q": "program:gone duration>=2s duration>1s has:error -tag:x tag:y time:30d"})
        form = page.context["form"]
        shown = {name: form[name].value() for name in form.fields if form[name].value()}
        assert shown == {
            "program": "gone",
            "duration_min": "2s",
            "has_errors": "true",
            "tag": "y",
            "window": "30d",
        }
        assert page.context["carried"] == "duration>1s -tag:x"
        sent = {**shown, "q": page.context["carried"], "status": ""}
        again = reviewer.get(LIST, sent)
        assert again.status_code == 302
        box = parse_qs(urlsplit(again.url).query)["q"]
        assert sorted(box[0].split()) == sorted(page.context["text"].split())
        assert "openai/m" in dict(form.fields["model"].choices)
        assert {"shop", "gone"} <= dict(form.fields["program"].choices).keys()

    def test_can_be_taken_apart_word_by_word(self, reviewer: Client) -> None:
        chips = reviewer.get(LIST, {"q": 'status:failed "a b" time:30d'}).context["chips"]
        assert [chip.text for chip in chips] == ["status:failed", "time:30d", '"a b"']
        assert [parse_qs(chip.url[1:])["q"] for chip in chips] == [
            ['time:30d "a b"'],
            ['status:failed "a b"'],
            ["status:failed time:30d"],
        ]

    def test_is_exported_as_it_is(self, reviewer: Client) -> None:
        exports = reviewer.get(LIST, {"q": "status:failed cost>1"}).context["exports"]
        asked = [parse_qs(urlsplit(link.url).query) for link in exports]
        assert [query["format"] for query in asked] == [["jsonl"], ["csv"], ["dspy"], ["otlp"], ["dspy"]]
        assert all(query["q"] == ["status:failed cost>1"] for query in asked)
        assert viewer("view_trace").get(LIST).context["exports"] == []


class TestPages:
    @pytest.fixture(autouse=True)
    def _small_pages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dspyserve.admin.traces.list.SIZE", 3)

    def test_lead_to_older_and_back_to_newer_ones(self, reviewer: Client) -> None:
        traces = make_traces(11)
        same_time = [trace.pk for trace in traces[4:8]]
        Trace.objects.filter(pk__in=same_time).update(started_at=traces[4].started_at)
        expected = list(Trace.objects.order_by("-started_at", "-pk"))
        pages = [expected[:3], expected[3:6], expected[6:9], expected[9:]]
        assert self.walk(reviewer, "", "older_url") == pages
        last = reviewer.get(LIST, {"after": str(Cursor.of(expected[8]))}).context
        assert self.walk(reviewer, last["newer_url"], "newer_url") == [pages[2], pages[1], pages[0]]

    @staticmethod
    def walk(client: Client, url: str, towards: str) -> list[list[Trace]]:
        """The pages from `url` on, as far as they go."""
        pages = []
        while True:
            context = client.get(LIST + url, follow=True).context
            pages.append([row.trace for row in context["rows"]])
            if not (url := context[towards]):
                return pages

    def test_keep_the_filter(self, reviewer: Client) -> None:
        make_traces(5, status="failed")
        make_traces(5)
        context = reviewer.get(LIST, {"status": "failed"}).context
        context = reviewer.get(LIST + context["older_url"]).context
        assert {row.trace.status for row in context["rows"]} == {"failed"}
        assert len(context["rows"]) == 2

    @pytest.mark.parametrize("cursor", ["nonsense", "1-2", "9999999999999999-" + "f" * 32])
    def test_of_places_that_are_none_are_the_first_one(self, reviewer: Client, cursor: str) -> None:
        traces = make_traces(2)
        for name in ("before", "after"):
            response = reviewer.get(LIST, {name: cursor}, follow=True)
            assert [row.trace for row in response.context["rows"]] == traces

    def test_are_counted_up_to_a_limit(self, reviewer: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dspyserve.admin.traces.list.COUNT_CAP", 4)
        make_traces(4)
        assert reviewer.get(LIST).context["count"] == "4 traces"
        make_traces(2)
        assert reviewer.get(LIST).context["count"] == "4+ traces"


class TestNews:
    def test_are_those_newer_than_the_first_row_that_match(self, reviewer: Client) -> None:
        make_traces(2, status="failed")
        news = reviewer.get(LIST, {"status": "failed"}).context["news"]
        assert reviewer.get(LIST + news).json() == {"count": 0, "text": ""}
        for status in ("failed", "succeeded", "failed"):
            Trace.objects.create(id=uuid.uuid4(), program_name="qa", status=status, started_at=timezone.now())
        assert reviewer.get(LIST + news).json() == {"count": 2, "text": "2 new traces"}

    def test_are_capped(self, reviewer: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dspyserve.admin.traces.list.NEWS_CAP", 2)
        make_traces(4)
        oldest = Trace.objects.order_by("started_at")[0]
        answer = reviewer.get(f"{LIST}new/", {"newest": str(Cursor.of(oldest))}).json()
        assert answer == {"count": 2, "text": "2+ new traces"}

    def test_are_not_asked_for_where_none_can_come(self, reviewer: Client) -> None:
        assert reviewer.get(LIST, {"until": "2026-01-01"}).context["news"] == ""
        assert reviewer.get(LIST).context["news"].startswith("new/?newest=")
        assert reviewer.get(f"{LIST}new/", {"q": "statsu:x"}).status_code == 400


class TestDeleting:
    def test_chosen_traces_go_with_all_they_have(self, reviewer: Client) -> None:
        traces = make_traces(3)
        data = {"action": "delete_traces", "_selected_action": [str(trace.pk) for trace in traces[:2]]}
        asked = reviewer.post(LIST, data).content.decode()
        assert "2 traces and all" in asked
        assert Trace.objects.count() == 3
        reviewer.post(LIST, {**data, "post": "yes"})
        assert list(Trace.objects.all()) == [traces[2]]
        assert (Span.objects.count(), SpanPayload.objects.count()) == (3, 3)

    def test_all_that_the_filter_leaves_go_but_none_that_came_after_the_question(self, reviewer: Client) -> None:
        kept = make_traces(2)
        make_traces(3, status="failed")
        data = {"action": "delete_traces", "select_across": "1"}
        question = reviewer.post(f"{LIST}?status=failed", data)
        assert "3 traces and all" in question.content.decode()
        late = Trace.objects.create(id=uuid.uuid4(), program_name="qa", status="failed", started_at=timezone.now())
        reviewer.post(f"{LIST}?status=failed", {**data, "post": "yes", "asked": question.context["asked"]})
        assert set(Trace.objects.all()) == {*kept, late}

    def test_is_told_by_the_history(self, reviewer: Client) -> None:
        chosen = make_traces(2)
        make_traces(3, status="failed")
        data = {"action": "delete_traces", "post": "yes"}
        reviewer.post(LIST, {**data, "_selected_action": [str(trace.pk) for trace in chosen]})
        entries = LogEntry.objects.filter(action_flag=DELETION).order_by("pk")
        assert {entry.object_id for entry in entries} == {str(trace.pk) for trace in chosen}
        reviewer.post(f"{LIST}?status=failed&window=any", {**data, "select_across": "1"})
        last = entries.last()
        assert last is not None
        assert (str(last.user), str(last.object_repr)) == ("ann", "3 traces: status:failed time:any")
        assert "3 traces: status:failed" in reviewer.get("/admin/").content.decode()

    def test_needs_its_permission_and_a_filter_that_is_understood(self, reviewer: Client) -> None:
        (trace,) = make_traces(1)
        bob = viewer("view_trace")
        for across, chosen in (("1", []), ("0", [str(trace.pk)])):
            data = {"action": "delete_traces", "select_across": across, "_selected_action": chosen, "post": "yes"}
            assert bob.post(LIST, data).status_code == 403
        assert "Delete" not in text(bob).split("content-main")[1]
        across_all = {"action": "delete_traces", "select_across": "1", "post": "yes"}
        assert reviewer.post(f"{LIST}?q=statsu:x", across_all).status_code == 400
        assert Trace.objects.count() == 1

    def test_of_nothing_deletes_nothing(self, reviewer: Client) -> None:
        make_traces(1)
        for data in ({"action": "delete_traces", "post": "yes", "_selected_action": ["x"]}, {"action": "other"}, {}):
            assert reviewer.post(LIST, data).status_code == 302
        assert Trace.objects.count() == 1


class TestSavedViews:
    def test_keep_a_search_under_a_name(self, reviewer: Client, ann: User) -> None:
        query = urlencode({"q": "status:failed"})
        reviewer.post(f"{LIST}views/", {"name": "Broken", "query": query})
        views = reviewer.get(LIST, {"status": "failed"}).context["views"]
        assert [(view.text, view.is_current) for view in views][-1] == ("Broken", True)
        reviewer.post(f"{LIST}views/", {"name": "Broken", "query": "status=timed_out", "is_shared": "on"})
        (view,) = SavedView.objects.all()
        assert (view.owner, view.query, view.is_shared) == (ann, urlencode({"q": "status:timed_out"}), True)

    def test_are_seen_by_their_owners_unless_shared(self, ann: User) -> None:
        for name, is_shared in (("mine", False), ("ours", True)):
            SavedView.objects.create(owner=ann, name=name, is_shared=is_shared)
        page = text(viewer("view_trace"))
        assert "ours" in page
        assert "mine" not in page

    def test_are_deleted_by_their_owners_and_superusers(self, reviewer: Client, ann: User) -> None:
        bob = viewer("view_trace")
        shared, private = [SavedView.objects.create(owner=ann, name=n, is_shared=n == "s") for n in ("s", "p")]
        own = SavedView.objects.create(owner=User.objects.get(username="bob"), name="own")
        assert bob.post(f"{LIST}views/{shared.pk}/delete/").status_code == 403
        assert bob.post(f"{LIST}views/{private.pk}/delete/").status_code == 404
        assert bob.get(f"{LIST}views/{own.pk}/delete/").status_code == 405
        assert SavedView.objects.count() == 3
        assert bob.post(f"{LIST}views/{own.pk}/delete/").status_code == 302
        assert reviewer.post(f"{LIST}views/{shared.pk}/delete/").status_code == 302
        assert list(SavedView.objects.all()) == [private]

    @pytest.mark.parametrize("data", [{"name": " "}, {"name": "x" * 101}, {"name": "x", "query": "q=statsu:x"}])
    def test_that_cannot_be_kept_are_told(self, reviewer: Client, data: dict[str, str]) -> None:
        page = reviewer.post(f"{LIST}views/", data, follow=True).content.decode()
        assert "errorlist" in page or 'class="error"' in page
        assert not SavedView.objects.exists()

    def test_need_the_csrf_token(self, ann: User) -> None:
        strict = Client(enforce_csrf_checks=True)
        strict.force_login(ann)
        assert strict.post(f"{LIST}views/", {"name": "x"}).status_code == 403


def test_nothing_can_be_added_or_changed(reviewer: Client) -> None:
    (trace,) = make_traces(1)
    assert reviewer.get(f"{LIST}add/").status_code == 403
    reviewer.post(f"{LIST}{trace.pk}/change/", {"status": "failed"})
    trace.refresh_from_db()
    assert trace.status == "succeeded"


def test_one_trace_is_deleted_from_its_page(reviewer: Client) -> None:
    (trace,) = make_traces(1)
    assert reviewer.get(f"{LIST}{trace.pk}/delete/").status_code == 200
    reviewer.post(f"{LIST}{trace.pk}/delete/", {"post": "yes"})
    assert not Trace.objects.exists()
    assert not Span.objects.exists()
