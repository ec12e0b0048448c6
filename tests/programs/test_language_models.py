"""Language models as executions use them."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

from dspyserve import runs
from tests.load.openai_server import OpenAIServer

RUNS, CALLS = 40, 160


async def test_a_model_answers_more_than_a_hundred_calls_at_once(language_model: Any, provider: OpenAIServer) -> None:
    """Of which DSPy's own limit would let sixty wait for the others."""
    streams = [await runs.astream("gathered", {"question": "@@hang=1@@"}) for _ in range(RUNS)]
    for _ in range(300):
        if provider.in_flight >= CALLS:
            break
        await asyncio.sleep(0.1)
    assert provider.in_flight == CALLS
    for stream in streams:
        async with aclosing(stream):
            stream.cancel()
            assert [event async for event in stream][-1].type == "run_cancelled"
