"""The example deployment with its limits raised, on a database in the directory that a benchmark made."""

import os
from pathlib import Path

os.environ.setdefault("SECRET_KEY", "only-for-benchmarks")

from project.settings import *  # noqa: F403
from project.settings import DSPYSERVE

DSPYSERVE = {
    **DSPYSERVE,
    "TRACE_SPOOL": str(Path(os.environ["BENCHMARK_DIRECTORY"]) / "spool"),
    "LM_CONNECTIONS": 2_000,
    "MAX_CONCURRENCY": 2_000,
    "MAX_QUEUE": 2_000,
    "TIMEOUT": 600.0,  # a server that cannot keep up should show as late, not as failed
    "POOL_SIZE": 256,
    "POOL_QUEUE": 512,
}
