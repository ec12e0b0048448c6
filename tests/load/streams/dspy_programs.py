"""The measured programs as the server serves them."""

from __future__ import annotations

import dspy

from dspyserve import register
from tests.load.serving.modules import AskInThread, AskOnLoop


@register("bench_sync", access="public", outputs={"answer": str})
def bench_sync() -> dspy.Module:
    """Runs in a thread."""
    return AskInThread()


@register("bench_async", access="public", outputs={"answer": str})
def bench_async() -> dspy.Module:
    """Runs on the event loop."""
    return AskOnLoop()
