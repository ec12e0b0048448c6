"""The programs that are measured, as DSPy alone knows them: the server and what it is compared with run the same."""

from __future__ import annotations

import dspy


class AskInThread(dspy.Module):
    """One predictor, synchronous."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        """Ask."""
        return self.ask(question=question)


class AskOnLoop(dspy.Module):
    """One predictor, native-async."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    async def aforward(self, question: str) -> dspy.Prediction:
        """Ask."""
        return await self.ask.acall(question=question)
