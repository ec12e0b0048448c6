"""`manage.py run_program NAME key=value…`."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from dspyserve import runs
from dspyserve.encoding import decode, encode
from dspyserve.errors import MalformedBody, RequestError, RunCancelled
from dspyserve.events import RUN_CANCELLED, RUN_ERROR, Caller, Event
from dspyserve.management.rows import seconds
from dspyserve.management.terminal import StreamPrinter, Terminal
from dspyserve.models import Trace
from dspyserve.problems import problem
from dspyserve.programs.catalogue import catalogue

_CALLER = Caller(transport=Trace.Transport.COMMAND)

INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended, as shells have it."""

_UNWINDING = 10.0
"""Seconds that an interrupted run gets to end and to leave its trace."""


class Command(BaseCommand):
    help = "Run a program and print its outputs. Ctrl-C cancels it."

    def add_arguments(self, parser: CommandParser) -> None:
        """Inputs and the way to print."""
        parser.add_argument("name")
        parser.add_argument("inputs", nargs="*", metavar="key=value", help="an input; JSON where it is no text field")
        parser.add_argument("--inputs", dest="document", metavar="JSON", help="all inputs as one object")
        parser.add_argument("--stream", action="store_true", help="print the text as it comes")
        parser.add_argument("--json", action="store_true", help="print JSON; with --stream, an event per line")
        parser.add_argument("--timeout", type=seconds, metavar="S", help="seconds")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run it."""
        try:
            given = _inputs(options["name"], options["inputs"], options["document"])
            way = self._stream if options["stream"] else self._run
            failed = asyncio.run(way(options["name"], given, options["timeout"], as_json=options["json"]))
        except RequestError as error:
            failed = problem(error)
            if options["json"]:
                self._print_json(failed)
        if failed is not None:
            _fail(failed, is_printed=options["json"])

    async def _run(
        self, name: str, given: dict[str, Any], timeout: float | None, *, as_json: bool
    ) -> dict[str, Any] | None:
        try:
            result = await runs.aexecute(name, given, caller=_CALLER, timeout=timeout, from_json=True)
        except asyncio.CancelledError:
            # Ctrl-C: the run is stopping, and its trace still has to be stored.
            await asyncio.to_thread(runs.live.wait, _UNWINDING)
            raise RunCancelled("client") from None
        if as_json:
            self._print_json(result.as_dict())
        else:
            terminal = Terminal(self.stdout, self.style)
            terminal.outputs(result.outputs)
            terminal.summary(result.as_dict())
        return None

    async def _stream(
        self, name: str, given: dict[str, Any], timeout: float | None, *, as_json: bool
    ) -> dict[str, Any] | None:
        stream = await runs.astream(name, given, caller=_CALLER, timeout=timeout, from_json=True)
        printer = StreamPrinter(Terminal(self.stdout, self.style))
        async with aclosing(stream):
            while True:
                try:
                    event = await anext(stream)
                except asyncio.CancelledError:
                    # Ctrl-C: the stream goes on to its terminal event.
                    stream.cancel()
                    continue
                if as_json:
                    self._print_json(event.as_dict())
                else:
                    printer.show(event)
                if event.is_terminal:
                    return _failure(event)

    def _print_json(self, document: dict[str, Any]) -> None:
        self.stdout.write(encode(document).decode())
        self.stdout.flush()


def _inputs(name: str, pairs: list[str], document: str | None) -> dict[str, Any]:
    given = _document(document) if document else {}
    texts = {field.name for field in catalogue.get(name).schema.inputs if field.type is str}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator:
            raise CommandError(f"{pair!r} is not of the form key=value")
        given[key] = value if key in texts else _value(value)
    return given


def _document(text: str) -> dict[str, Any]:
    try:
        document = decode(text)
    except MalformedBody:
        raise CommandError("--inputs is not JSON") from None
    if not isinstance(document, dict):
        raise CommandError("--inputs must be a JSON object")
    return document


def _value(text: str) -> Any:
    try:
        return decode(text)
    except MalformedBody:
        return text


def _failure(event: Event) -> dict[str, Any] | None:
    """The problem that a terminal event tells; None for success."""
    if event.type not in (RUN_ERROR, RUN_CANCELLED):
        return None
    told = event.data.get("problem")
    return dict(told) if told else {**problem(RunCancelled(event.data["reason"])), "trace_id": event.trace_id}


def _fail(document: dict[str, Any], *, is_printed: bool) -> None:
    code = INTERRUPTED if document["code"] == RunCancelled.code else 1
    if is_printed:
        sys.exit(code)
    trace = f" (trace {document['trace_id']})" if document.get("trace_id") else ""
    raise CommandError(f"{document['title']}: {document['detail']}{trace}", returncode=code)
