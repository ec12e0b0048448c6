"""`manage.py create_api_key`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management.base import CommandError

from dspyserve.models import APIKey
from tests.api.conftest import API

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.usefixtures("language_model")
def test_the_last_line_is_a_token_that_works(command: Any) -> None:
    printed = command("create_api_key", "ci", "--program=private", "--days=30", "--rate-limit=10/min")
    token = printed.splitlines()[-1]
    api = API(token)
    assert api.run("private", question="q").status_code == 200
    assert api.run("restricted", question="q").status_code == 403
    key = APIKey.objects.get()
    assert (key.name, key.scopes, key.all_programs, key.rate_limit) == ("ci", ["run"], False, "10/min")
    assert token not in str(key.__dict__)


def test_standard_output_holds_the_token_alone(process_environment: dict[str, str]) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "manage.py",
            "create_api_key",
            "ci",
            "--all-programs",
            "--scope=view_traces",
            "--scope=export",
        ],
        cwd=ROOT,
        env=process_environment,
        capture_output=True,
        text=True,
        check=True,
    )
    key = APIKey.objects.get()
    assert done.stdout.strip().startswith(key.prefix + ".")
    assert "view_traces, export of all programs" in done.stderr
    assert done.stdout.strip() not in done.stderr


@pytest.mark.usefixtures("language_model")
def test_without_more_it_runs_every_program_and_does_nothing_else(command: Any) -> None:
    api = API(command("create_api_key", "ci").splitlines()[-1])
    assert api.run("restricted", question="q").status_code == 200
    assert api.get("traces").status_code == 403
    key = APIKey.objects.get()
    assert (key.scopes, key.all_programs) == (["run"], True)


def test_a_key_may_have_a_user(command: Any) -> None:
    ann = User.objects.create_user("ann")
    command("create_api_key", "ci", "--all-programs", "--user=ann")
    assert APIKey.objects.get().user == ann


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["k", "--all-programs", "--program=qa"], "--program and --all-programs exclude each other"),
        (["k", "--program=absent"], "there is no program named 'absent'"),
        (["k", "--all-programs", "--user=absent"], "there is no user named 'absent'"),
        (["k", "--all-programs", "--scope=fly"], "invalid choice: 'fly'"),
        (["k", "--all-programs", "--rate-limit=often"], "rate_limit: 'often' is no rate such as 600/min"),
        (["k", "--all-programs", "--days=0"], "--days takes a number above 0"),
        (["k" * 101, "--all-programs"], "name: Ensure this value has at most 100 characters"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(command: Any, arguments: list[str], told: str) -> None:
    with pytest.raises(CommandError, match=told):
        command("create_api_key", *arguments)
    assert not APIKey.objects.exists()
