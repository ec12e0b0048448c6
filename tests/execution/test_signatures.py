"""Signatures as plain data."""

from __future__ import annotations

from typing import Any, Literal

import dspy
import pytest

from dspyserve import runs
from dspyserve.events import Event
from dspyserve.execution.signatures import signature_facts
from dspyserve.models import Span, Trace


class Sort(dspy.Signature):
    """Sort the message.
    Be fair."""

    text: str = dspy.InputField(desc="a message")
    tags: list[str] = dspy.OutputField()
    mood: Literal["good", "bad"] = dspy.OutputField()


FACTS = {
    "name": "Sort",
    "instructions": "Sort the message.\nBe fair.",
    "inputs": [{"name": "text", "type": "str", "description": "a message"}],
    "outputs": [
        {"name": "tags", "type": "list[str]", "description": ""},
        {"name": "mood", "type": "Literal['good', 'bad']", "description": ""},
    ],
}


def test_tell_instructions_and_fields() -> None:
    assert signature_facts(Sort) == FACTS
    assert signature_facts(Sort) is signature_facts(Sort)


def test_an_annotation_that_cannot_be_read_costs_no_span() -> None:
    class Odd:
        instructions = "x"

        @property
        def input_fields(self) -> Any:
            raise ValueError

    assert signature_facts(Odd) == {"name": "Odd", "instructions": "x"}


@pytest.mark.usefixtures("language_model")
async def test_stand_with_the_span_of_their_predictor() -> None:
    trace_id = (await runs.aexecute("echo", {"question": "q"})).trace_id
    trace = await Trace.objects.aget(pk=trace_id)
    spans = {span.kind: span async for span in Span.objects.filter(trace=trace).select_related("payload")}
    told = spans["module"].payload.attributes["signature"]
    assert [field["name"] for field in told["inputs"] + told["outputs"]] == ["question", "answer"]


def test_are_for_those_who_may_see_payloads() -> None:
    event = Event(type="module_start", seq=1, trace_id="t", at=0.0, data={"signature": FACTS, "module": "Predict"})
    assert "signature" not in event.as_dict()
    assert event.as_dict(payloads=True)["signature"] == FACTS
