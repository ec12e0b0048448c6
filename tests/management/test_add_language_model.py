"""`add_language_model` makes and changes language models, and says which."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
from django.core.management.base import CommandError

from dspyserve.models import LanguageModel
from tests.server import ROOT

Command = Callable[..., str]

ALL = [
    "add_language_model",
    "gpt",
    "openai/gpt-5-mini",
    "--api-base=http://127.0.0.1:9/v1",
    "--api-key-env=SOME_API_KEY",
    '--parameters={"temperature": 0.2}',
    "--timeout=7.5",
    "--num-retries=2",
    "--cache",
    "--default",
]


def test_every_option_reaches_its_column(command: Command) -> None:
    assert command(*ALL) == "language model gpt: created\n"
    row = LanguageModel.objects.get(name="gpt")
    assert row.model == "openai/gpt-5-mini"
    assert row.api_base == "http://127.0.0.1:9/v1"
    assert row.api_key_env == "SOME_API_KEY"
    assert row.parameters == {"temperature": 0.2}
    assert row.timeout == 7.5
    assert row.num_retries == 2
    assert row.cache is True
    assert row.is_default is True


def test_the_second_time_changes_nothing(command: Command) -> None:
    command(*ALL)
    before = LanguageModel.objects.get(name="gpt").updated_at
    assert command(*ALL) == "language model gpt: unchanged\n"
    assert LanguageModel.objects.get(name="gpt").updated_at == before


def test_only_what_is_given_changes(command: Command) -> None:
    command(*ALL)
    assert command("add_language_model", "gpt", "openai/gpt-5", "--no-cache") == "language model gpt: updated\n"
    row = LanguageModel.objects.get(name="gpt")
    assert (row.model, row.cache) == ("openai/gpt-5", False)
    assert (row.timeout, row.num_retries, row.parameters) == (7.5, 2, {"temperature": 0.2})
    assert row.is_default


def test_a_new_default_takes_the_place_of_the_old(command: Command) -> None:
    command("add_language_model", "one", "demo/one", "--default")
    command("add_language_model", "two", "demo/two", "--default")
    assert [row.name for row in LanguageModel.objects.filter(is_default=True)] == ["two"]


def test_without_options_a_model_is_neither_default_nor_cached(command: Command) -> None:
    command("add_language_model", "plain", "demo/plain")
    row = LanguageModel.objects.get(name="plain")
    assert (row.is_default, row.cache, row.api_base, row.parameters) == (False, False, "", {})


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["a b", "demo/x"], "name: "),
        (["x", "openai/"], "model: "),
        (["x", "demo/x", "--api-base=ftp://host"], "api_base: "),
        (["x", "demo/x", "--api-key-env=SECRET_KEY"], "api_key_env: Only variables that match *_API_KEY"),
        (["x", "demo/x", "--parameters=[1]"], "--parameters must be a JSON object"),
        (["x", "demo/x", "--parameters={"], "--parameters is not JSON"),
        (["x", "demo/x", '--parameters={"a": [NaN]}'], "parameters: It holds"),
        (["x", "demo/x", r'--parameters={"a": "\u0000"}'], "parameters: It holds"),
        (["x", "demo/x", r'--parameters={"a": "\ud800"}'], "parameters: It holds"),
        (["x", "demo/x", "--timeout=nan"], "'nan' is no number of seconds"),
        (["x", "demo/x", "--timeout=soon"], "'soon' is no number of seconds"),
        (["x", "demo/x", '--parameters={"api_key": "k"}'], "parameters: Not allowed here: api_key"),
        (["x", "demo/x", "--timeout=0"], "timeout: "),
        (["x", "demo/x", "--num-retries=-1"], "num_retries: "),
        (["x"], "the following arguments are required: model"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(command: Command, arguments: list[str], told: str) -> None:
    with pytest.raises(CommandError) as raised:
        command("add_language_model", *arguments)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not LanguageModel.objects.filter(name="x").exists()


def test_a_refused_change_leaves_the_row_as_it_was(command: Command) -> None:
    command(*ALL)
    with pytest.raises(CommandError):
        command("add_language_model", "gpt", "openai/other", "--timeout=0")
    assert LanguageModel.objects.get(name="gpt").model == "openai/gpt-5-mini"


def test_a_shell_sees_one_line_and_no_traceback(process_environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "add_language_model", "x", "demo/x", "--parameters=["],
        cwd=ROOT,
        env=process_environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("CommandError: --parameters is not JSON")
    assert done.stderr.count("\n") == 1
