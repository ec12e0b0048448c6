"""The measured programs as the server serves them: those that are compared at every level of traces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import dspy

from dspyserve import register
from tests.load.serving.modules import Agent, Ask, AskInThread, AskOnLoop, Spans, ThreeSteps

LEVELS: Final[tuple[Literal["full", "metadata", "off"], ...]] = ("full", "metadata", "off")
_OTHER_SPANS: Final = 4
"""Those of the run, of the program, of its predictor, and of its call of the language model."""
SPANS: Final = (10, 100)


def _spans(count: int) -> Callable[[], dspy.Module]:
    """A program whose traces have so many spans."""

    def program() -> dspy.Module:
        return Spans(count - _OTHER_SPANS)

    return program


_MODULES: Final[dict[str, Callable[[], dspy.Module]]] = {
    "predict": Ask,
    "synchronous": AskInThread,
    "three_steps": ThreeSteps,
    "react": Agent,
    "native_async": AskOnLoop,
    **{f"spans_{count}": _spans(count) for count in SPANS},
}


def _register(name: str, module: Callable[[], dspy.Module], level: Literal["full", "metadata", "off"]) -> None:
    """Its name says the level, as in `predict-off`."""
    register(f"{name}-{level}", access="public", outputs={"answer": str}, trace_level=level)(module)


for _name, _module in _MODULES.items():
    for _level in LEVELS:
        _register(_name, _module, _level)
