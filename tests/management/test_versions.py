"""`add_version` and `activate_version`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import dspy
import pytest
from django.core.management.base import CommandError

from dspyserve import runs
from dspyserve.models import Program, ProgramVersion

Command = Callable[..., str]


@pytest.fixture
def program(transactional_db: None) -> Program:
    return Program.objects.create(name="made", signature="question -> answer", access="public")


def saved(directory: Path, instructions: str, signature: str = "question -> answer") -> str:
    """The file of a state with these instructions."""
    source = dspy.Predict(signature)
    source.signature = source.signature.with_instructions(instructions)
    path = directory / f"{instructions}.json"
    source.save(str(path))
    return str(path)


def test_a_state_is_stored_once_and_activated(command: Command, program: Program, tmp_path: Path) -> None:
    file = saved(tmp_path, "one")
    arguments = ("add_version", "made", file, "--note=from a test", '--metrics={"f1": 0.5}')
    assert command(*arguments) == "version 1 of made: created\n"
    assert command(*arguments, "--activate") == "version 1 of made: unchanged\n"
    row = ProgramVersion.objects.get()
    assert (row.note, row.metrics, row.author) == ("from a test", {"f1": 0.5}, None)
    assert runs.execute("made", {"question": "q"}).version == 1


def test_an_older_one_and_none(command: Command, program: Program, tmp_path: Path) -> None:
    for name in ("one", "two"):
        command("add_version", "made", saved(tmp_path, name), "--activate")
    assert command("activate_version", "made", "1") == "program made runs with version 1: updated\n"
    assert runs.execute("made", {"question": "q"}).version == 1
    assert command("activate_version", "made", "none") == "program made runs with no version: updated\n"
    assert command("activate_version", "made", "none") == "program made runs with no version: unchanged\n"
    assert runs.execute("made", {"question": "q"}).version is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("add_version", "nobody", "x.json"), "there is no program named 'nobody'"),
        (("add_version", "made", "/no/such/file"), "cannot be read"),
        (("add_version", "made", __file__), "is not JSON"),
        (("add_version", "made", "{file}", "--metrics=[1]"), "--metrics must be a JSON object"),
        (("add_version", "made", "{other}"), "Query, its state|--force"),
        (("activate_version", "made", "7"), "has no version '7'; there are: none"),
        (("activate_version", "made", "-1"), "invalid|no version"),
        (("activate_version", "nobody", "none"), "there is no program"),
    ],
)
def test_mistakes_are_told_in_a_line(
    command: Command, program: Program, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    files = {"file": saved(tmp_path, "one"), "other": saved(tmp_path, "two", "query -> answer")}
    with pytest.raises(CommandError, match=message) as caught:
        command(*(argument.format(**files) if argument.startswith("{") else argument for argument in arguments))
    assert "\n" not in str(caught.value)
    assert not ProgramVersion.objects.exists()


def test_who_is_sure_takes_a_state_of_other_fields(command: Command, program: Program, tmp_path: Path) -> None:
    file = saved(tmp_path, "one", "query -> answer")
    assert command("add_version", "made", file, "--force", "--activate") == "version 1 of made: created\n"


def test_what_is_left_out_is_said(command: Command, program: Program, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text(json.dumps({**dspy.Predict("question -> answer").dump_state(), "lm": {"model": "openai/x"}}))
    assert "note: the language models that the state names are left out" in command("add_version", "made", str(path))
