"""Messages that a program sends to whoever reads its stream."""

from __future__ import annotations

import dspy

from dspyserve.events import RECORDER_KEY, STATUS


def send_status(message: str) -> None:
    """Tell the reader of the execution that runs here what the program is about: an event of type `status`.

    Works from every thread of the execution; outside of one, it does nothing. Stops the program, as any call does,
    when it was told to stop.
    """
    recorder = dspy.settings.get(RECORDER_KEY)
    if recorder is not None:
        recorder.signal.check()
        recorder.emit(STATUS, message=str(message))
