"""What is inserted for traces, whatever the database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from dspyserve.models import TraceRollup
from dspyserve.tracing.columns import Row, column_names
from dspyserve.tracing.figures import Figures, Key

ROLLUP_KEY: Final = (*Key._fields, "writer")
"""What there is one rollup of."""
ROLLUP_VALUES: Final = (*Figures.__slots__,)
"""What a rollup puts in place of those of a stored one of its key."""


Spans = Sequence[tuple[Row, Row | None]]
"""Those of a trace, with their payloads, which do not tell the span."""


class Way(Protocol):
    """How traces come into databases of a kind."""

    def prepare(self, alias: str, trace: Row, spans: Spans) -> Any:
        """The rows of one trace as the database takes them, made without asking it.

        Raises:
            ValueError, and the like: for a value that no column takes.
            TypeError: a model has no such column.
        """

    def insert(self, alias: str, prepared: Sequence[Any], rollups: Sequence[Row]) -> None:
        """Insert the rows of all traces that were prepared, and the rollups; or none of them.

        Raises:
            django.db.Error: as the database says; also what `prepare` raises.
        """


def replacing(quote: Callable[[str], str]) -> str:
    """The end of a statement that inserts rollups, or puts them in place of those that are stored."""
    unique = ", ".join(column_names(TraceRollup, ROLLUP_KEY, quote))
    values = ", ".join(f"{name} = excluded.{name}" for name in column_names(TraceRollup, ROLLUP_VALUES, quote))
    return f"ON CONFLICT ({unique}) DO UPDATE SET {values}"
