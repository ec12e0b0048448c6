"""`manage.py activate_version NAME NUMBER`."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from dspyserve.errors import DspyserveError, StateMismatch
from dspyserve.management.rows import program_row
from dspyserve.models import Program, ProgramVersion
from dspyserve.programs.versions import activate_version


class Command(BaseCommand):
    help = "Make a program run with one of its versions, or with none."

    def add_arguments(self, parser: CommandParser) -> None:
        """Which version of which program."""
        parser.add_argument("name")
        parser.add_argument("number", help="the number of a version; none for the program as it is written")
        parser.add_argument("--force", action="store_true", help="even if the program's fields have changed since")

    def handle(self, *args: Any, **options: Any) -> None:
        """Activate it."""
        program = program_row(options["name"])
        version = None if options["number"] == "none" else _version(program, options["number"])
        wanted = version.pk if version else None
        is_new = program.active_version_id != wanted
        try:
            if is_new:
                activate_version(program, version, force=options["force"])
        except DspyserveError as error:
            hint = " (--force takes it all the same)" if isinstance(error, StateMismatch) else ""
            raise CommandError(" ".join(str(error).split()) + hint) from None
        running = f"version {version.number}" if version else "no version"
        self.stdout.write(f"program {program.name} runs with {running}: {'updated' if is_new else 'unchanged'}")


def _version(program: Program, number: str) -> ProgramVersion:
    is_number = number.isascii() and number.isdigit() and len(number) < 10
    version = ProgramVersion.objects.filter(program=program, number=int(number)).first() if is_number else None
    if version is None:
        numbers = ProgramVersion.objects.filter(program=program).order_by("number").values_list("number", flat=True)
        known = ", ".join(map(str, numbers))
        raise CommandError(f"{program.name} has no version {number!r}; there are: {known or 'none'}")
    return version
