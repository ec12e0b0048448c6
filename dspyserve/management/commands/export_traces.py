"""`manage.py export_traces`."""

from __future__ import annotations

import datetime
import sys
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from dspyserve.models import Trace
from dspyserve.tracing.export import FORMATS, Format, lines, with_feedback
from dspyserve.tracing.query_language import parse
from dspyserve.tracing.query_terms import UnreadableSearch
from dspyserve.tracing.query_values import read_moment
from dspyserve.tracing.search import TraceFilter


class Command(BaseCommand):
    help = "Write traces to a file, the newest first: JSONL of everything, CSV, DSPy examples, or OTLP/JSON."

    def add_arguments(self, parser: CommandParser) -> None:
        """Which traces, in which format, and where to."""
        parser.add_argument("--format", choices=sorted(FORMATS), default="jsonl")
        parser.add_argument("--output", metavar="FILE", help="a new file; standard output by default")
        parser.add_argument(
            "--filter",
            metavar="SEARCH",
            default="",
            help="as in the search box of the list: 'status:failed cost>0.01'; of any time, but with a text of seven "
            "days, unless it or --since says otherwise",
        )
        parser.add_argument("--program", metavar="NAME")
        parser.add_argument("--status", choices=Trace.Status.values)
        parser.add_argument("--since", metavar="TIME", type=_moment, help="such as 2026-01-31T12:00:00Z")
        parser.add_argument("--until", metavar="TIME", type=_moment, help="likewise; not included")
        parser.add_argument(
            "--judged", choices=("any", "positive"), help="only with feedback: any, or liked or corrected ones"
        )
        parser.add_argument("--no-payloads", action="store_true", help="without inputs, outputs and messages")

    def handle(self, *args: Any, **options: Any) -> None:
        """Write them."""
        form, payloads = FORMATS[options["format"]], not options["no_payloads"]
        if form.needs_payloads and not payloads:
            raise CommandError(f"Nothing is left of the format {options['format']} without payloads.")
        traces = _wanted(options).apply(Trace.objects.all(), payloads=payloads)
        if options["judged"]:
            traces = with_feedback(traces, options["judged"])
        counted = _Counted(form)
        chunks = lines(traces, counted.form, payloads=payloads)
        if options["output"] is None:
            _write(chunks, sys.stdout.buffer)
            return
        try:
            with Path(options["output"]).open("xb") as file:
                _write(chunks, file)
        except OSError as error:
            raise CommandError(f"{options['output']}: {error.strerror}") from None
        self.stderr.write(f"{counted.traces} traces written to {options['output']}")


class _Counted:
    """A format that counts what it writes."""

    def __init__(self, form: Format) -> None:
        self.traces = 0
        self.form = replace(form, write=self._write)
        self._inner = form.write

    def _write(self, record: Any) -> bytes:
        piece = self._inner(record)
        self.traces += bool(piece)
        return piece


def _wanted(options: dict[str, Any]) -> TraceFilter:
    try:
        wanted = parse(options["filter"])
    except UnreadableSearch as error:
        raise CommandError("; ".join(f"{each.term}: {each.message}" for each in error.errors)) from None
    names = ("program", "status", "since", "until")
    return replace(wanted, **{name: options[name] for name in names if options[name] is not None})


def _write(chunks: Any, file: IO[bytes]) -> None:
    for chunk in chunks:
        file.write(chunk)
    file.flush()


def _moment(text: str) -> datetime.datetime:
    try:
        return read_moment(text)
    except ValueError as error:
        raise CommandError(str(error)) from None
