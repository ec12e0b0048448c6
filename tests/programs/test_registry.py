"""`@register`, the synchronisation of rows, and what the system checks say of both."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest
from django.core.checks import run_checks
from django.core.management import call_command

from dspyserve import register
from dspyserve.errors import RegistrationError
from dspyserve.models import LanguageModel, Program
from dspyserve.programs.registry import registry
from dspyserve.programs.synchronise import synchronise

NAME = "made-in-a-test"


@pytest.fixture(autouse=True)
def _forget_registrations() -> Iterator[None]:
    yield
    registry.remove(NAME)


def declare(**options: object) -> None:
    """Register a program under `NAME`, in place of an earlier one, as new code would after a deployment."""
    registry.remove(NAME)
    register(NAME, **options)(lambda: dspy.Predict("question -> answer"))  # type: ignore[arg-type]


class TestRegister:
    def test_takes_title_and_description_from_name_and_docstring(self) -> None:
        @register(NAME)
        def factory() -> dspy.Module:
            """Answers questions."""
            return dspy.Predict("question -> answer")

        registration = registry.get(NAME)
        assert registration is not None
        assert registration.defaults["title"] == "Made in a test"
        assert registration.defaults["description"] == "Answers questions."

    def test_a_class_without_docstring_has_no_description(self) -> None:
        @register(NAME)
        class Plain(dspy.Module):
            pass

        registration = registry.get(NAME)
        assert registration is not None
        assert registration.defaults["description"] == ""

    @pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "x" * 101])
    def test_refuses_names_that_cannot_stand_in_an_address(self, name: str) -> None:
        with pytest.raises(RegistrationError, match="cannot name a program"):
            register(name)

    def test_a_factory_that_gives_no_module_is_told_with_its_place(self) -> None:
        register(NAME)(lambda: 3)
        registration = registry.get(NAME)
        assert registration is not None
        with pytest.raises(RegistrationError, match=r"test_registry.*int, not a dspy.Module"):
            registration.build()

    def test_duplicates_are_a_check_error(self) -> None:
        register(NAME)(lambda: dspy.Predict("a -> b"))

        def second() -> dspy.Module:
            return dspy.Predict("a -> b")

        register(NAME)(second)
        found = [error for error in run_checks(tags=["dspyserve"]) if error.id == "dspyserve.E003"]
        assert len(found) == 1
        assert NAME in found[0].msg
        assert "second" in found[0].msg

    def test_an_import_error_inside_a_module_is_shown(self, tmp_path: Path) -> None:
        app = tmp_path / "broken"
        app.mkdir()
        (app / "__init__.py").touch()
        (app / "dspy_programs.py").write_text("import a_module_that_does_not_exist\n")
        code = (
            "import django; from django.conf import settings; settings.configure(SECRET_KEY='x', INSTALLED_APPS="
            "['django.contrib.contenttypes', 'django.contrib.auth', 'dspyserve', 'broken']); django.setup()"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert "a_module_that_does_not_exist" in done.stderr


@pytest.mark.django_db
class TestSynchronise:
    def test_creates_rows_and_the_demo_language_model(self) -> None:
        Program.objects.all().delete()
        LanguageModel.objects.all().delete()
        declare(title="Mine", timeout=3.0, access="public")
        done = synchronise()
        assert NAME in done.created
        row = Program.objects.get(name=NAME)
        assert (row.title, row.timeout, row.access, row.source) == ("Mine", 3.0, "public", "code")
        assert LanguageModel.objects.get().is_default

    def test_changes_nothing_the_second_time(self) -> None:
        declare()
        synchronise()
        before = Program.objects.get(name=NAME).updated_at
        done = synchronise()
        assert NAME in done.unchanged
        assert Program.objects.get(name=NAME).updated_at == before

    def test_keeps_what_people_set_and_follows_the_code_in_the_rest(self) -> None:
        declare(title="Old", description="Old", timeout=1.0)
        synchronise()
        Program.objects.filter(name=NAME).update(title="Set by Ann")
        declare(title="New", description="New", timeout=2.0)
        done = synchronise()
        row = Program.objects.get(name=NAME)
        assert NAME in done.updated
        assert (row.title, row.description, row.timeout) == ("Set by Ann", "New", 2.0)

    def test_chooses_the_language_model_by_name(self) -> None:
        model = LanguageModel.objects.create(name="small", model="demo/echo")
        declare(language_model="small")
        synchronise()
        assert Program.objects.get(name=NAME).language_model == model

    def test_tells_of_programs_whose_code_is_gone(self) -> None:
        declare()
        synchronise()
        registry.remove(NAME)
        assert synchronise().gone == [NAME]
        assert Program.objects.filter(name=NAME).exists()

    def test_runs_after_migrate(self) -> None:
        declare()
        call_command("migrate", verbosity=0)
        assert Program.objects.filter(name=NAME).exists()


class TestSettingsChecks:
    def test_unknown_keys_are_told_with_the_closest_name(self, settings: Any) -> None:
        settings.DSPYSERVE = {"POOL_SIZ": 3}
        errors = [error for error in run_checks(tags=["dspyserve"]) if error.id == "dspyserve.E001"]
        assert [error.hint for error in errors] == ["Did you mean POOL_SIZE?"]

    @pytest.mark.parametrize(
        "wrong",
        [
            {"POOL_SIZE": "3"},
            {"POOL_SIZE": -1},
            {"POOL_SIZE": 0},
            {"WEBSOCKET_HEARTBEAT": 0.0},
            {"TIMEOUT": "1s"},
            {"API_KEY_ENV": "X_API_KEY"},
            {"TRACE_MASK": 3},
        ],
    )
    def test_wrong_types_are_told(self, settings: Any, wrong: dict[str, object]) -> None:
        settings.DSPYSERVE = wrong
        assert [error.id for error in run_checks(tags=["dspyserve"])] == ["dspyserve.E002"]

    def test_right_values_pass(self, settings: Any) -> None:
        settings.DSPYSERVE = {
            "POOL_SIZE": 3,
            "TIMEOUT": 2,
            "API_KEY_ENV": ["A_KEY"],
            "TRACE_MASK": "a.b",
            "POOL_QUEUE": 0,
        }
        assert run_checks(tags=["dspyserve"]) == []
