"""The copies that every execution gets, each checked by itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import dspy
import pytest
from dspy.clients.base_lm import GLOBAL_HISTORY
from dspy.utils.callback import BaseCallback

from dspyserve import register, runs
from dspyserve.execution.isolation import copy_program, isolated
from dspyserve.execution.recorder import Recorder
from dspyserve.execution.stopping import StopSignal
from dspyserve.models import Trace
from dspyserve.programs.catalogue import catalogue
from dspyserve.programs.registry import registry
from dspyserve.programs.served import ServedProgram
from dspyserve.programs.synchronise import synchronise
from tests import dspy_programs
from tests.load.openai_server import OpenAIServer

pytestmark = pytest.mark.usefixtures("language_model")

NAME = "isolated-here"


class Meddler(dspy.Module):
    """Changes whatever it can reach, and tells what it found."""

    lock = threading.Lock()

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")
        self.client = threading.Lock()

    def forward(self, question: str) -> Any:
        lm = dspy.settings.lm
        found = [lm.kwargs["temperature"], len(lm.callbacks), len(lm.history), len(dspy.settings.trace)]
        answer = self.ask(question=question).answer
        lm.kwargs["temperature"] = 0.9
        lm.callbacks.append(BaseCallback())
        return dspy.Prediction(found=found, answer=answer)


@pytest.fixture
def meddler() -> Iterator[str]:
    register(NAME, access="public", outputs={"found": list[float], "answer": str})(Meddler)
    synchronise()
    yield NAME
    registry.remove(NAME)


def recorder() -> Recorder:
    """One that nobody reads."""
    return Recorder("0" * 32, StopSignal(float("inf")))


class TestLanguageModel:
    def test_a_program_that_changes_it_changes_a_copy(self, meddler: str) -> None:
        for _ in range(3):
            assert runs.execute(meddler, {"question": "q"}).outputs["found"] == [0.1, 0, 0, 0]

    def test_copies_share_the_connection_pools(self) -> None:
        served = catalogue.get("echo")
        with isolated(served, recorder(), in_thread=True, streams=False):
            assert dspy.settings.lm is not served.lm
            assert dspy.settings.lm._engine_store is served.lm._engine_store

    def test_a_pinned_one_is_copied_and_shares_its_pools(self, provider: OpenAIServer) -> None:
        pinned = dspy.LM(dspy_programs.PINNED_MODEL, api_base=provider.url, api_key="k", cache=False)
        dspy_programs.Pinned.lm = pinned
        try:
            catalogue.forget()
            catalogue.refresh()
            registration = registry.get("pinned")
            assert registration is not None
            template = registration.build()
            served = catalogue.get("echo")
            from dataclasses import replace

            made: ServedProgram = replace(served, template=template, pinned=(pinned,))
            copied = copy_program(made)
            assert copied.own.lm is not pinned
            assert copied.own.lm._engine_store is pinned._engine_store
            assert copied.other.lm is None
        finally:
            dspy_programs.Pinned.lm = None


class TestProgram:
    def test_what_cannot_be_copied_is_shared_and_the_rest_is_not(self, meddler: str) -> None:
        served = catalogue.get(meddler)
        copied = copy_program(served)
        assert copied.client is served.template.client
        assert copied.ask is not served.template.ask


class TestContext:
    def test_nothing_of_the_callers_context_comes_in(self) -> None:
        served = catalogue.get("echo")
        foreign = BaseCallback()
        with (
            dspy.context(callbacks=[foreign], trace=[1], adapter=dspy.JSONAdapter(), track_usage=True),
            isolated(served, recorder(), in_thread=True, streams=False),
        ):
            assert foreign not in dspy.settings.callbacks
            assert dspy.settings.trace == []
            assert dspy.settings.adapter is served.adapter
            assert dspy.settings.send_stream is None

    def test_the_process_has_no_language_model(self) -> None:
        # A thread that lost its context must fail, rather than use another program's.
        assert dspy.settings.lm is None

    def test_callbacks_of_the_process_are_kept(self, settings: Any) -> None:
        settings.DSPYSERVE = {**settings.DSPYSERVE, "CALLBACKS": ["tests.execution.test_isolation.Counting"]}
        Counting.count = 0
        runs.execute("threaded", {"question": "q"})
        assert Counting.count == 2

    def test_histories_are_as_long_as_before(self) -> None:
        served = catalogue.get("threaded")
        before = len(GLOBAL_HISTORY)
        with isolated(served, recorder(), in_thread=True, streams=False) as program:
            program(question="q")
            assert (len(GLOBAL_HISTORY), len(program.history), len(dspy.settings.lm.history)) == (before, 0, 0)

    def test_the_usage_of_parallel_threads_is_counted(self) -> None:
        result = runs.execute("parallel", {"question": "q"})
        spans = Trace.objects.get(pk=result.trace_id).spans.filter(kind="lm")
        assert result.usage["input_tokens"] == sum(span.input_tokens or 0 for span in spans)
        assert all(span.input_tokens for span in spans)


class Counting(BaseCallback):
    """Counts the calls of language models."""

    count = 0

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """One more."""
        Counting.count += 1
