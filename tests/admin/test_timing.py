"""Arithmetic of the waterfall."""

from __future__ import annotations

import pytest

from dspyserve.admin.traces.timing import Interval, critical_path, self_time


@pytest.mark.parametrize(
    ("children", "own"),
    [
        ([], 100),
        ([(0, 40), (50, 90)], 20),
        ([(0, 60), (20, 80)], 20),
        ([(10, 90), (20, 30)], 20),
        ([(-5, 50), (50, 200)], 0),
        ([(200, 300)], 100),
    ],
)
def test_time_of_its_own_counts_what_is_parallel_once(children: list[tuple[float, float]], own: float) -> None:
    assert self_time(Interval(0, 100), [Interval(*child) for child in children]) == own


def test_the_path_takes_the_last_to_end_and_what_that_waited_for() -> None:
    # 0 is the run; 1 is followed by 2 and 3 side by side, of which 3 ends last; 4 lies within 3, 5 within 2.
    intervals = [Interval(*pair) for pair in [(0, 100), (0, 30), (30, 60), (31, 95), (40, 94), (35, 50)]]
    children = [[1, 2, 3], [], [5], [4], [], []]
    assert critical_path(intervals, children, 0) == {0, 1, 3, 4}


def test_clocks_may_overlap_a_little() -> None:
    intervals = [Interval(0, 100), Interval(0, 51), Interval(50, 101)]
    assert critical_path(intervals, [[1, 2], [], []], 0) == {0, 1, 2}
