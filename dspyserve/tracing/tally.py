"""What one writer has stored so far, added up, so that it can write its rollups without reading them."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from uuid_utils.compat import uuid7

from dspyserve.tracing.figures import Figures, Key, columns_of, keys_of
from dspyserve.tracing.rows import TraceRows

MAX_KEYS: Final = 400
"""Periods, programs and models that are remembered; then the tally starts over."""
LIFETIME: Final = datetime.timedelta(days=1)
"""How long rows are written under one id at most."""
CLOSED: Final = 2 * LIFETIME
"""The age of an id under which nothing is written any more, whatever the clocks of two machines say."""


class Tally:
    """Adds up traces under an id of its own, so that its rows are its own: no other process writes them.

    The id is a UUIDv7, whose time tells when it was made: a compaction takes only rows that are final. Whenever a
    transaction fails, it starts over under another id, since nobody knows what the database has kept.
    """

    def __init__(self) -> None:
        self._start_over()

    @contextmanager
    def adding(self, batch: Sequence[TraceRows]) -> Iterator[list[dict[str, Any]]]:
        """Enclose the transaction that stores `batch`, with the columns of the rows that it is to insert, or to put in
        place of those of the same keys. They hold everything that this writer ever stored of them.
        """
        if self._is_over():
            self._start_over()
        try:
            changed = self._with(batch)
            yield [columns_of(key, figures, self.writer) for key, figures in changed.items()]
        except BaseException:
            # The commit itself may have succeeded and only its answer be lost.
            self._start_over()
            raise
        self._figures |= changed

    def _with(self, batch: Sequence[TraceRows]) -> dict[Key, Figures]:
        changed: dict[Key, Figures] = {}
        for rows in batch:
            for key in keys_of(rows.trace):
                if key not in changed:
                    known = self._figures.get(key)
                    changed[key] = known.copy() if known is not None else Figures()
                changed[key].count(rows.trace)
        # In one order for all writers, so that none of them waits for another in a circle.
        return dict(sorted(changed.items()))

    def _is_over(self) -> bool:
        is_old = time.time() - self._since > LIFETIME.total_seconds()
        return is_old or len(self._figures) > MAX_KEYS

    def _start_over(self) -> None:
        self.writer = uuid7().hex
        self._since = time.time()
        self._figures: dict[Key, Figures] = {}


def open_since() -> str:
    """The least id of a writer that may still write; the rows of those before, and of "", are final."""
    moment = datetime.datetime.now(datetime.UTC) - CLOSED
    return f"{int(moment.timestamp() * 1000):012x}{0:020x}"
