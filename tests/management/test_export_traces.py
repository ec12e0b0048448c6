"""`manage.py export_traces`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management.base import CommandError

from dspyserve import runs


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


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["--since=yesterday"], "'yesterday' is no time"), (["--output={taken}"], "taken.jsonl: File exists")],
)
def test_what_is_wrong_is_told_in_one_line(command: Any, tmp_path: Path, arguments: list[str], told: str) -> None:
    taken = tmp_path / "taken.jsonl"
    taken.write_text("precious")
    with pytest.raises(CommandError, match=told):
        command("export_traces", *[argument.format(taken=taken) for argument in arguments])
    assert taken.read_text() == "precious"
