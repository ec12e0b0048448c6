"""The programs that benchmarks measure, as DSPy alone knows them: whatever serves them runs these classes.

Imports nothing but DSPy, for dspy-cli finds the modules of its programs in a copy of this file.
"""

from __future__ import annotations

import dspy
from dspy.lm15 import RouterConfig

# DSPy's engine has 100 connections to a provider, whatever is asked for. Nobody's 256 programs shall wait for those.
RouterConfig.__init__.__kwdefaults__["max_connections"] = 2_000


class Ask(dspy.Predict):
    """A `Predict`, which runs either way. Its methods name their input, for dspy-cli reads it from there."""

    def __init__(self) -> None:
        super().__init__("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        """Ask."""
        return super().forward(question=question)

    async def aforward(self, question: str) -> dspy.Prediction:
        """Ask."""
        return await super().aforward(question=question)


class AskInThread(dspy.Module):
    """One predictor in a module that can only run synchronously."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        """Ask."""
        return self.ask(question=question)


class ThreeSteps(dspy.Module):
    """Three predictors, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.plan = dspy.Predict("question -> plan")
        self.draft = dspy.Predict("question, plan -> draft")
        self.polish = dspy.Predict("question, draft -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        """Plan, draft, answer."""
        plan = self.plan(question=question).plan
        draft = self.draft(question=question, plan=plan).draft
        return self.polish(question=question, draft=draft)


def search(query: str) -> str:
    """Find what is known."""
    return f"Found about {query}: water boils at 100 degrees at the sea, and at 93 degrees 2,000 metres above it."


def add(left: int, right: int) -> int:
    """The sum of two numbers."""
    return left + right


class Agent(dspy.Module):
    """A ReAct that calls two tools: four calls of the language model."""

    def __init__(self) -> None:
        super().__init__()
        self.agent = dspy.ReAct("question -> answer", tools=[search, add])

    def forward(self, question: str) -> dspy.Prediction:
        """Work it out."""
        return dspy.Prediction(answer=self.agent(question=question).answer)


class AskOnLoop(dspy.Module):
    """One predictor, native-async."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    async def aforward(self, question: str) -> dspy.Prediction:
        """Ask."""
        return await self.ask.acall(question=question)


class Spans(dspy.Module):
    """One predictor after calls of a module that does next to nothing: their number shows what a span costs."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")
        self.step = Step()
        self.steps = steps

    def forward(self, question: str) -> dspy.Prediction:
        """Take the steps, then ask."""
        for _ in range(self.steps):
            self.step(question=question)
        return self.ask(question=question)


class Step(dspy.Module):
    """A module that answers by itself."""

    def forward(self, question: str) -> dspy.Prediction:
        """Say how long the question is."""
        return dspy.Prediction(length=len(question))
