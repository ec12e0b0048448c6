"""Traces out of the database, whole and in several formats.

Each format is a module of its own, which makes of one trace one piece of the file; `reading` reads the traces, and
`formats` knows them all.
"""

from dspyserve.tracing.export.formats import FORMATS, Format, finished, jsonl, lines, with_feedback

__all__ = ["FORMATS", "Format", "finished", "jsonl", "lines", "with_feedback"]
