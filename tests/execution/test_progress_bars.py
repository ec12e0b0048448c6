"""`dspy.Parallel` in several threads at once: one must not make the other fail."""

from __future__ import annotations

import dspy
import tqdm


class Doubled(dspy.Module):
    """Needs no language model."""

    def forward(self, number: int) -> dspy.Prediction:
        return dspy.Prediction(doubled=2 * number)


def in_parallel() -> list[int]:
    parallel = dspy.Parallel(num_threads=2, disable_progress_bar=True)
    return [found.doubled for found in parallel([(Doubled(), {"number": number}) for number in range(3)])]


def test_another_parallel_may_begin_while_a_progress_bar_is_made() -> None:
    bar = tqdm.tqdm.__new__(tqdm.tqdm)
    assert in_parallel() == [0, 2, 4]
    tqdm.tqdm.__init__(bar, total=1, disable=True)
    assert bar.disable


def test_dspy_still_empties_the_list_without_a_lock() -> None:
    bar = tqdm.tqdm.__new__(tqdm.tqdm)
    assert bar in tqdm.tqdm._instances
    in_parallel()
    assert bar not in tqdm.tqdm._instances, "DSPy keeps the list now: share_progress_bars is no longer needed"
    bar.disable = True
