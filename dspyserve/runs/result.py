"""What a successful execution gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What a successful execution gave.

    `outputs` is JSON, `prediction` what the program itself returned. `usage` counts tokens, and is empty where nobody
    told; `cost` is in US dollars and None where it is not known. `trace_stored` is False when the trace is kept to be
    stored later, or is not wanted.
    """

    trace_id: str
    program: str
    version: int | None
    outputs: Mapping[str, Any]
    usage: Mapping[str, int]
    cost: float | None
    duration_ms: float
    trace_stored: bool
    prediction: Any = None

    def as_dict(self) -> dict[str, Any]:
        """As clients get it."""
        return {
            "trace_id": self.trace_id,
            "program": self.program,
            "version": self.version,
            "outputs": self.outputs,
            "usage": self.usage,
            "cost": self.cost,
            "duration_ms": self.duration_ms,
            "trace_stored": self.trace_stored,
        }
