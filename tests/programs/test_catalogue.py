"""The programs of a process: built once, followed within seconds, never queried per request."""

from __future__ import annotations

import threading
import time
from typing import Any

import dspy
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from dspyserve import runs
from dspyserve.errors import ProgramError, ProgramNotFound
from dspyserve.models import LanguageModel, Program, ProgramVersion
from dspyserve.programs.catalogue import Catalogue, catalogue

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def program() -> Program:
    return Program.objects.create(name="made", signature="question -> answer", access="public")


class TestFollowing:
    def test_a_program_made_from_a_signature_is_served(self, program: Program) -> None:
        assert runs.execute("made", {"question": "q"}).outputs["answer"].startswith("Demo answer")

    def test_is_built_once_while_nothing_changes(self, program: Program) -> None:
        first = catalogue.get("made")
        catalogue.refresh()
        assert catalogue.get("made") is first

    def test_is_built_once_by_many_threads(self, program: Program) -> None:
        built = []
        threads = [threading.Thread(target=lambda: built.append(catalogue.get("made"))) for _ in range(8)]
        catalogue.refresh()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(built) == 8
        assert len({id(served) for served in built}) == 1

    def test_a_change_of_this_process_is_seen_at_once(self, program: Program) -> None:
        assert "answer" in catalogue.get("made").schema.output_schema["properties"]
        program.signature = "question -> reply"
        program.save()
        assert "reply" in catalogue.get("made").schema.output_schema["properties"]

    def test_a_change_of_another_process_is_seen_in_time(self, program: Program, settings: Any) -> None:
        settings.DSPYSERVE = {**settings.DSPYSERVE, "REFRESH": 0.1}
        catalogue.get("made")
        # Past the signals, as another process's change is.
        Program.objects.filter(name="made").update(signature="question -> reply")
        end = time.monotonic() + 5
        while "reply" not in catalogue.get("made").schema.output_schema["properties"]:
            assert time.monotonic() < end, "the change was not seen"
            time.sleep(0.02)

    def test_after_a_pause_the_first_request_already_sees_it(self, program: Program, settings: Any) -> None:
        settings.DSPYSERVE = {**settings.DSPYSERVE, "REFRESH": 0.05}
        catalogue.get("made")
        Program.objects.filter(name="made").update(signature="question -> reply")
        time.sleep(0.2)
        assert "reply" in catalogue.get("made").schema.output_schema["properties"]

    def test_no_query_while_it_is_fresh(self, program: Program) -> None:
        catalogue.get("made")
        with CaptureQueriesContext(
            connection,
        ) as queries:
            for _ in range(10):
                catalogue.get("made")
        assert len(queries) == 0

    def test_a_change_of_the_language_model_rebuilds(self, program: Program) -> None:
        first = catalogue.get("made")
        model = LanguageModel.objects.get(is_default=True)
        model.parameters = {"temperature": 0.7}
        model.save()
        assert catalogue.get("made").lm.kwargs["temperature"] == 0.7
        assert first.lm.kwargs["temperature"] is None

    def test_goes_on_with_what_is_known_while_the_database_is_away(
        self, program: Program, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.DSPYSERVE = {**settings.DSPYSERVE, "REFRESH": 0.01}
        own = Catalogue()
        own.refresh()
        own.get("made")

        def away() -> None:
            raise RuntimeError("the database is away")

        monkeypatch.setattr(own, "refresh", away)
        time.sleep(0.05)
        own._refresh_in_thread()
        assert own.row("made").name == "made"


class TestWhatIsNotServed:
    @pytest.mark.parametrize("change", [{"is_enabled": False}, {"source": "code"}])
    def test_is_not_found(self, program: Program, change: dict[str, Any]) -> None:
        Program.objects.filter(name="made").update(**change)
        catalogue.forget()
        with pytest.raises(ProgramNotFound):
            catalogue.get("made")

    @pytest.mark.parametrize(
        "change",
        [
            {"signature": "no arrow"},
            {"signature": "config -> answer"},
            {"signature": "question -> answer: __import__('os')"},
            {"execution": "async", "module": "nothing"},
        ],
    )
    def test_a_program_that_cannot_be_built_tells_nothing(self, program: Program, change: dict[str, Any]) -> None:
        Program.objects.filter(name="made").update(**change)
        catalogue.forget()
        with pytest.raises(ProgramError) as caught:
            catalogue.get("made")
        assert caught.value.detail == "The program is not configured correctly."

    @pytest.mark.parametrize("variable", ["MISSING_API_KEY", "SECRET_KEY"])
    def test_a_key_that_is_missing_or_not_allowed(self, program: Program, variable: str) -> None:
        LanguageModel.objects.filter(is_default=True).update(api_key_env=variable, model="openai/gpt-4o-mini")
        catalogue.forget()
        with pytest.raises(ProgramError) as caught:
            catalogue.get("made")
        assert variable in str(caught.value.__cause__)

    def test_without_a_language_model(self, program: Program) -> None:
        LanguageModel.objects.all().delete()
        with pytest.raises(ProgramError):
            catalogue.get("made")


class TestLanguageModels:
    def test_an_address_without_a_key_gets_no_key_from_the_environment(
        self, program: Program, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "the-provider's-own-key")
        LanguageModel.objects.filter(is_default=True).update(model="openai/x", api_base="http://127.0.0.1:1/v1")
        catalogue.forget()
        assert catalogue.get("made").lm.kwargs["api_key"] == "no-key"

    def test_is_not_cached_and_not_retried_unless_asked(self, program: Program) -> None:
        LanguageModel.objects.filter(is_default=True).update(model="openai/x", api_base="http://127.0.0.1:1/v1")
        catalogue.forget()
        lm = catalogue.get("made").lm
        assert (lm.cache, lm.num_retries, lm.kwargs["timeout"]) == (False, 0, 60.0)


class TestVersions:
    def test_the_active_version_is_loaded(self, program: Program) -> None:
        source = dspy.Predict("question -> answer")
        source.signature = source.signature.with_instructions("Answer in French.")
        source.demos = [dspy.Example(question="a", answer="b")]
        version = ProgramVersion.objects.create(program=program, number=1, state=source.dump_state())
        program.active_version = version
        program.save()
        served = catalogue.get("made")
        assert served.template.signature.instructions == "Answer in French."
        assert len(served.template.demos) == 1
        result = runs.execute("made", {"question": "q"})
        assert result.version == 1

    @pytest.mark.parametrize(
        "harm", [{"forward": "x"}, {"callbacks": []}, {"signature": {"instructions": "", "fields": []}}]
    )
    def test_a_state_that_does_not_fit_is_refused(self, program: Program, harm: dict[str, Any]) -> None:
        state = {**dspy.Predict("question -> answer").dump_state(), **harm}
        program.active_version = ProgramVersion.objects.create(program=program, number=1, state=state)
        program.save()
        with pytest.raises(ProgramError):
            catalogue.get("made")

    def test_a_language_model_in_a_state_is_not_pinned(self, program: Program) -> None:
        source = dspy.Predict("question -> answer")
        source.lm = dspy.LM("openai/evil", api_base="http://evil.example")
        program.active_version = ProgramVersion.objects.create(program=program, number=1, state=source.dump_state())
        program.save()
        assert catalogue.get("made").template.lm is None
