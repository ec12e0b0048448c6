"""The runs of this process that are under way."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from dspyserve.execution.stopping import StopReason


class Stoppable(Protocol):
    """A run, as far as the list of them is concerned."""

    def stop(self, reason: StopReason) -> None:
        """Stop at the next call boundary."""


class LiveRuns:
    """The runs of this process that are under way, for the server's shutdown."""

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def add(self, run: Stoppable) -> None:
        """A run begins."""
        with self._changed:
            self._runs[id(run)] = run

    def remove(self, run: Stoppable) -> None:
        """A run is over, its trace stored or kept."""
        with self._changed:
            self._runs.pop(id(run), None)
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._runs)

    def refuse(self) -> None:
        """From now on, no run is started: the server is shutting down."""
        self.is_draining = True

    def stop_all(self) -> None:
        """Stop all runs at their next call boundary."""
        with self._changed:
            runs = list(self._runs.values())
        for run in runs:
            run.stop("shutdown")

    def wait(self, timeout: float) -> bool:
        """Wait until none is left, at most `timeout` seconds; whether none is."""
        end = time.monotonic() + timeout
        with self._changed:
            while self._runs and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
            return not self._runs

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._runs: dict[int, Stoppable] = {}
        self.is_draining = False

    @contextmanager
    def holding(self, run: Stoppable) -> Iterator[None]:
        """While `run` goes on in the calling thread."""
        self.add(run)
        try:
            yield
        finally:
            self.remove(run)


live = LiveRuns()
