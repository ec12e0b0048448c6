"""What the README must say to be true."""

from __future__ import annotations

from pathlib import Path

import pytest

from dspyserve import errors, events
from dspyserve.conf import KEYS
from dspyserve.management import commands
from dspyserve.websocket.messages import CloseCode

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
CODES = sorted({found.code for found in vars(errors).values() if isinstance(found, type) and hasattr(found, "code")})


@pytest.mark.parametrize("key", sorted(KEYS))
def test_every_setting_is_documented(key: str) -> None:
    assert f"| `{key}` |" in README


@pytest.mark.parametrize("code", [code for code in CODES if code != "error"])
def test_every_problem_is_documented(code: str) -> None:
    assert f"`{code}`" in README


@pytest.mark.parametrize("code", [code for code in CloseCode if code != CloseCode.INTERNAL])
def test_every_close_code_is_documented(code: CloseCode) -> None:
    assert str(int(code)) in README


@pytest.mark.parametrize(
    "kind", [events.RUN_START, events.TOKEN, events.FIELD, events.FIELD_RESET, events.STATUS, *sorted(events.TERMINAL)]
)
def test_every_event_is_documented(kind: str) -> None:
    assert f"| `{kind}` |" in README


def test_every_command_is_documented() -> None:
    for path in Path(commands.__path__[0]).glob("[a-z]*.py"):
        assert f"| `{path.stem}" in README, path.stem


def test_the_two_commands_are_those_of_the_quick_start() -> None:
    assert "python3 -m venv .venv && .venv/bin/pip install -e . && .venv/bin/python manage.py quickstart" in README
    assert "python3 -m venv .venv && .venv/bin/pip install -e '.[dev]' && .venv/bin/python -m pytest" in README
