"""Serve DSPy programs from Django.

The public names: `register` puts a program into an app's `dspy_programs.py`; `ContextThreadPoolExecutor` is the pool
for programs that start threads of their own. To call a program from Python, import `dspyserve.runs`.
"""

from dspyserve.execution.context_pool import ContextThreadPoolExecutor
from dspyserve.programs.registry import register

__all__ = ["ContextThreadPoolExecutor", "__version__", "register"]

__version__ = "0.1.0"
