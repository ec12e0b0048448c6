"""Running a trace again from its page, as far as it works without a script."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dspyserve import runs
from dspyserve.models import LanguageModel, Program, Span, SpanPayload, Trace
from dspyserve.programs.versions import add_version
from dspyserve.tracing.sanitize import Sanitizer, is_altered
from tests.admin.rows import nested, write_json
from tests.admin.test_traces import HOSTILE, viewer
from tests.admin.test_versions import state

pytestmark = pytest.mark.django_db(transaction=True)

LIST = "/admin/dspyserve/trace/"
RIGHTS = ("view_trace", "view_payload", "replay_trace")


@pytest.fixture
def program() -> Program:
    return Program.objects.create(name="made", signature="question, count: int -> answer", access="public")


@pytest.fixture
def trace(program: Program) -> Trace:
    """A run of the program."""
    return Trace.objects.get(pk=runs.execute("made", {"question": HOSTILE, "count": 3}).trace_id)


@pytest.fixture
def admin(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ann"))
    return client


def page_of(trace: Trace) -> str:
    """Where it is run again."""
    return f"{LIST}{trace.pk}/replay/"


def newest(trace: Trace) -> Trace:
    """The trace that is no other than `trace`."""
    return Trace.objects.exclude(pk=trace.pk).get()


class TestThePage:
    def test_shows_the_old_inputs_and_outputs(self, admin: Client, trace: Trace) -> None:
        page = admin.get(page_of(trace)).content.decode()
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert(1)" in page
        assert 'value="3"' in page
        assert "Demo answer" in page
        assert "style=" not in page.split('id="content-main"')[1]
        assert f'data-replay-of="{trace.id.hex}"' in page

    def test_is_linked_where_it_may_be_used(self, admin: Client, trace: Trace) -> None:
        assert f'href="{page_of(trace)}"' in admin.get(f"{LIST}{trace.pk}/change/").content.decode()
        assert "replay/" not in viewer("view_trace", "replay_trace").get(f"{LIST}{trace.pk}/change/").content.decode()

    @pytest.mark.parametrize("missing", RIGHTS)
    def test_needs_all_its_permissions(self, trace: Trace, missing: str) -> None:
        bob = viewer(*(right for right in RIGHTS if right != missing))
        assert bob.get(page_of(trace)).status_code == 403
        assert bob.post(page_of(trace), {"input-0": "q", "input-1": "1"}).status_code == 403
        assert Trace.objects.count() == 1

    def test_those_permissions_are_enough(self, trace: Trace) -> None:
        assert viewer(*RIGHTS).get(page_of(trace)).status_code == 200

    def test_inputs_that_were_cut_are_said_so(self, admin: Client, trace: Trace, settings: Any) -> None:
        settings.DSPYSERVE = {**settings.DSPYSERVE, "TRACE_FIELD_LIMIT": 50}
        long = Trace.objects.get(pk=runs.execute("made", {"question": "x" * 100, "count": 3}).trace_id)
        for found, notes in ((trace, 0), (long, 1)):
            page = admin.get(page_of(found)).content.decode()
            assert page.count("What is stored is not all of what went in") == notes

    def test_a_trace_without_texts_and_fields_that_are_gone(
        self, admin: Client, trace: Trace, program: Program
    ) -> None:
        program.signature = "question -> answer"
        program.save()
        assert "no fields any more for: count" in " ".join(admin.get(page_of(trace)).content.decode().split())
        SpanPayload.objects.all().delete()
        assert "The trace holds no inputs" in admin.get(page_of(trace)).content.decode()

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"is_enabled": False}, "The program is not enabled."),
            ({"access": "restricted"}, "You may not run this program."),
            ({"signature": "broken"}, "cannot be read"),
        ],
    )
    def test_says_why_it_cannot_be_run(self, trace: Trace, change: dict[str, Any], reason: str) -> None:
        row = Program.objects.get(name="made")
        for name, value in change.items():
            setattr(row, name, value)
        row.save()
        bob = viewer(*RIGHTS)
        assert reason in bob.get(page_of(trace)).content.decode()
        bob.post(page_of(trace), {"input-0": "q", "input-1": "1"})
        assert Trace.objects.count() == 1

    def test_a_program_that_was_deleted(self, admin: Client, trace: Trace, program: Program) -> None:
        program.delete()
        assert "was deleted" in admin.get(page_of(trace)).content.decode()
        assert admin.get(f"{LIST}{uuid.uuid4()}/replay/").status_code == 404

    def test_a_program_that_is_gone_though_the_trace_refers_to_it(self, admin: Client, trace: Trace) -> None:
        # Traces are stored without a constraint: their program may be deleted a moment before.
        Trace.objects.filter(pk=trace.pk).update(program_id=99_999)
        for page in (page_of(trace), f"{LIST}{trace.pk}/change/", LIST):
            assert admin.get(page).status_code == 200
        assert "was deleted" in admin.get(page_of(trace)).content.decode()

    @pytest.mark.parametrize("depth", [400, 900, 3_000])
    def test_inputs_that_nest_deep_are_shown(self, admin: Client, trace: Trace, program: Program, depth: int) -> None:
        if depth > 1_000 and connection.vendor == "sqlite":
            pytest.skip("SQLite takes no JSON that deep")
        program.signature = "question, count: int, numbers: list[int], mood: Literal['good', 'bad'] -> answer"
        program.save()
        run = Span.objects.get(trace=trace, sequence=1)
        for name in ("question", "count", "numbers", "mood", "unknown"):
            for column in ("inputs", "outputs"):
                write_json(run, column, f'{{"{name}": {nested(depth)}}}')
            page = admin.get(page_of(trace)).content.decode()
            assert ("The trace holds no inputs" in page) == (depth > 1_000)
            assert ("bottom" in page) == (depth < 1_000)

    def test_what_the_old_run_had_is_chosen(self, admin: Client, program: Program) -> None:
        add_version(program, state("one", signature=program.signature))
        LanguageModel.objects.create(name="other", model="demo/other")
        values = {"program": program, "program_name": "made", "status": "succeeded", "transport": "rest"}
        old = Trace.objects.create(
            id=uuid.uuid4(), started_at=timezone.now(), model="demo/other", version_number=1, **values
        )
        page = admin.get(page_of(old)).content.decode()
        assert '<option value="other" selected>' in page
        assert '<option value="1" selected>' in page


class TestRunning:
    def test_a_post_runs_it_and_leads_to_the_new_trace(self, admin: Client, trace: Trace) -> None:
        LanguageModel.objects.create(name="other", model="demo/other")
        add_version(Program.objects.get(name="made"), state("one", signature="question, count: int -> answer"))
        data = {"input-0": "two\r\nlines", "input-1": "5", "language_model": "other", "version": "1"}
        response = admin.post(page_of(trace), data)
        found = newest(trace)
        assert response["Location"] == f"{LIST}{found.id.hex}/change/"
        assert (found.replay_of_id, found.model, found.version_number) == (trace.pk, "demo/other", 1)
        assert (found.tags, str(found.user)) == (["replay"], "ann")
        assert SpanPayload.objects.get(span__trace=found, span__sequence=1).inputs == {
            "question": "two\nlines",
            "count": 5,
        }

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"input-1": ""}, "This field is required."),
            ({"input-1": "x"}, "Input should be a valid integer"),
            ({"language_model": "nobody"}, "There is no language model of this name."),
            ({"version": "9"}, "The program has no version of this number."),
            ({"version": "x"}, "The number of a version is needed"),
        ],
    )
    def test_what_is_wrong_is_told_and_nothing_is_lost(
        self, admin: Client, trace: Trace, values: dict[str, str], message: str
    ) -> None:
        response = admin.post(page_of(trace), {"input-0": "my question", "input-1": "5", **values})
        page = response.content.decode()
        assert message in page
        assert "my question" in page
        assert Trace.objects.count() == 1

    def test_one_that_fails_leads_to_its_trace(self, admin: Client, program: Program, trace: Trace) -> None:
        LanguageModel.objects.create(name="away", model="openai/x", api_base="http://127.0.0.1:1/v1")
        data = {"input-0": "q", "input-1": "5", "language_model": "away"}
        response = admin.post(page_of(trace), data)
        assert response["Location"] == f"{LIST}{newest(trace).id.hex}/change/"
        assert newest(trace).status == "failed"

    def test_counts_against_the_quota(self, admin: Client, trace: Trace, settings: Any) -> None:
        settings.DSPYSERVE = {**settings.DSPYSERVE, "RATE_LIMIT_USER": "1/hour"}
        data = {"input-0": "q", "input-1": "5"}
        assert admin.post(page_of(trace), data).status_code == 302
        assert "Too many requests" in admin.post(page_of(trace), data).content.decode()
        assert Trace.objects.count() == 2


class TestTheTracePage:
    def test_tells_of_replays_and_originals(self, admin: Client, trace: Trace) -> None:
        admin.post(page_of(trace), {"input-0": "q", "input-1": "5"})
        found = newest(trace)
        old, new = (admin.get(f"{LIST}{row.pk}/change/").content.decode() for row in (trace, found))
        assert f'href="{LIST}{found.pk}/change/"' in old
        assert f'href="{LIST}{trace.pk}/change/"' in new
        assert f"compare/?a={trace.id.hex}&amp;b={found.id.hex}" in new

    def test_with_one_query_whose_index_is_used(self, admin: Client, trace: Trace) -> None:
        now = timezone.now()
        values = {"program_name": "made", "status": "succeeded", "transport": "rest", "replay_of": trace}
        counts = []
        for more in (3, 30):
            Trace.objects.bulk_create(
                Trace(id=uuid.uuid4(), started_at=now - datetime.timedelta(seconds=number), **values)
                for number in range(more)
            )
            with CaptureQueriesContext(connection) as queries:
                page = admin.get(f"{LIST}{trace.pk}/change/").content.decode()
            counts.append(len(queries))
        assert counts[0] == counts[1]
        assert sum('"replay_of_id" = ' in query["sql"] for query in queries) == 1
        assert page.count("succeeded, ") == 20
        if connection.vendor == "sqlite":
            plan = Trace.objects.filter(replay_of=trace.pk).order_by("-started_at", "-id").explain()
            assert "dspyserve_trace_replays" in plan
            assert "TEMP B-TREE" not in plan


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a plain text [3 more] or so", False),
        ({"a": [1, None, "x"]}, False),
        ("x" * 200, True),
        ({"api_key": "abc"}, True),
        (["data:image/png;base64," + "A" * 100], True),
        ([0] * 10_001, True),
        ({str(number): 0 for number in range(10_001)}, True),
    ],
)
def test_what_is_not_kept_whole_is_known(value: Any, expected: bool) -> None:
    assert is_altered(Sanitizer(field_limit=100).clean(value)) is expected


def test_deep_values_are_known_too() -> None:
    deep: Any = "x"
    for _ in range(40):
        deep = [deep]
    assert is_altered(Sanitizer().clean(deep))
