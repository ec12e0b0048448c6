"""`manage.py export_traces`."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management.base import CommandError

from dspyserve import runs
from dspyserve.models import Trace


@pytest.mark.usefixtures("language_model")
def test_writes_the_wanted_traces(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for program in ("echo", "threaded", "echo"):
        runs.execute(program, {"question": "why"})
    file = tmp_path / "traces.jsonl"
    assert command("export_traces", "--program=echo", f"--output={file}") == f"2 traces written to {file}\n"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["program"] for line in lines] == ["echo", "echo"]
    assert "why" in json.dumps(lines[0]["spans"])
    command("export_traces", "--no-payloads", "--since=2020-01-01T00:00:00Z")
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 3
    assert "why" not in printed


@pytest.mark.usefixtures("language_model")
def test_writes_every_format_of_what_is_searched_for(
    command: Any, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    for question in ("why ä", "how\nlong"):
        runs.execute("echo", {"question": question})
    Trace.objects.filter(input_preview__startswith="how").update(tags=["beta"])
    file = tmp_path / "traces.csv"
    assert command("export_traces", "--format=csv", f"--output={file}") == f"2 traces written to {file}\n"
    with file.open(newline="") as opened:
        assert len(list(csv.DictReader(opened))) == 2
    command("export_traces", "--format=dspy", "--filter=program:echo -tag:beta")
    (line,) = capsysbinary.readouterr().out.splitlines()
    assert json.loads(line)["fields"]["question"] == "why ä"
    command("export_traces", "--format=otlp", "--filter=tag:beta", "--program=echo")
    assert len(capsysbinary.readouterr().out.splitlines()) == 1
    command("export_traces", "--format=dspy", "--judged=positive")
    assert capsysbinary.readouterr().out == b""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--since=yesterday"], "“yesterday” is no time"),
        (["--until=2026-13-01T00:00:00Z"], "“2026-13-01T00:00:00Z” is no time"),
        (["--output={taken}"], "taken.jsonl: File exists"),
        (["--filter=status:odd"], "status:odd"),
        (["--format=dspy", "--no-payloads"], "Nothing is left"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(command: Any, tmp_path: Path, arguments: list[str], told: str) -> None:
    taken = tmp_path / "taken.jsonl"
    taken.write_text("precious")
    with pytest.raises(CommandError, match=told):
        command("export_traces", *[argument.format(taken=taken) for argument in arguments])
    assert taken.read_text() == "precious"
