"""What keeps histories from growing: the entries of language model calls go to the recorder of their run."""

from __future__ import annotations

import weakref
from typing import Any

import dspy
from dspy.utils.callback import ACTIVE_CALL_ID

from dspyserve.events import RECORDER_KEY


class HistoryHook:
    """Stands in for `LM.update_history` on an instance: hands the entry of a call to the run's recorder.

    With it no history grows: not the LM's, not the modules' of the run, not the global one. Outside a run it does what
    the LM would have done. The LM is held weakly, since it holds this.
    """

    def __init__(self, lm: dspy.BaseLM) -> None:
        self._lm = weakref.ref(lm)

    def __call__(self, entry: dict[str, Any]) -> None:
        recorder = dspy.settings.get(RECORDER_KEY)
        lm = self._lm()
        if recorder is not None:
            recorder.add_history(ACTIVE_CALL_ID.get(), entry)
        elif lm is not None:
            type(lm).update_history(lm, entry)

    def __reduce__(self) -> tuple[type[HistoryHook], tuple[Any, ...]]:
        return (HistoryHook, (self._lm(),))
