"""What is inserted for a batch of traces, whatever the database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from dspyserve.models import TraceRollup
from dspyserve.tracing.columns import Row, column_names
from dspyserve.tracing.figures import Figures, Key

ROLLUP_KEY: Final = (*Key._fields, "writer")
"""What there is one rollup of."""
ROLLUP_VALUES: Final = (*Figures.__slots__,)
"""What a rollup puts in place of those of a stored one of its key."""


class Batch(NamedTuple):
    """The rows of some traces."""

    traces: Sequence[Row]
    spans: Sequence[tuple[Row, Row | None]]
    """With their payloads, which do not tell the span."""
    rollups: Sequence[Row]


def replacing(quote: Callable[[str], str]) -> str:
    """The end of a statement that inserts rollups, or puts them in place of those that are stored."""
    unique = ", ".join(column_names(TraceRollup, ROLLUP_KEY, quote))
    values = ", ".join(f"{name} = excluded.{name}" for name in column_names(TraceRollup, ROLLUP_VALUES, quote))
    return f"ON CONFLICT ({unique}) DO UPDATE SET {values}"
