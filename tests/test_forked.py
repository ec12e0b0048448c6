"""The processes that tests fork are as those that they would start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.forked import ROOT, Forked

Start = Callable[..., Forked]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Run code in a Django shell; what it prints stands in the files `out` and `err`."""

    def start(code: str, **environment: str) -> Forked:
        given = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", **environment}
        with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
            command = ("shell", "--no-imports", "--command", code)
            return Forked("django", *command, environment=given, output=out.fileno(), errors=err.fileno())

    return start


def test_ends_with_its_own_exit_code_after_its_handlers(start: Start, tmp_path: Path) -> None:
    code = (
        "import atexit, os, sys; atexit.register(print, 'the end'); print(os.environ['MARK'], os.getpid());"
        "print('trouble', file=sys.stderr); sys.exit(3)"
    )
    process = start(code, MARK="mark")
    assert process.wait(30) == 3
    assert (tmp_path / "out").read_text().splitlines() == [f"mark {process.pid}", "the end"]
    assert (tmp_path / "err").read_text() == "trouble\n"
    assert "MARK" not in os.environ


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_ends_by_a_signal(start: Start, number: signal.Signals) -> None:
    process = start("import time; time.sleep(60)")
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.05)
    process.send_signal(number)
    assert process.wait(30) == -number
    process.kill()


def test_hears_of_ctrl_c(start: Start, tmp_path: Path) -> None:
    code = (
        "import os, signal, time\n"
        "try: os.kill(os.getpid(), signal.SIGINT); time.sleep(60)\n"
        "except KeyboardInterrupt: print('heard')"
    )
    assert start(code).wait(30) == 0
    assert (tmp_path / "out").read_text() == "heard\n"


def test_shares_neither_threads_nor_random_numbers(start: Start, tmp_path: Path) -> None:
    code = (
        "import random, threading, uuid_utils\nprint(random.random(), uuid_utils.uuid7(), threading.active_count())\n"
    )
    printed = []
    for _ in range(2):
        assert start(code).wait(30) == 0
        printed.append((tmp_path / "out").read_text().split())
    assert not {*printed[0][:2]} & {*printed[1][:2]}
    assert [line[2] for line in printed] == ["1", "1"]


def test_does_not_outlive_those_who_started_it(tmp_path: Path) -> None:
    """A test run that is killed leaves no servers behind."""
    code = (
        "import os, sys, time; from tests.forked import Forked\n"
        "given = {**os.environ, 'DJANGO_SETTINGS_MODULE': 'tests.settings'}\n"
        "print(Forked('django', 'shell', '-c', 'import time; time.sleep(60)', environment=given, output=1).pid)\n"
        "sys.stdout.flush(); os._exit(1)"
    )
    with (tmp_path / "out").open("w") as out:
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=out, check=False, timeout=60)
    pid = int((tmp_path / "out").read_text().split()[0])
    for _ in range(200):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{pid} still lives")
