"""What tests of executions share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dspyserve import register
from dspyserve.programs.registry import registry
from dspyserve.programs.synchronise import synchronise


@pytest.fixture
def serve() -> Iterator[Any]:
    """Serve a program for one test."""
    names = []

    def serve(factory: Any, **options: Any) -> str:
        name = f"temporary-{len(names)}"
        names.append(name)
        register(name, access="public", **options)(factory)
        synchronise()
        return name

    yield serve
    for name in names:
        registry.remove(name)
