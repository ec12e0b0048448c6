"""How many executions run at once, how many wait, and who is refused."""

from __future__ import annotations

import os
import threading
from collections import deque
from concurrent.futures import Future

from dspyserve.conf import settings
from dspyserve.errors import Overloaded


class Gate:
    """A counted entrance with a bounded queue, for event loops and threads alike.

    `enter` answers at once: with a future that is done (come in), with one that will be done (wait), or with
    `Overloaded`. Who holds a done future owes one `leave`.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = threading.Lock()
        self._waiting: deque[Future[None]] = deque()
        self.active = 0

    @property
    def waiting(self) -> int:
        """How many wait now."""
        return len(self._waiting)

    def enter(self, *, limit: int, queue: int) -> Future[None]:
        """Ask for a place among `limit`, or in the queue of `queue`.

        Raises:
            Overloaded: all places are taken, in the queue too.
        """
        ticket: Future[None] = Future()
        with self._lock:
            if self.active < limit and not self._waiting:
                self.active += 1
                ticket.set_result(None)
            elif len(self._waiting) < queue:
                self._waiting.append(ticket)
            else:
                raise Overloaded(f"{self._what} is at capacity; try again later.", retry_after=settings().retry_after)
        return ticket

    def leave(self) -> None:
        """Give the place to the next who still waits."""
        with self._lock:
            while self._waiting:
                ticket = self._waiting.popleft()
                if ticket.set_running_or_notify_cancel():
                    break
            else:
                self.active -= 1
                return
        # Outside the lock: the future's callbacks may enter again.
        ticket.set_result(None)

    def give_up(self, ticket: Future[None]) -> None:
        """Return a place, or leave the queue, whichever `ticket` stands for by now."""
        with self._lock:
            if ticket.cancel():
                self._forget(ticket)
                return
        ticket.result()
        self.leave()

    def _forget(self, ticket: Future[None]) -> None:
        try:
            self._waiting.remove(ticket)
        except ValueError:
            pass


class Gates:
    """One gate for each program and one for the thread pool, of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def program(self, name: str) -> Gate:
        """The gate of the program `name`."""
        gate = self._programs.get(name)
        if gate is None:
            with self._lock:
                gate = self._programs.setdefault(name, Gate(f"The program {name!r}"))
        return gate

    @property
    def threads(self) -> Gate:
        """The gate of the thread pool."""
        return self._threads

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._programs: dict[str, Gate] = {}
        self._threads = Gate("The server")


gates = Gates()
