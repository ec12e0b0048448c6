"""What holds for the events of every run, whatever program, adapter or fault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dspyserve import runs
from dspyserve.events import FIELD, FIELD_RESET, REASONING_CONTENT, TERMINAL, TOKEN, Event


@dataclass
class Told:
    """What a client knows of one predictor's call by its events alone."""

    predictor: str
    values: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    """Events of each field: deltas, or the whole value."""
    resets: list[str] = field(default_factory=list)


async def stream(program: str, *, timeout: float | None = None, **inputs: Any) -> list[Event]:
    """All events of a run, checked."""
    events = [event async for event in await runs.astream(program, inputs, timeout=timeout)]
    check(events)
    return events


def check(events: Sequence[Event]) -> None:
    """Numbers without gaps, one terminal event, and every field of every predictor told once, as it is in the end."""
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.type in TERMINAL for event in events] == [False] * (len(events) - 1) + [True]
    calls = {event.span_id for event in events if event.data.get("module") == "Predict"}
    known = {span_id: call.values for span_id, call in told(events).items()}
    for event in events:
        if event.type == "module_end" and event.span_id in calls and "error" not in event.data:
            values = known.get(event.span_id, {})
            assert {name: values[name] for name in values if name != REASONING_CONTENT} == event.data["outputs"]


def told(events: Sequence[Event]) -> dict[str, Told]:
    """What was told of each predictor's call, by its span."""
    calls: dict[str, Told] = {}
    for event in events:
        if event.type not in (TOKEN, FIELD, FIELD_RESET):
            continue
        call = calls.setdefault(event.span_id or "", Told(event.data["predictor"]))
        name = event.data["field"]
        if event.type == FIELD_RESET:
            assert name in call.values, "nothing was told that could be taken back"
            del call.values[name], call.counts[name]
            call.resets.append(name)
            continue
        call.counts[name] = call.counts.get(name, 0) + 1
        if event.type == FIELD:
            assert name not in call.values, f"{name} is told twice"
            call.values[name] = event.data["value"]
        else:
            assert event.data["delta"], "an empty delta"
            call.values[name] = call.values.get(name, "") + event.data["delta"]
    return calls


def only(events: Sequence[Event]) -> Told:
    """What was told of the one predictor that was called."""
    (call,) = told(events).values()
    return call
