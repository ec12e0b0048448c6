"""`manage.py run_program NAME key=value…`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from dspyserve import runs
from dspyserve.encoding import decode, encode
from dspyserve.errors import MalformedBody, RequestError
from dspyserve.events import RUN_CANCELLED, RUN_END, TERMINAL, TOKEN, Caller, Event
from dspyserve.models import Trace
from dspyserve.problems import problem
from dspyserve.programs.catalogue import catalogue

_CALLER = Caller(transport=Trace.Transport.COMMAND)


class Command(BaseCommand):
    help = "Run a program and print its outputs."

    def add_arguments(self, parser: CommandParser) -> None:
        """Inputs and the way to print."""
        parser.add_argument("name")
        parser.add_argument("inputs", nargs="*", metavar="key=value", help="an input; JSON where it is no text field")
        parser.add_argument("--inputs", dest="document", metavar="JSON", help="all inputs as one object")
        parser.add_argument("--stream", action="store_true", help="print the text as it comes")
        parser.add_argument("--json", action="store_true", help="print JSON; with --stream, an event per line")
        parser.add_argument("--timeout", type=float, metavar="S", help="seconds")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run it."""
        name = options["name"]
        try:
            given = self._inputs(name, options)
            if options["stream"]:
                asyncio.run(self._stream(name, given, options))
            else:
                self._run(name, given, options)
        except RequestError as error:
            self._fail(problem(error), as_json=options["json"])

    def _inputs(self, name: str, options: dict[str, Any]) -> dict[str, Any]:
        document = _parse(options["document"], "--inputs") if options["document"] else {}
        if not isinstance(document, dict):
            raise CommandError("--inputs must be a JSON object")
        texts = {field.name for field in catalogue.get(name).schema.inputs if field.type is str}
        for pair in options["inputs"]:
            key, separator, value = pair.partition("=")
            if not separator:
                raise CommandError(f"{pair!r} is not of the form key=value")
            document[key] = value if key in texts else _value(value)
        return document

    def _run(self, name: str, given: dict[str, Any], options: dict[str, Any]) -> None:
        result = runs.execute(name, given, caller=_CALLER, timeout=options["timeout"], from_json=True)
        if options["json"]:
            self.stdout.write(encode(result.as_dict()).decode())
            return
        for field, value in result.outputs.items():
            self.stdout.write(self.style.MIGRATE_HEADING(field))
            self.stdout.write(_readable(value))
        self._summarise(result.as_dict())

    async def _stream(self, name: str, given: dict[str, Any], options: dict[str, Any]) -> None:
        stream = await runs.astream(name, given, caller=_CALLER, timeout=options["timeout"], from_json=True)
        printer = _Printer(self)
        try:
            async for event in stream:
                if options["json"]:
                    self.stdout.write(encode(event.as_dict()).decode())
                else:
                    printer.show(event)
                if event.type in TERMINAL and event.type != RUN_END:
                    failed = event.data.get("problem") or {"title": "Cancelled", "detail": event.data.get("reason", "")}
                    self._fail(dict(failed), as_json=options["json"], is_printed=options["json"])
                if event.type == RUN_END and not options["json"]:
                    self._summarise({**event.data, "trace_id": event.trace_id})
        finally:
            stream.close()

    def _summarise(self, result: Mapping[str, Any]) -> None:
        usage, cost = result["usage"], result["cost"]
        parts = [
            f"trace {result['trace_id']}",
            f"{result['duration_ms']:.0f} ms",
            f"{usage.get('input_tokens', '?')} + {usage.get('output_tokens', '?')} tokens",
            "cost unknown" if cost is None else f"${cost:.6f}",
        ]
        self.stdout.write(self.style.HTTP_INFO(" · ".join(parts)))

    def _fail(self, document: dict[str, Any], *, as_json: bool, is_printed: bool = False) -> None:
        if as_json:
            if not is_printed:
                self.stdout.write(encode(document).decode())
            sys.exit(1)
        trace = f" (trace {document['trace_id']})" if document.get("trace_id") else ""
        raise CommandError(f"{document['title']}: {document['detail']}{trace}")


class _Printer:
    """Text deltas under a heading for each field of each predictor."""

    def __init__(self, command: Command) -> None:
        self._command = command
        self._current: tuple[Any, ...] = ()

    def show(self, event: Event) -> None:
        out = self._command.stdout
        if event.type == TOKEN:
            current = (event.span_id, event.data["field"])
            if current != self._current:
                out.write("\n" if self._current else "", ending="")
                title = ".".join(filter(None, (event.data["predictor"], event.data["field"])))
                out.write(self._command.style.MIGRATE_HEADING(title))
                self._current = current
            out.write(event.data["delta"], ending="")
            out.flush()
        elif event.type in (RUN_END, RUN_CANCELLED) and self._current:
            out.write("")


def _value(text: str) -> Any:
    try:
        return decode(text)
    except MalformedBody:
        return text


def _parse(text: str, what: str) -> Any:
    try:
        return decode(text)
    except MalformedBody:
        raise CommandError(f"{what} is not JSON") from None


def _readable(value: Any) -> str:
    return value if isinstance(value, str) else encode(value).decode()
