"""Several `dspy.Parallel` at once in one process."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

import tqdm


class _SharedInstances(WeakSet[Any]):
    """The list of a process's progress bars, which one thread may empty while another is just making its own."""

    def clear(self) -> None:
        bars: Any = tqdm.tqdm
        with bars.get_lock():
            super().clear()

    def remove(self, item: Any) -> None:
        self.discard(item)


def share_progress_bars() -> None:
    """Let programs in several threads use `dspy.Parallel` at the same time.

    It empties the list of all progress bars of the process when it begins (`dspy/utils/parallelizer.py`, DSPy 3.4.1),
    disabled ones too; another thread between the making of its bar and its first use then fails with a KeyError.
    """
    bars: Any = tqdm.tqdm
    if not isinstance(bars._instances, _SharedInstances):
        bars._instances = _SharedInstances(bars._instances)
