"""The pages of a program's versions: what they show, and what may be done there by whom."""

from __future__ import annotations

import datetime
import json
from io import BytesIO
from typing import Any

import dspy
import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from dspyserve import runs
from dspyserve.admin.programs import state_page
from dspyserve.models import Program, ProgramVersion
from dspyserve.programs.versions import activate_version, add_version
from tests.admin.test_dashboard import insert
from tests.admin.test_traces import HOSTILE, viewer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def program() -> Program:
    return Program.objects.create(name="made", signature="question -> answer", access="public")


@pytest.fixture
def admin(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ann"))
    return client


def state(instructions: str, *demos: str, signature: str = "question -> answer") -> dict[str, Any]:
    """A state of these instructions, with a demo for each of `demos`."""
    source = dspy.Predict(signature)
    source.signature = source.signature.with_instructions(instructions)
    source.demos = [dspy.Example(question=text, answer="x", augmented=True) for text in demos]
    found: dict[str, Any] = source.dump_state()
    return found


def address(program: Program, rest: str) -> str:
    """A page of the program."""
    return f"/admin/dspyserve/program/{program.pk}/{rest}"


def upload(client: Client, program: Program, document: Any, **values: Any) -> Any:
    """Send a state as a file."""
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return client.post(address(program, "versions/add/"), {"file": BytesIO(text), **values}, follow=True)


class TestUpload:
    def test_stores_activates_and_remembers_who_did(self, admin: Client, program: Program) -> None:
        page = upload(admin, program, state("one"), note="first", metrics='{"f1": 0.5}', activate="on")
        assert page.redirect_chain[-1][0] == address(program, "versions/1/")
        row = ProgramVersion.objects.get()
        assert (row.note, row.metrics, str(row.author)) == ("first", {"f1": 0.5}, "ann")
        assert runs.execute("made", {"question": "q"}).version == 1
        entries = LogEntry.objects.order_by("pk").values_list("change_message", flat=True)
        assert list(entries) == ["Version 1 was uploaded.", "Version 1 is active."]

    def test_text_is_as_good_as_a_file(self, admin: Client, program: Program) -> None:
        admin.post(address(program, "versions/add/"), {"text": json.dumps(state("one"))})
        assert ProgramVersion.objects.get().number == 1

    @pytest.mark.parametrize(
        ("document", "message"),
        [
            (b"", "The submitted file is empty"),
            (b"{", "This is not JSON"),
            (b"[]", "a state is a JSON object"),
            ({"a": 1}, "names predictors that the program does not have"),
            (state("x", signature="question -> answer, more"), "has 3 fields, its signature 2"),
        ],
    )
    def test_what_is_refused_stays_in_the_form(
        self, admin: Client, program: Program, document: Any, message: str
    ) -> None:
        page = upload(admin, program, document, note="my note", metrics='{"f1": 0.5}').content.decode()
        assert message in page
        assert "my note" in page
        assert "&quot;f1&quot;: 0.5" in page
        assert not ProgramVersion.objects.exists()

    def test_a_state_of_other_fields_is_kept_for_a_second_look(self, admin: Client, program: Program) -> None:
        document = state("x", signature="query -> answer")
        page = upload(admin, program, document)
        assert "self has the fields Question, Answer, its state Query, Answer" in page.content.decode()
        kept = page.context["form"]["text"].value()
        assert json.loads(kept) == document
        admin.post(address(program, "versions/add/"), {"text": kept, "force": "on"})
        assert ProgramVersion.objects.get().state == document

    def test_the_doubtful_is_only_offered_where_there_is_doubt(self, admin: Client, program: Program) -> None:
        assert 'name="force"' not in admin.get(address(program, "versions/add/")).content.decode()

    @pytest.mark.parametrize("metrics", ["[1]", "x"])
    def test_metrics_are_an_object(self, admin: Client, program: Program, metrics: str) -> None:
        assert "metrics" in upload(admin, program, state("x"), metrics=metrics).context["form"].errors

    def test_what_is_stored_already_is_said(self, admin: Client, program: Program) -> None:
        upload(admin, program, state("one"))
        assert "stored already, as version 1" in upload(admin, program, state("one")).content.decode()

    def test_too_large_a_file_is_refused(
        self, admin: Client, program: Program, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("dspyserve.admin.programs.versions.MAX_UPLOAD", 10)
        assert "At most 10 bytes" in upload(admin, program, state("one")).content.decode()


class TestPages:
    def test_a_version_reads_as_instructions_and_demos(self, admin: Client, program: Program) -> None:
        add_version(program, state(f"Say {HOSTILE}", HOSTILE), note=HOSTILE, metrics={"f1": 0.5})
        page = admin.get(address(program, "versions/1/")).content.decode()
        assert "<script>alert" not in page
        assert page.count("&lt;script&gt;alert(1)") >= 4
        assert "0.5" in page
        assert "style=" not in page.split('id="content-main"')[1]
        assert "<td>augmented</td>" not in page
        assert page.index(">question</th>") < page.index(">augmented</th>")

    def test_the_program_lists_them_without_their_states(self, admin: Client, program: Program) -> None:
        admin.get(address(program, "change/"))  # what is read once per process
        counts = []
        for more in (2, 20):
            for _ in range(more):
                add_version(program, state(f"{ProgramVersion.objects.count()}"))
            with CaptureQueriesContext(connection) as queries:
                page = admin.get(address(program, "change/")).content.decode()
            counts.append(len(queries))
            assert not [query for query in queries if '"dspyserve_programversion"."state"' in query["sql"]]
        assert counts[0] == counts[1]
        assert 'versions/22/">v22</a>' in page

    def test_the_file_is_what_was_stored(self, admin: Client, program: Program) -> None:
        add_version(program, state("one", "a"))
        response = admin.get(address(program, "versions/1/state.json"))
        assert response.json() == state("one", "a")
        assert response["Content-Disposition"] == 'attachment; filename="made-v1.json"'

    def test_two_compare_by_words_and_demos(self, admin: Client, program: Program) -> None:
        add_version(program, state("Answer in a few words.", "gone", "kept"), metrics={"f1": 0.5})
        add_version(program, state("Answer in two words.", "kept", "new"), metrics={"f1": 0.75})
        page = admin.get(address(program, "versions/compare/?a=1&b=2")).content.decode()
        assert "−</span>a few </del>" in page
        assert "+</span>two </ins>" in page
        assert "<td>0.5</td><td>0.75</td>" in page
        assert "Demos that are gone</h3>" in page.replace(" (1)", "")
        assert "1 demo is in both." in page

    def test_one_compares_with_the_program_as_it_is_written(self, admin: Client, program: Program) -> None:
        add_version(program, state("New instructions."))
        page = admin.get(address(program, "versions/compare/?b=1")).content.decode()
        assert "as it is written → v1" in page
        assert "New instructions." in page

    @pytest.mark.parametrize("rest", ["versions/7/", "versions/7/state.json", "versions/compare/?a=7"])
    def test_there_is_nothing_of_unknown_numbers(self, admin: Client, program: Program, rest: str) -> None:
        assert admin.get(address(program, rest)).status_code == 404

    def test_a_program_that_cannot_be_built_says_so(self, admin: Client, program: Program) -> None:
        add_version(program, state("one"))
        Program.objects.filter(pk=program.pk).update(signature="broken")
        for rest in ("versions/1/", "versions/compare/?a=0&b=1"):
            assert "cannot be read" in admin.get(address(program, rest)).content.decode()


class TestActivation:
    def test_rolls_back_and_deactivates(self, admin: Client, program: Program) -> None:
        for text in ("one", "two"):
            add_version(program, state(text))
        for number in (2, 1, 0):
            assert admin.post(address(program, f"versions/{number}/activate/")).status_code == 302
            assert runs.execute("made", {"question": "q"}).version == (number or None)
        assert LogEntry.objects.count() == 3

    def test_takes_a_post(self, admin: Client, program: Program) -> None:
        add_version(program, state("one"))
        assert admin.get(address(program, "versions/1/activate/")).status_code == 405

    def test_a_program_whose_fields_changed_asks_first(self, admin: Client, program: Program) -> None:
        add_version(program, state("one"))
        Program.objects.filter(pk=program.pk).update(signature="query -> answer")
        assert "have changed since" in admin.get(address(program, "versions/1/")).content.decode()
        page = admin.post(address(program, "versions/1/activate/"), follow=True).content.decode()
        assert "It was not activated" in page
        assert Program.objects.get(pk=program.pk).active_version is None
        admin.post(address(program, "versions/1/activate/"), {"force": "on"})
        assert Program.objects.get(pk=program.pk).active_version is not None


class TestPermissions:
    def test_viewers_see_and_change_nothing(self, program: Program) -> None:
        activate_version(program, add_version(program, state("one")).row)
        bob = viewer("view_program")
        page = bob.get(address(program, "versions/1/")).content.decode()
        assert "Deactivate" not in page
        assert bob.get(address(program, "versions/compare/?a=0&b=1")).status_code == 200
        assert "Upload a state" not in bob.get(address(program, "change/")).content.decode()
        assert bob.get(address(program, "versions/add/")).status_code == 403
        assert upload(bob, program, state("two")).status_code == 403
        assert bob.post(address(program, "versions/0/activate/")).status_code == 403
        assert Program.objects.get(pk=program.pk).active_version is not None

    def test_who_adds_versions_may_not_activate_them(self, program: Program) -> None:
        bob = viewer("view_program", "add_programversion")
        upload(bob, program, state("one"), activate="on")
        assert ProgramVersion.objects.count() == 1
        assert Program.objects.get(pk=program.pk).active_version is None

    @pytest.mark.parametrize("rest", ["versions/1/", "versions/compare/", "versions/1/state.json", "playground/"])
    def test_strangers_see_nothing(self, program: Program, rest: str) -> None:
        add_version(program, state("one"))
        assert viewer("view_trace").get(address(program, rest)).status_code == 403
        assert Client().get(address(program, rest)).status_code == 302


class TestStates:
    def test_hostile_shapes_are_read_as_nothing(self) -> None:
        for entry in (None, 3, [], {"signature": []}, {"signature": {"fields": [1]}, "demos": [1, {"a": None}]}):
            (found,) = state_page.predictors({"predict": entry})
            assert found.instructions == ""
            assert state_page.differences({"predict": entry}, {"predict": entry})[0].is_same

    def test_texts_are_told_apart_by_words_and_long_ones_by_lines(self) -> None:
        old, new = "one two three", "one 2 three"
        assert [(piece.mark, piece.text) for piece in state_page.pieces(old, new)] == [
            ("", "one "),
            ("-", "two "),
            ("+", "2 "),
            ("", "three"),
        ]
        long = "word " * 3_000
        pieces = state_page.pieces(f"{long}\nsame", f"{long}more\nsame")
        assert [piece.mark for piece in pieces] == ["-", "+", ""]

    def test_many_demos_are_counted(self) -> None:
        demos = state_page.demos([{"question": str(number)} for number in range(60)])
        assert (len(demos.rows), demos.hidden, demos.count) == (50, 10, 60)

    def test_a_predictor_that_only_one_has(self) -> None:
        (gone,) = state_page.differences({"a": state("x")}, {})
        assert (gone.is_in, gone.is_same) == ("-", False)


class TestRecentFigures:
    def test_are_those_of_the_program_and_lead_on(self, admin: Client, program: Program) -> None:
        insert(3, program_name="made", duration_ms=1000.0, cost=0.25, input_tokens=100, output_tokens=10)
        insert(1, program_name="made", status="failed", ago=datetime.timedelta(days=3), duration_ms=1000.0, cost=0.25)
        insert(5, program_name="other")
        rows = admin.get(address(program, "change/")).context["figures"]
        assert [(row.runs, row.error_rate, row.cost) for row in rows] == [("3", "0 %", "$0.75"), ("4", "25 %", "$1.00")]
        assert rows[0].tokens == "300 → 30"
        page = admin.get(rows[1].traces_url)
        assert page.status_code == 200
        assert admin.get(rows[1].dashboard_url).status_code == 200
        assert admin.get(rows[1].failures_url).status_code == 200

    def test_are_for_those_who_may_see_traces(self, program: Program) -> None:
        insert(1, program_name="made")
        assert "Recent figures" not in viewer("view_program").get(address(program, "change/")).content.decode()
