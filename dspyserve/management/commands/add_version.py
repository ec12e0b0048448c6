"""`manage.py add_version NAME state.json`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from dspyserve.encoding import decode
from dspyserve.errors import DspyserveError, MalformedBody, StateMismatch
from dspyserve.management.rows import program_row
from dspyserve.programs.versions import activate_version, add_version


class Command(BaseCommand):
    help = "Store a state of a program as a version. One that is stored already is not stored again."

    def add_arguments(self, parser: CommandParser) -> None:
        """The state, and what is said of it."""
        parser.add_argument("name")
        parser.add_argument("file", help='what program.save("state.json") wrote; - for the standard input')
        parser.add_argument("--note", default="", metavar="TEXT", help="what is different in this version")
        parser.add_argument("--metrics", default="{}", metavar="JSON", help='such as {"accuracy": 0.83}')
        parser.add_argument("--activate", action="store_true", help="make the program run with it")
        parser.add_argument("--force", action="store_true", help="even if it seems to be a state of other fields")

    def handle(self, *args: Any, **options: Any) -> None:
        """Check, store, and maybe activate it."""
        program = program_row(options["name"])
        metrics = _object(options["metrics"], "--metrics")
        document, force = _object(_text(options["file"]), options["file"]), options["force"]
        try:
            new = add_version(program, document, note=options["note"], metrics=metrics, force=force)
            if options["activate"] and program.active_version_id != new.row.pk:
                activate_version(program, new.row, force=force)
        except DspyserveError as error:
            hint = " (--force takes it all the same)" if isinstance(error, StateMismatch) else ""
            raise CommandError(" ".join(str(error).split()) + hint) from None
        for remark in new.remarks:
            self.stderr.write(f"note: {remark}")
        self.stdout.write(f"version {new.row.number} of {program.name}: {'created' if new.is_new else 'unchanged'}")


def _text(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text()
    except (OSError, UnicodeError) as error:
        raise CommandError(f"{name} cannot be read: {error}") from None


def _object(text: str, origin: str) -> dict[str, Any]:
    try:
        document = decode(text)
    except MalformedBody:
        raise CommandError(f"{origin} is not JSON") from None
    if not isinstance(document, dict):
        raise CommandError(f"{origin} must be a JSON object")
    return document
