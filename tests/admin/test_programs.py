"""Programs and language models in the admin."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from dspyserve import runs
from dspyserve.models import LanguageModel, Program
from dspyserve.programs.catalogue import catalogue

PROGRAMS = "/admin/dspyserve/program/"
MODELS = "/admin/dspyserve/languagemodel/"

INLINE = {f"versions-{name}": "0" for name in ("TOTAL_FORMS", "INITIAL_FORMS", "MIN_NUM_FORMS", "MAX_NUM_FORMS")}
NEW: dict[str, Any] = {
    "name": "made",
    "signature": "question -> answer",
    "module": "predict",
    "execution": "auto",
    "is_enabled": "on",
    "access": "public",
    "trace_level": "full",
    **INLINE,
}


@pytest.fixture
def admin(transactional_db: None, client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ann"))
    return client


class TestPrograms:
    def test_a_signature_alone_makes_a_program(self, admin: Client) -> None:
        assert admin.post(f"{PROGRAMS}add/", NEW).status_code == 302
        row = Program.objects.get(name="made")
        assert row.source == "signature"
        assert "answer" in runs.execute("made", {"question": "q"}).outputs

    @pytest.mark.parametrize(
        ("values", "field"),
        [
            ({"signature": "no arrow"}, "signature"),
            ({"signature": ""}, "signature"),
            ({"signature": "config -> answer"}, "signature"),
            ({"name": "echo"}, "name"),
            ({"name": "a b"}, "name"),
        ],
    )
    def test_what_cannot_be_served_is_not_saved(self, admin: Client, values: dict[str, str], field: str) -> None:
        before = Program.objects.count()
        response = admin.post(f"{PROGRAMS}add/", {**NEW, **values})
        assert field in response.context["adminform"].form.errors
        assert Program.objects.count() == before

    def test_a_code_program_shows_its_origin_and_contract(self, admin: Client) -> None:
        page = admin.get(f"{PROGRAMS}{Program.objects.get(name='qa').pk}/change/").content.decode()
        assert "project.dspy_programs." in page
        assert "&quot;question&quot;" in page
        assert 'name="signature"' not in page
        assert 'name="name"' not in page

    def test_a_program_whose_code_is_gone_says_so(self, admin: Client) -> None:
        Program.objects.create(name="gone", source="code")
        assert "The code is gone" in admin.get(PROGRAMS).content.decode()

    def test_choosing_a_language_model_is_enough(self, admin: Client) -> None:
        other = LanguageModel.objects.create(name="other", model="demo/other")
        row = Program.objects.get(name="qa")
        data = {**NEW, "title": row.title, "description": row.description, "language_model": other.pk}
        assert admin.post(f"{PROGRAMS}{row.pk}/change/", data).status_code == 302
        stream_model = catalogue.get("qa").lm.model
        assert stream_model == "demo/other"


class TestLanguageModels:
    DATA = {"name": "gpt", "model": "openai/gpt-5-mini", "parameters": "{}", "timeout": "10", "num_retries": "0"}

    def test_a_new_default_takes_the_place_of_the_old(self, admin: Client) -> None:
        assert admin.post(f"{MODELS}add/", {**self.DATA, "is_default": "on"}).status_code == 302
        assert LanguageModel.objects.get(is_default=True).name == "gpt"

    @pytest.mark.parametrize(
        ("values", "field"),
        [
            ({"api_key_env": "SECRET_KEY"}, "api_key_env"),
            ({"parameters": '{"api_key": "x"}'}, "parameters"),
            ({"parameters": "[]"}, "parameters"),
            ({"api_base": "ftp://x"}, "api_base"),
            ({"model": "openai/"}, "model"),
        ],
    )
    def test_what_could_leak_a_secret_is_refused(self, admin: Client, values: dict[str, str], field: str) -> None:
        response = admin.post(f"{MODELS}add/", {**self.DATA, **values})
        assert field in response.context["adminform"].form.errors

    def test_the_key_is_named_and_never_shown(self, admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SOME_API_KEY", "the-value-of-the-key")
        LanguageModel.objects.create(name="one", model="openai/x", api_key_env="SOME_API_KEY")
        LanguageModel.objects.create(name="two", model="openai/x", api_key_env="OTHER_API_KEY")
        page = admin.get(MODELS).content.decode()
        assert ">set<" in page
        assert ">missing<" in page
        assert "the-value-of-the-key" not in page
