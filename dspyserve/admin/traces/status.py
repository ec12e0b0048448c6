"""How a trace ended, as a badge."""

from __future__ import annotations

from typing import Final

from dspyserve.admin import wording
from dspyserve.models import Trace

SYMBOLS: Final[dict[str, str]] = {
    Trace.Status.SUCCEEDED: "✓",
    Trace.Status.FAILED: "✕",
    Trace.Status.CANCELLED: "⊘",
    Trace.Status.TIMED_OUT: "◷",
    Trace.Status.RUNNING: "…",
    Trace.Status.ABANDONED: "?",
}
"""Beside the word, so that colour says nothing alone."""


def status_badge(trace: Trace) -> str:
    """Symbol, word and class."""
    return wording.badge(trace.status, SYMBOLS.get(trace.status, ""), trace.get_status_display())
