"""The rows of one trace, as plain data: they cross threads, and the disk when the database is away."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class TraceRows:
    """Columns of one `Trace`, of its `Span`s, and for each span those of its `SpanPayload` or None."""

    trace: dict[str, Any]
    spans: list[dict[str, Any]] = field(default_factory=list)
    payloads: list[dict[str, Any] | None] = field(default_factory=list)
    size: int = 0
    """About how many bytes of payload it holds."""
    prepared: Any = field(default=None, compare=False, repr=False)
    """The same as the database takes it, where that is made already: see `store.prepare`."""

    def as_dict(self) -> dict[str, Any]:
        """For the disk."""
        return {name: getattr(self, name) for name in ("trace", "spans", "payloads", "size")}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TraceRows:
        """From the disk."""
        return cls(**data)
