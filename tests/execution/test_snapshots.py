"""Copies of what callbacks are shown, and how many of them a call takes."""

from __future__ import annotations

from typing import Any

import dspy
import pytest

from dspyserve import runs
from dspyserve.execution import recorder, snapshots
from dspyserve.execution.snapshots import snapshot
from dspyserve.runs import run


def test_share_nothing_that_can_change() -> None:
    given = {"messages": [{"role": "user", "parts": ["a", {"b": 1}]}], "plain": {"a": 1}}
    copy = snapshot(given)
    given["messages"][0]["parts"][1]["b"] = 2  # type: ignore[index]
    given["plain"]["a"] = 2  # type: ignore[call-overload]
    assert copy == {"messages": [{"role": "user", "parts": ["a", {"b": 1}]}], "plain": {"a": 1}}


def test_of_predictions_hold_their_fields() -> None:
    assert snapshot(dspy.Prediction(answer="x", scores=[1.5, float("inf")])) == {"answer": "x", "scores": [1.5, "inf"]}


@pytest.mark.usefixtures("language_model")
async def test_a_predict_takes_seven(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Any] = []

    def count(value: Any) -> Any:
        taken.append(value)
        return snapshot(value)

    for module in (recorder, run, snapshots):
        monkeypatch.setattr(module, "snapshot", count)
    await runs.aexecute("echo", {"question": "q"})
    # The inputs of the run and of the predictor, messages and parameters, and what LM, adapter and predictor gave.
    assert len(taken) == 7
