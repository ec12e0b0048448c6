"""Traces on disk: those that the database did not take before the process ended, or before memory ran out."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import orjson
from django.core.files import locks

from dspyserve.conf import settings
from dspyserve.tracing.rows import TraceRows

logger = logging.getLogger(__name__)

WAITING = "*.traces.jsonl"
REFUSED = "*.refused.jsonl"


def save(batch: Iterable[TraceRows], *, refused: bool = False) -> Path | None:
    """Append `batch` to a new file, one trace a line, and wait until the disk has it. None where there is nothing."""
    lines = [orjson.dumps(rows.as_dict(), default=str) for rows in batch]
    if not lines:
        return None
    directory = settings().spool_directory
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    kind = "refused" if refused else "traces"
    path = directory / f"{time.time_ns()}-{os.getpid()}.{kind}.jsonl"
    with path.open("xb") as file:
        file.write(b"\n".join(lines) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return path


def is_empty() -> bool:
    """Whether no traces wait on disk."""
    return next(iter(_files()), None) is None


def restore(insert: Callable[[Sequence[TraceRows]], int], batch: int) -> int:
    """Hand all waiting traces to `insert`, `batch` at a time, and remove them. Returns how many it says it stored.

    Several processes may call it at once: a file is taken by one of them. What `insert` raises goes on; the file stays.
    """
    count = 0
    for path in _files():
        try:
            with path.open("r+b") as file:
                if locks.lock(file, locks.LOCK_EX | locks.LOCK_NB) and path.exists():
                    count += _restore_file(file, insert, batch)
                    path.unlink()
        except FileNotFoundError:
            # Another process was faster.
            continue
    return count


def _files() -> list[Path]:
    return sorted(settings().spool_directory.glob(WAITING))


def _restore_file(file: IO[bytes], insert: Callable[[Sequence[TraceRows]], int], batch: int) -> int:
    rows = list(_read(file))
    return sum([insert(rows[start : start + batch]) for start in range(0, len(rows), batch)])


def _read(file: IO[bytes]) -> Iterator[TraceRows]:
    for line in file:
        try:
            yield TraceRows.from_dict(orjson.loads(line))
        except (ValueError, TypeError):
            # The process died in the middle of this line; what is before it is whole.
            logger.error("A line of %s cannot be read and is passed over", file.name)
