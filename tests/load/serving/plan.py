"""How much is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from tests.load.serving.readings import Pace

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Plan:
    """All of it, or `quick`: as little as shows that everything works."""

    quick: bool
    rounds: int | None = None

    @property
    def pace(self) -> Pace:
        """Of a comparison."""
        if self.quick:
            return Pace(seconds=0.2, rounds=self.rounds or 2, settling=0.1)
        return Pace(seconds=4.0, rounds=self.rounds or 5)

    @property
    def judged(self) -> bool:
        """Whether the report says which targets are met: two short rounds say nothing about that."""
        return not self.quick

    @property
    def renews(self) -> bool:
        """Whether every round has processes of its own."""
        return not self.quick

    def some(self, everything: Sequence[_T], one: _T) -> Sequence[_T]:
        """All of them, or one."""
        return [one] if self.quick else everything
