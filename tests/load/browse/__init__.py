"""Figures of the trace browser: `python -m tests.load.browse [--quick] [--traces N] [--database URL]` prints a report.

A database is filled with as many traces as asked for, of six spans each, and every page is asked for several times
through the views themselves, in one process, so that a figure is what the page costs its server.
"""
