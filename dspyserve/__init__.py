"""Serve DSPy programs from Django.

The public names: `register` puts a program into an app's `dspy_programs.py`; `ContextThreadPoolExecutor` is the pool
for programs that start threads of their own; `send_status` tells the reader of a stream what a program is about. To
call a program from Python, import `dspyserve.runs`.
"""

from dspyserve.execution.context_pool import ContextThreadPoolExecutor
from dspyserve.execution.status import send_status
from dspyserve.programs.registry import register

__all__ = ["ContextThreadPoolExecutor", "__version__", "register", "send_status"]

__version__ = "0.1.0"
