"""Charts as geometry: what the template draws as SVG, stretched to whatever room there is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

WIDTH, HEIGHT = 1000, 200
_GAP: Final = 0.2
"""Of a slot, beside its bar."""
_STEPS: Final = (1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10)
"""Round numbers whose halves are round too."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One part of the time: where it is, what is said of it, and where its traces are."""

    title: str
    url: str
    x: str = ""
    width: str = ""


@dataclass(frozen=True, slots=True)
class Rect:
    """A piece of a bar; `url` where it leads elsewhere than its slot."""

    kind: str
    x: str
    y: str
    width: str
    height: str
    title: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A line through all slots, broken where nothing is known."""

    kind: str
    path: str


@dataclass(frozen=True, slots=True)
class Legend:
    """The name of what is drawn as `kind`."""

    kind: str
    label: Any


@dataclass(slots=True)
class Chart:
    """One chart."""

    name: str
    title: Any
    legend: list[Legend]
    slots: list[Slot]
    ticks: list[str]
    """What stands beside it, from the top down."""
    summary: str = ""
    """The figure of all the time."""
    rects: list[Rect] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    is_empty: bool = False


def places(count: int) -> list[tuple[float, float]]:
    """Where `count` slots are, and how wide."""
    width = WIDTH / max(count, 1)
    return [(number * width, width) for number in range(count)]


def ceiling(highest: float) -> float:
    """A round number, not below `highest`."""
    if highest <= 0:
        return 1.0
    size = 10 ** math.floor(math.log10(highest))
    return float(next(step * size for step in _STEPS if step * size >= highest * 0.9999))


def ticks(top: float, written: Callable[[float], str]) -> list[str]:
    """What stands at the top, at half the height and at the bottom."""
    return [written(top), written(top / 2), written(0)]


def bars(kinds: Sequence[str], values: Sequence[Sequence[float]], top: float) -> list[Rect]:
    """For every slot its values upon one another."""
    rects = []
    for (x, width), stack in zip(places(len(values)), values, strict=True):
        base = float(HEIGHT)
        for kind, value in zip(kinds, stack, strict=True):
            height = HEIGHT * value / top
            if value > 0:
                # What is there is to be seen.
                height = max(height, 1.5)
                base -= height
                rects.append(rect(kind, x + _GAP * width / 2, max(base, 0), (1 - _GAP) * width, height))
    return rects


def rect(kind: str, x: float, y: float, width: float, height: float) -> Rect:
    """A piece, in the numbers of SVG."""
    return Rect(kind, f"{x:.2f}", f"{y:.2f}", f"{width:.2f}", f"{height:.2f}")


def line(kind: str, values: Sequence[float | None], top: float) -> Line:
    """Through the middle of every slot; a value between two gaps is a point."""
    path: list[str] = []
    is_drawing = False
    for (x, width), value in zip(places(len(values)), values, strict=True):
        if value is not None:
            path.append(f"{'L' if is_drawing else 'M'}{x + width / 2:.2f} {HEIGHT * (1 - value / top):.2f}")
            if not is_drawing:
                path.append("h0")
        is_drawing = value is not None
    return Line(kind, "".join(path))
