"""How events reach streams: kept in order, appended in any thread, read from any position by any number of readers."""

from __future__ import annotations

import asyncio
import threading
from array import array
from bisect import bisect_right
from collections.abc import Callable
from itertools import islice

from dspyserve.conf import settings
from dspyserve.encoding import encode
from dspyserve.events import PAYLOAD_KEYS, TERMINAL, TOKEN, Event

_PIECE = 1_024
"""The most tokens of one piece, so that a long text can be let go of bit by bit."""
_BATCH = 256
"""The most events that one read gives."""
_TOKEN_SIZE, _EVENT_SIZE = 80, 600
"""Bytes that an event takes beside its texts, roughly: a string in a list and a time; an object with a dict."""


class Trimmed(Exception):
    """The events after this position are not kept any more."""


class EventLog:
    """The events of one run, for its readers. Appending never waits for them.

    Tokens in a row are kept as a list of texts, a seventh of what as many events take. A reader that is more than
    `STREAM_BUFFER` events behind gets tokens of one field merged into one, whose `first_seq` tells where it begins.
    Beyond `STREAM_LIMIT` events the oldest are let go.
    """

    def __init__(self, trace_id: str, *, payloads: bool = True) -> None:
        """`payloads` is whether the inputs and outputs of inner spans are kept: only for readers who may see them."""
        self.trace_id = trace_id
        self.last_seq = 0
        self.is_over = False
        self.size = 0
        """Bytes in memory, roughly."""
        self.on_change: Callable[[], None] | None = None
        """Called after every event, in the thread that appended it."""
        self.on_end: Callable[[], None] | None = None
        """Called after the terminal event, likewise."""
        self.held_end: Event | None = None
        """The terminal event, while it has come and is held back."""
        self._on_held: Callable[[], None] | None = None
        self._loss: Callable[[int], Event] | None = None
        self._payloads = payloads
        self._lock = threading.Lock()
        self._starts: list[int] = []
        self._pieces: list[Event | _Tokens] = []
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def append(self, event: Event) -> None:
        """Add an event, from any thread."""
        kept = event if self._payloads else event.without_payloads()
        with self._lock:
            on_held = self._on_held if event.is_terminal else None
            if on_held is not None:
                self.held_end = kept
            else:
                self._add(event.seq, kept)
                self.size += _weight(kept)
                self.is_over = event.is_terminal
        if on_held is not None:
            on_held()
            return
        if self.is_over and self.on_end is not None:
            # First: whoever has read the end finds that it is over, in whatever thread it was told.
            self.on_end()
        self._changed()

    def hold_end(self, on_held: Callable[[], None]) -> None:
        """Keep the terminal event back until `tell_end`, and call `on_held` when it has come.

        No reader is told an end that others might never get.
        """
        self._on_held = on_held

    def tell_end(self) -> None:
        """Let the terminal event go to the readers: at once where it has come, and as soon as it comes otherwise."""
        with self._lock:
            self._on_held = None
            held, self.held_end = self.held_end, None
        if held is not None:
            self.append(held)

    def break_off(self, loss: Callable[[int], Event]) -> None:
        """Say that nothing comes any more, not even an end.

        Every reader gets `loss(seq)`, numbered after the last event that it knows: it may know more of them than this.
        """
        with self._lock:
            self._loss = loss
            self.is_over = True
        self._changed()

    def token(self, seq: int, at: float, span_id: str, predictor: str, field: str, delta: str) -> None:
        """Add a token, from any thread."""
        with self._lock:
            self._drop_before_gap(seq)
            last = self._pieces[-1] if self._pieces else None
            if isinstance(last, _Tokens) and last.takes(span_id, field):
                self.last_seq = seq
            else:
                last = _Tokens(seq, span_id, predictor, field)
                self._add(seq, last)
            last.deltas.append(delta)
            last.moments.append(at)
            self.size += _TOKEN_SIZE + len(delta)
        self._changed()

    def since(self, after: int, limit: int = _BATCH, *, exact: bool = False) -> list[Event]:
        """Up to `limit` events that follow the one of number `after`; `exact` merges none, however many there are.

        Raises:
            Trimmed: some of them are not kept any more.
        """
        with self._lock:
            if after >= self.last_seq:
                return [self._loss(after + 1)] if self._loss is not None else []
            if after + 1 < self._starts[0]:
                raise Trimmed
            merges = not exact and self.last_seq - after > settings().stream_buffer
            events: list[Event] = []
            for index in range(bisect_right(self._starts, after + 1) - 1, len(self._pieces)):
                piece = self._pieces[index]
                if isinstance(piece, Event):
                    events.append(piece)
                elif merges:
                    events.append(piece.merged(after, self.trace_id))
                else:
                    events.extend(piece.events(after, self.trace_id, limit - len(events)))
                if len(events) >= limit:
                    break
            return events

    @property
    def first_seq(self) -> int:
        """The number of the oldest event that is kept; 1 while there is none."""
        with self._lock:
            return self._starts[0] if self._starts else 1

    def is_known(self, after: int) -> bool:
        """Whether the run is over and nothing follows the event of number `after`."""
        return self.is_over and self._loss is None and after >= self.last_seq

    def changed(self, after: int) -> asyncio.Future[None]:
        """Done as soon as there are events after the one of number `after`."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[None] = loop.create_future()
        with self._lock:
            if self.last_seq <= after and self._loss is None:
                self._waiting.append((loop, waiting))
                return waiting
        waiting.set_result(None)
        return waiting

    def _add(self, seq: int, piece: Event | _Tokens) -> None:
        self._drop_before_gap(seq)
        self._starts.append(seq)
        self._pieces.append(piece)
        self.last_seq = seq
        limit = settings().stream_limit
        if seq - self._starts[0] < limit:
            return
        drop = bisect_right(self._starts, seq - limit + 1) - 1
        for piece in islice(self._pieces, drop):
            self.size -= piece.size if isinstance(piece, _Tokens) else _weight(piece)
        del self._starts[:drop], self._pieces[:drop]

    def _drop_before_gap(self, seq: int) -> None:
        """Where events are missing before this one, as in a stream that Redis did not get, nobody reads across."""
        if seq > self.last_seq + 1:
            self._starts.clear()
            self._pieces.clear()
            self.size = 0

    def _changed(self) -> None:
        if self._waiting:
            with self._lock:
                waiting, self._waiting = self._waiting, []
            here = asyncio._get_running_loop()
            for loop, future in waiting:
                _wake(loop, future, here)
        if self.on_change is not None:
            self.on_change()


class _Tokens:
    """Tokens of one field in a row, the first of which has the number `first_seq`."""

    __slots__ = ("deltas", "field", "first_seq", "moments", "predictor", "span_id")

    def __init__(self, first_seq: int, span_id: str, predictor: str, field: str) -> None:
        self.first_seq = first_seq
        self.span_id = span_id
        self.predictor = predictor
        self.field = field
        self.deltas: list[str] = []
        self.moments = array("d")

    @property
    def size(self) -> int:
        return _TOKEN_SIZE * len(self.deltas) + sum(map(len, self.deltas))

    def takes(self, span_id: str, field: str) -> bool:
        return self.field == field and self.span_id == span_id and len(self.deltas) < _PIECE

    def events(self, after: int, trace_id: str, limit: int) -> list[Event]:
        start = max(0, after + 1 - self.first_seq)
        return [
            self._event(trace_id, self.first_seq + index, self.moments[index], delta=self.deltas[index])
            for index in range(start, min(len(self.deltas), start + limit))
        ]

    def merged(self, after: int, trace_id: str) -> Event:
        start = max(0, after + 1 - self.first_seq)
        delta = "".join(self.deltas[start:])
        seq = self.first_seq + len(self.deltas) - 1
        if start == len(self.deltas) - 1:
            return self._event(trace_id, seq, self.moments[-1], delta=delta)
        return self._event(trace_id, seq, self.moments[-1], delta=delta, first_seq=self.first_seq + start)

    def _event(self, trace_id: str, seq: int, at: float, **data: object) -> Event:
        return Event(
            type=TOKEN,
            seq=seq,
            trace_id=trace_id,
            at=at,
            span_id=self.span_id,
            data={"predictor": self.predictor, "field": self.field, **data},
        )


class LogReader:
    """One reader's place in a log."""

    def __init__(self, log: EventLog, after: int = 0) -> None:
        self._log = log
        self.after = after

    def ready(self) -> list[Event]:
        """The next events, as far as they are there; raises as `EventLog.since`."""
        events = self._log.since(self.after)
        if events:
            self.after = events[-1].seq
        return events

    def more(self) -> asyncio.Future[None]:
        """Done as soon as some are there. Whoever waits may settle it, and then looks for something else."""
        return self._log.changed(self.after)


def _weight(event: Event) -> int:
    has_texts = event.type in TERMINAL or not PAYLOAD_KEYS.isdisjoint(event.data)
    return _EVENT_SIZE + (len(encode(event.data)) if has_texts else 0)


def _wake(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[None], here: asyncio.AbstractEventLoop | None
) -> None:
    if loop is here:
        _resolve(future)
        return
    try:
        loop.call_soon_threadsafe(_resolve, future)
    except RuntimeError:
        # The loop is closed: nobody reads any more.
        pass


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
