"""Histograms against the exact quantiles of the same values."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from dspyserve.tracing import histogram
from dspyserve.tracing.histogram import Histogram

VALUES = st.lists(st.floats(min_value=0.001, max_value=1e9), min_size=1, max_size=60)


def of(values: list[float]) -> Histogram:
    made: Histogram = {}
    for value in values:
        histogram.add(made, value)
    return made


@given(VALUES, st.sampled_from([0.0, 0.5, 0.95, 0.99, 1.0]))
def test_quantiles_are_within_five_per_cent(values: list[float], q: float) -> None:
    exact = sorted(values)[int(q * (len(values) - 1))]
    (found,) = histogram.quantiles(of(values), q)
    assert found is not None
    assert abs(found - exact) <= 0.05 * exact


@given(VALUES, VALUES)
def test_merged_ones_are_those_of_all_values_and_can_be_parted_again(first: list[float], second: list[float]) -> None:
    merged = of(first)
    histogram.merge(merged, of(second))
    assert merged == of(first + second)
    histogram.merge(merged, of(second), -1)
    assert merged == of(first)


def test_they_go_through_json_unchanged() -> None:
    made = of([0.5, 3, 3, 70_000])
    assert json.loads(json.dumps(made)) == made


def test_values_beyond_all_measure_take_no_more_buckets() -> None:
    assert len(of([0, -1, 1e-9, float("nan")])) == 1
    assert len(of([1e12, 1e300, float("inf")])) == 1


def test_nothing_has_no_quantile() -> None:
    assert histogram.quantiles({}, 0.5, 0.95) == [None, None]
    made: Histogram = {}
    histogram.add(made, None)
    assert made == {}
