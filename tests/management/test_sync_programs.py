"""`sync_programs` says what became of every program."""

from __future__ import annotations

from collections.abc import Callable

from dspyserve.models import Program

Command = Callable[..., str]


def test_it_says_what_it_did(command: Command) -> None:
    Program.objects.get(name="qa").delete()
    Program.objects.filter(name="agent").update(declared={})
    Program.objects.create(name="orphan", source=Program.Source.CODE)
    Program.objects.create(name="made", signature="question -> answer")
    lines = dict(line.split(": ") for line in command("sync_programs").splitlines())
    assert lines["created"] == "qa"
    assert lines["updated"] == "agent"
    assert lines["no longer registered"] == "orphan"
    assert "extract" in lines["unchanged"].split(", ")
    assert not any("made" in names.split(", ") for names in lines.values())


def test_the_second_time_changes_nothing(command: Command) -> None:
    command("sync_programs")
    assert [line.split(":")[0] for line in command("sync_programs").splitlines()] == ["unchanged"]
