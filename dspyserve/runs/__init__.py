"""The one way to execute a program. Every door comes through here, and Python code calls it directly.

`execute` runs in the calling thread, `aexecute` on the event loop, `astream` gives the events of a run as they happen
(`aresume` gives them once more, `acancel` stops the run), `abatch` executes many inputs. All end alike: the trace is
committed, or marked as not yet stored, before the answer goes out. The only place that ties `programs`, `execution` and
`tracing` together.
"""

from dspyserve.runs.batch import abatch
from dspyserve.runs.calls import aexecute, astream, execute
from dspyserve.runs.live import live
from dspyserve.runs.result import RunResult
from dspyserve.runs.resuming import acancel, aresume
from dspyserve.runs.stream import RunStream

__all__ = ["RunResult", "RunStream", "abatch", "acancel", "aexecute", "aresume", "astream", "execute", "live"]
