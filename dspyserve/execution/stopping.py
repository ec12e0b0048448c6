"""How a run is told to stop: at its deadline, when its client left, when the server shuts down."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Literal

StopReason = Literal["client", "deadline", "shutdown"]


class RunStopped(BaseException):
    """Raised inside a program, at its next module, LM or tool call, after it was told to stop.

    A `BaseException`, because DSPy and programs catch `Exception`: ReAct would take it for a tool's failure, and an
    `except Exception` loop would go on for ever.
    """

    def __init__(self, reason: StopReason) -> None:
        self.reason = reason
        super().__init__(reason)


class StopSignal:
    """Whether a run has to stop and why. The first reason stays. Safe from any thread."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        """On the clock of `time.monotonic()`."""
        self.reason: StopReason | None = None
        self._is_over = False
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []

    def stop(self, reason: StopReason) -> None:
        """Ask the run to stop. Listeners are called once, in the calling thread."""
        with self._lock:
            if self.reason is not None:
                return
            self.reason = reason
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()

    def finish(self) -> None:
        """The run has failed: what is left of it, such as the siblings of a task that raised, is to go no further."""
        self._is_over = True

    def on_stop(self, listener: Callable[[], None]) -> None:
        """Have `listener` called when the run is asked to stop, or now where it already was."""
        with self._lock:
            if self.reason is None:
                self._listeners.append(listener)
                return
        listener()

    def forget(self, listener: Callable[[], None]) -> None:
        """Call it no more. What listens mostly holds the signal itself: only the garbage collector could free both."""
        with self._lock:
            if listener in self._listeners:
                self._listeners.remove(listener)

    def check(self) -> None:
        """Return while the run may go on.

        Raises:
            RunStopped: it was asked to stop, its deadline passed, or it is over.
        """
        if self.reason is None and time.monotonic() >= self.deadline:
            self.stop("deadline")
        if self.reason is not None or self._is_over:
            raise RunStopped(self.reason or "client")
