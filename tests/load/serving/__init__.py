"""The benchmark of requests: `python -m tests.load.serving [--quick] [--only NAME ...] [--rounds N]` prints a report.

Every comparison alternates its servers in one run, against one provider process: ours, FastAPI with `dspy.asyncify` as
DSPy's documentation has it, dspy-cli, and a bare pool of threads. An app of Django's, so that its programs are found.
"""
