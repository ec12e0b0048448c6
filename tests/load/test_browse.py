"""The benchmark of the browser still finds every page that it measures."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.forked import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.embedded]


def test_all_pages_are_there() -> None:
    hidden = ("DJANGO_SETTINGS_MODULE", "DATABASE_URL", "REDIS_URL")
    done = subprocess.run(
        [sys.executable, "-m", "tests.load.browse", "--traces", "2000", "--visits", "1"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in hidden},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    assert "2,001 traces and 14,500 spans" in done.stdout
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 40
    assert "left out" not in done.stdout
