"""Numbers as people read them, and tables in Markdown."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Sequence


def quantile(values: Iterable[float], share: float) -> float:
    """The value that `share` of all are below, or at."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def milliseconds(seconds: float) -> str:
    """A duration."""
    return f"{seconds * 1e3:.1f} ms"


def microseconds(seconds: float) -> str:
    """A short duration."""
    return f"{seconds * 1e6:.1f} µs"


def spread(values: Sequence[float], unit: float = 1.0, digits: int = 1) -> str:
    """Median, and least to most."""
    median, least, most = (value * unit for value in (statistics.median(values), min(values), max(values)))
    return f"{median:.{digits}f} ({least:.{digits}f}–{most:.{digits}f})"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table."""
    print("| " + " | ".join(heads) + " |")
    print("|" + " --- |" * len(heads))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def heading(text: str) -> None:
    """Print what comes."""
    print(f"## {text}\n", flush=True)


def note(text: str) -> None:
    """Print a sentence."""
    print(f"{text}\n", flush=True)


def progress(text: str) -> None:
    """Tell who waits."""
    print(text, file=sys.stderr, flush=True)
