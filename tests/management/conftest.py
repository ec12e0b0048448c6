"""Commands as tests call them."""

from __future__ import annotations

import os
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command


@pytest.fixture
def command(transactional_db: None) -> Any:
    """Run a command and give what it printed."""

    def run(*arguments: str) -> str:
        out = StringIO()
        call_command(*arguments, stdout=out, stderr=out, no_color=True)
        return out.getvalue()

    return run


@pytest.fixture
def process_environment(transactional_db: None) -> dict[str, str]:
    """The environment of a command in a process of its own, on the database of the test."""
    from django.db import connection

    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "DSPYSERVE_TESTS_DATABASE": str(connection.settings_dict["NAME"]),
        "PYTHONUNBUFFERED": "1",
        "DJANGO_COLORS": "nocolor",
    }
