"""Histograms that can be added up: logarithmic buckets, from which a quantile is read within five per cent.

A histogram is the number of a bucket, as text, and how many values fell into it: what a JSON column holds. Bucket `n`
takes the values above `GAMMA ** (n - 1)` up to `GAMMA ** n`. (After DDSketch: Masson, Rim, Lee; VLDB 2019.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import accumulate
from typing import Final

Histogram = dict[str, int]

GAMMA: Final = 1.1
"""The ratio of a bucket's bounds: (GAMMA - 1) / (GAMMA + 1) = 4.8 % is the largest relative error."""
SMALLEST, LARGEST = 1e-3, 1e12
"""Values beyond count as these: in milliseconds a microsecond, and thirty years. It bounds the number of buckets."""

_LOG: Final = math.log(GAMMA)


def bucket(value: float) -> str:
    """The bucket that `value` falls into."""
    # In this order of arguments, what is not a number counts as the smallest.
    return str(math.ceil(math.log(min(max(SMALLEST, value), LARGEST)) / _LOG))


def add(histogram: Histogram, value: float | None) -> None:
    """Count `value`, where there is one."""
    if value is not None:
        key = bucket(value)
        histogram[key] = histogram.get(key, 0) + 1


def merge(into: Histogram, other: Mapping[str, int], times: int = 1) -> None:
    """Add `other` to `into`, or with `times` -1 take it away. Buckets that are empty then are left out."""
    if not into and times == 1:
        into.update(other)
        return
    for key, count in other.items():
        if total := into.get(key, 0) + times * count:
            into[key] = total
        else:
            into.pop(key, None)


def quantiles(histogram: Mapping[str, int], *wanted: float) -> list[float | None]:
    """The values below which the `wanted` parts of all values lie, such as 0.5; None of an empty histogram."""
    ordered = sorted((int(key), count) for key, count in histogram.items())
    total = sum(count for _, count in ordered)
    return [_at_rank(ordered, q * (total - 1)) if total > 0 else None for q in wanted]


def _at_rank(ordered: list[tuple[int, int]], rank: float) -> float:
    ends = accumulate(count for _, count in ordered)
    number = next(number for (number, _), end in zip(ordered, ends, strict=True) if end > rank)
    # As far, in proportion, from the lower bound of the bucket as from the upper one.
    return 2 * GAMMA**number / (GAMMA + 1)
