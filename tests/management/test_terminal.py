"""What a stream looks like in a terminal, whatever order its events come in."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.core.management.base import OutputWrapper
from django.core.management.color import no_style

from dspyserve.events import FIELD_RESET, RUN_CANCELLED, RUN_END, TOKEN, Event
from dspyserve.management.terminal import StreamPrinter, Terminal

RESULT = {"usage": {}, "cost": None, "duration_ms": 12.3, "trace_stored": True, "outputs": {}}


class Screen:
    """A printer and what it printed."""

    def __init__(self) -> None:
        self._out = StringIO()
        self._printer = StreamPrinter(Terminal(OutputWrapper(self._out), no_style()))

    def token(self, span_id: str, delta: str, field: str = "answer") -> None:
        self.show(TOKEN, span_id, predictor=f"predictor-{span_id}", field=field, delta=delta)

    def show(self, kind: str, span_id: str = "root", **data: Any) -> None:
        self._printer.show(Event(type=kind, seq=1, trace_id="t1", at=0.0, span_id=span_id, data=data))

    @property
    def lines(self) -> list[str]:
        return self._out.getvalue().splitlines()


@pytest.fixture
def screen() -> Screen:
    return Screen()


def test_deltas_of_a_field_make_one_text(screen: Screen) -> None:
    screen.token("a", "Par", "reasoning")
    screen.token("a", "is")
    screen.token("a", ".\nYes.")
    screen.show(RUN_END, **RESULT)
    assert screen.lines[:5] == ["predictor-a.reasoning", "Par", "predictor-a.answer", "is.", "Yes."]


def test_what_comes_meanwhile_waits_for_its_turn(screen: Screen) -> None:
    for span_id in "abcabc":
        screen.token(span_id, span_id)
    assert screen.lines == ["predictor-a.answer", "aa"]
    screen.show("module_end", "c")
    screen.show("module_end", "a")
    screen.token("b", "B")
    assert screen.lines[2:] == ["predictor-b.answer", "bbB"]
    screen.show("module_end", "b")
    assert screen.lines[4:6] == ["predictor-c.answer", "cc"]
    screen.token("d", "d")
    assert screen.lines[6:] == ["predictor-d.answer", "d"]


@pytest.mark.parametrize("kind", [RUN_END, RUN_CANCELLED])
def test_the_end_shows_what_still_waits(screen: Screen, kind: str) -> None:
    screen.token("a", "1")
    screen.token("b", "2")
    screen.token("c", "3")
    screen.show(kind, **RESULT)
    assert screen.lines[:6] == ["predictor-a.answer", "1", "predictor-b.answer", "2", "predictor-c.answer", "3"]


def test_a_field_that_starts_again_says_so(screen: Screen) -> None:
    screen.token("a", "wrong")
    screen.show(FIELD_RESET, "a", predictor="predictor-a", field="answer")
    screen.token("a", "right")
    screen.show(RUN_END, **{**RESULT, "outputs": {"answer": "right"}})
    assert screen.lines[:4] == ["predictor-a.answer", "wrong", "predictor-a.answer (again)", "right"]
    assert len(screen.lines) == 5


def test_only_outputs_that_did_not_stream_follow(screen: Screen) -> None:
    screen.token("a", "yes")
    screen.show(RUN_END, **{**RESULT, "outputs": {"answer": "yes", "score": 3, "verdict": "no"}})
    assert screen.lines[2:6] == ["score", "3", "verdict", "no"]


def test_the_last_line_tells_what_is_known(screen: Screen) -> None:
    screen.show(RUN_END, **RESULT)
    known = {"usage": {"input_tokens": 5, "output_tokens": 7}, "cost": 0.00123, "trace_stored": False}
    screen.show(RUN_END, **{**RESULT, **known})
    assert screen.lines == [
        "trace t1 · 12 ms · ? + ? tokens · cost unknown",
        "trace t1 (not stored) · 12 ms · 5 + 7 tokens · $0.001230",
    ]
