"""What the wrapper around a project's application does to the process."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pytest

from dspyserve.asgi import serve


@pytest.fixture
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


@pytest.mark.parametrize("given", [(700, 10, 10), (5_000, 20, 20), (0, 0, 0)])
@pytest.mark.usefixtures("thresholds")
def test_the_garbage_collector_is_let_be_more_unless_the_project_has_its_own_mind(
    given: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None: ...

    async def nothing(*_: Any) -> Any: ...

    frozen: list[None] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(None))
    gc.set_threshold(*given)
    asyncio.run(serve(application)({"type": "http", "path": "/"}, nothing, nothing))  # type: ignore[arg-type]
    assert len(frozen) == 1
    if given == (700, 10, 10):
        assert gc.get_threshold()[0] > 700
    else:
        assert gc.get_threshold() == given
