"""Programs that put a server to the test: every way of calling a language model from every kind of thread."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy
from dspy.experimental import Document

from dspyserve import ContextThreadPoolExecutor, register
from dspyserve.models import Trace

PINNED_MODEL = "openai/gpt-4.1-mini"
"""What the `pinned` program's own language model is called."""


def _pinned_from_environment() -> dspy.LM | None:
    """What a test wants a server process to pin: an address and a key."""
    given = os.environ.get("DSPYSERVE_TESTS_PINNED", "").split()
    if not given:
        return None
    address, key = given
    return dspy.LM(PINNED_MODEL, api_base=address, api_key=key, cache=False, num_retries=0)


started: list[str] = []
"""The questions of `blocking` that have begun, in this process."""

release = threading.Event()
"""Lets `blocking` go on, in this process."""


@register("echo", access="public")
def echo() -> dspy.Module:
    """One predictor, native-async."""
    return dspy.Predict("question -> answer")


@register("threaded", access="public")
class Threaded(dspy.Module):
    """Two calls one after the other, in a thread."""

    def __init__(self) -> None:
        super().__init__()
        self.first = dspy.Predict("question -> draft")
        self.second = dspy.Predict("question, draft -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        draft = self.first(question=question).draft
        return dspy.Prediction(draft=draft, answer=self.second(question=question, draft="-").answer)


@register("parallel", access="public", outputs={"answers": list[str]})
class InParallel(dspy.Module):
    """Six calls in the threads of `dspy.Parallel`."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        parallel = dspy.Parallel(num_threads=3, disable_progress_bar=True, timeout=0)
        found = parallel([(self.ask, {"question": f"{question} #{number}"}) for number in range(6)])
        return dspy.Prediction(answers=[prediction.answer for prediction in found])


@register("pooled", access="public", outputs={"answers": list[str]})
class InOwnPool(dspy.Module):
    """Four calls in a pool of the program's own."""

    pool: type[ThreadPoolExecutor] = ContextThreadPoolExecutor

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        with self.pool(max_workers=2) as pool:
            jobs = [pool.submit(self.ask, question=f"{question} #{number}") for number in range(4)]
            return dspy.Prediction(answers=[job.result().answer for job in jobs])


@register("pinned", access="public", outputs={"own": str, "answer": str})
class Pinned(dspy.Module):
    """One predictor on a language model of its own, which is set by tests, and one on the program's."""

    lm: dspy.LM | None = None

    def __init__(self) -> None:
        super().__init__()
        self.own = dspy.Predict("question -> answer")
        self.own.lm = self.lm or _pinned_from_environment()
        self.other = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        return dspy.Prediction(own=self.own(question=question).answer, answer=self.other(question=question).answer)


@register("gathered", access="public", outputs={"answers": list[str]})
class Gathered(dspy.Module):
    """Four calls at once on the event loop."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    async def aforward(self, question: str) -> dspy.Prediction:
        found = await asyncio.gather(*(self.ask.acall(question=f"{question} #{number}") for number in range(4)))
        return dspy.Prediction(answers=[prediction.answer for prediction in found])


@register("stateful", access="public", outputs={"seen": list[str], "traced": int, "answer": str})
class Stateful(dspy.Module):
    """Remembers what it was asked, in itself, and tells how long DSPy's trace is."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")
        self.seen: list[str] = []

    def forward(self, question: str) -> dspy.Prediction:
        self.seen.append(question)
        answer = self.ask(question=question).answer
        return dspy.Prediction(seen=self.seen, traced=len(dspy.settings.trace), answer=answer)


@register("stubborn", access="public", outputs={"rounds": int})
class Stubborn(dspy.Module):
    """Calls on and on, whatever it is told in an `Exception`."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question: str, rounds: int = 1000) -> dspy.Prediction:
        for _ in range(rounds):
            try:
                self.ask(question=question)
            except Exception:
                continue
        return dspy.Prediction(rounds=rounds)


@register("blocking", access="public", outputs={"question": str}, max_concurrency=2, max_queue=1)
class Blocking(dspy.Module):
    """Holds its thread until `release` is set."""

    def forward(self, question: str) -> dspy.Prediction:
        started.append(question)
        release.wait(30)
        return dspy.Prediction(question=question)


@register("sleeper", access="public", outputs={"slept": float})
class Sleeper(dspy.Module):
    """Sleeps in short naps, between calls of a tool, in a thread."""

    def __init__(self) -> None:
        super().__init__()
        self.nap = dspy.Tool(lambda seconds: time.sleep(seconds), name="nap", args={"seconds": {"type": "number"}})

    def forward(self, seconds: float, nap: float = 0.05) -> dspy.Prediction:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.nap(seconds=nap)
        return dspy.Prediction(slept=seconds)


@register("failing", access="public", outputs={"answer": str})
class Failing(dspy.Module):
    """Raises, with a secret in its message."""

    def forward(self, question: str) -> Any:
        raise ValueError(f"provider-secret-text in {question}")


@register("private", access="authenticated")
def private() -> dspy.Module:
    """For authenticated callers."""
    return dspy.Predict("question -> answer")


@register("restricted", access="restricted")
def restricted() -> dspy.Module:
    """For callers with the permission."""
    return dspy.Predict("question -> answer")


MEDIA_TYPES: dict[str, Any] = {
    "image": dspy.Image | None,
    "audio": dspy.Audio | None,
    "file": dspy.File | None,
    "document": Document | None,
    "history": dspy.History | None,
    "code": dspy.Code | None,
    "reasoning": dspy.Reasoning | None,
    "calls": dspy.ToolCalls | None,
}
"""Every type of DSPy's own."""


@register("media", access="public", inputs=MEDIA_TYPES, outputs=MEDIA_TYPES)
class Media(dspy.Module):
    """Gives back what it is given, and fails where that is not of DSPy's type."""

    def forward(self, **given: Any) -> dspy.Prediction:
        for name, value in given.items():
            wanted = MEDIA_TYPES[name].__args__[0]
            if value is not None and not isinstance(value, wanted):
                raise TypeError(f"{name} is a {type(value).__name__}")
        return dspy.Prediction(**given)


class Caption(dspy.Signature):
    """Say what is in the picture."""

    image: dspy.Image = dspy.InputField()
    caption: str = dspy.OutputField()
    code: dspy.Code = dspy.OutputField()


@register("caption", access="public")
def caption() -> dspy.Module:
    """Sends a picture to the language model."""
    return dspy.Predict(Caption)


class Reply(dspy.Signature):
    """Go on with the conversation."""

    history: dspy.History = dspy.InputField()
    message: str = dspy.InputField()
    reply: str = dspy.OutputField()


@register("chat", access="public")
def chat() -> dspy.Module:
    """Remembers the conversation that it is given."""
    return dspy.ChainOfThought(Reply)


@register("step_by_step", access="public", outputs={"answer": str})
class StepByStep(dspy.Module):
    """Two calls, both of a field `answer`: only the second is the program's own."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        draft = self.ask(question=question).answer
        return dspy.Prediction(answer=self.ask(question=f"{question} {len(draft)}").answer)


@register("archivist", access="public", outputs={"before": int, "after": int})
class Archivist(dspy.Module):
    """A native-async program that asks the database, and once more after a while."""

    async def aforward(self, seconds: float) -> dspy.Prediction:
        """How many traces there were, and are."""
        before = await Trace.objects.acount()
        await asyncio.sleep(seconds)
        return dspy.Prediction(before=before, after=await Trace.objects.acount())
