"""API keys: how they are looked up, remembered, revoked, and when their use is written."""

from __future__ import annotations

import json
import time
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dspyserve.access.keys import keys
from dspyserve.models import APIKey, LanguageModel, Program, Trace
from tests.api.conftest import API, make_key, yesterday


@pytest.fixture(autouse=True)
def _data(language_model: Any) -> None:
    keys.forget()


def lookups(api: API) -> list[str]:
    """The queries of API keys that a listing takes."""
    with CaptureQueriesContext(connection) as queries:
        assert api.get("programs").status_code == 200
    return [query["sql"] for query in queries if "apikey" in query["sql"]]


def last_use_after(moment: datetime | None) -> datetime:
    """The time of the key's last use, as soon as one later than `moment` is written."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        used = APIKey.objects.get().last_used_at
        if used is not None and (moment is None or used > moment):
            return used
        time.sleep(0.02)
    raise AssertionError("no use was written")


def test_the_token_is_not_stored() -> None:
    token = make_key("run")
    stored = json.dumps(list(APIKey.objects.values()), default=str)
    prefix, secret = token.split(".")
    assert prefix in stored
    assert secret not in stored
    assert len(secret) >= 43, "256 bits in base64"


@pytest.mark.parametrize("change", ["", "x", "."])
def test_a_secret_that_is_nearly_right_is_wrong(change: str) -> None:
    token = make_key("run")
    wrong = token + change if change else token[:-1]
    assert API(wrong).run("private", question="q").status_code == 401
    assert API(token).run("private", question="q").status_code == 200
    # Also when the key itself is remembered.
    assert API(wrong).run("private", question="q").status_code == 401


def test_a_key_is_read_once_and_its_use_written_once() -> None:
    api = API(make_key("run"))
    assert len(lookups(api)) == 1
    assert lookups(api) == lookups(api) == []
    assert (timezone.now() - last_use_after(None)).total_seconds() < 30


def test_a_use_long_ago_is_written_anew() -> None:
    token = make_key("run")
    APIKey.objects.update(last_used_at=yesterday())
    api = API(token)
    api.get("programs")
    written = last_use_after(timezone.now() - timedelta(minutes=1))
    keys.forget()
    api.get("programs")
    time.sleep(0.2)
    assert APIKey.objects.get().last_used_at == written


def test_a_key_that_expires_while_it_is_remembered_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    later = timezone.now() + timedelta(minutes=1)
    api = API(make_key("run", expires_at=later))
    assert api.run("private", question="q").status_code == 200
    monkeypatch.setattr("dspyserve.models.api_key.timezone.now", lambda: later)
    assert api.run("private", question="q").status_code == 401


def test_a_change_works_at_once_in_this_process_and_soon_in_others(settings: Any) -> None:
    api = API(make_key("run"))
    assert api.run("private", question="q").status_code == 200
    key = APIKey.objects.get()
    key.is_active = False
    key.save()
    assert api.run("private", question="q").status_code == 401
    APIKey.objects.update(is_active=True)
    assert api.run("private", question="q").status_code == 200
    # As another process would have changed it, without a signal here.
    APIKey.objects.update(is_active=False)
    settings.DSPYSERVE = {**settings.DSPYSERVE, "REFRESH": 0.0}
    assert api.run("private", question="q").status_code == 401


def test_programs_taken_from_a_key_are_out_of_reach() -> None:
    api = API(make_key("run", programs=["private"]))
    assert api.run("private", question="q").status_code == 200
    APIKey.objects.get().programs.clear()
    assert api.run("private", question="q").status_code == 403


def test_a_run_is_remembered_with_its_key_and_in_its_users_name() -> None:
    ann = User.objects.create_user("ann")
    API(make_key("run", user=ann)).run("private", question="q")
    trace = Trace.objects.get()
    assert (trace.api_key_id, trace.user_id) == (APIKey.objects.get().pk, ann.pk)


@pytest.mark.parametrize(
    ("values", "field"),
    [({"scopes": ["fly"]}, "scopes"), ({"scopes": "run"}, "scopes"), ({"rate_limit": "often"}, "rate_limit")],
)
def test_a_key_that_means_nothing_is_refused(values: dict[str, Any], field: str) -> None:
    key = APIKey(name="k", **{"scopes": ["run"], **values})
    key.issue()
    if values.get("scopes") == "run":
        key.full_clean()
        return
    with pytest.raises(ValidationError) as caught:
        key.full_clean()
    assert set(caught.value.message_dict) == {field}


class TestAddresses:
    @pytest.mark.parametrize(
        ("address", "is_allowed"),
        [
            ("https://api.example.com/v1", True),
            ("https://api.example.com:8443/v1", True),
            ("http://127.0.0.1:8001/v1", True),
            ("http://localhost/v1", True),
            ("http://[::1]:8001/v1", True),
            ("http://api.example.com/v1", False),
            ("http://169.254.169.254/latest", False),
            ("http://127.0.0.1.example.com/v1", False),
            ("http://127.0.0.1:80@example.com/v1", False),
            ("https://user:secret@api.example.com/v1", False),
            ("http://localhost\\@example.com/", False),
        ],
    )
    def test_of_language_models(self, address: str, is_allowed: bool) -> None:
        row = LanguageModel(name="lm", model="openai/x", api_base=address)
        errors = {}
        try:
            row.full_clean()
        except ValidationError as error:
            errors = error.message_dict
        assert ("api_base" not in errors) is is_allowed, errors

    def test_are_a_setting(self, settings: Any) -> None:
        settings.DSPYSERVE = {**settings.DSPYSERVE, "API_BASES": ["https://llm.example.com:443"]}
        LanguageModel(name="a", model="openai/x", api_base="https://llm.example.com/v1").full_clean()
        with pytest.raises(ValidationError, match="API_BASES"):
            LanguageModel(name="a", model="openai/x", api_base="https://other.example.com/v1").full_clean()

    def test_are_checked_again_when_a_program_is_built(self) -> None:
        LanguageModel.objects.update(api_base="http://169.254.169.254/v1")
        api = API()
        from dspyserve.programs.catalogue import catalogue

        catalogue.forget()
        response = api.run("echo", question="q")
        assert (response.status_code, response.json()["code"]) == (500, "program_error")


def test_open_programs_are_named_before_a_deployment(capsys: pytest.CaptureFixture[str]) -> None:
    Program.objects.exclude(name__in=["echo", "private"]).update(is_enabled=False)
    call_command("check", "--deploy", tag=["dspyserve"])
    told = capsys.readouterr().err
    assert "Everybody may run the program 'echo'" in told
    assert "private" not in told
