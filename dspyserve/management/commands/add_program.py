"""`manage.py add_program NAME --signature "question -> answer"`."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from dspyserve.errors import DspyserveError
from dspyserve.management.rows import given, save, seconds
from dspyserve.models import LanguageModel, Program
from dspyserve.programs.execution_mode import execution_mode
from dspyserve.programs.registry import registry
from dspyserve.programs.schema import program_schema
from dspyserve.programs.served import program_from_signature

_SHAPE = ("signature", "instructions", "module")
_COLUMNS = {
    name: name
    for name in (
        *_SHAPE,
        "title",
        "description",
        "language_model",
        "adapter",
        "execution",
        "max_concurrency",
        "max_queue",
        "timeout",
        "trace_level",
        "access",
        "is_enabled",
    )
}


class Command(BaseCommand):
    help = "Make or change a program. Options that are not given stay as they are."

    def add_arguments(self, parser: CommandParser) -> None:
        """The columns of a program."""
        parser.add_argument("name")
        parser.add_argument("--signature", metavar='"A -> B"', help="such as: question -> answer, confidence: float")
        parser.add_argument("--instructions", metavar="TEXT")
        parser.add_argument("--module", choices=Program.Module.values)
        parser.add_argument("--title")
        parser.add_argument("--description")
        parser.add_argument("--language-model", metavar="NAME", help="empty: the default one")
        parser.add_argument("--adapter", choices=Program.Adapter.values)
        parser.add_argument("--execution", choices=Program.Execution.values)
        parser.add_argument("--max-concurrency", metavar="N", type=int)
        parser.add_argument("--max-queue", metavar="N", type=int)
        parser.add_argument("--timeout", metavar="S", type=seconds)
        parser.add_argument("--trace-level", choices=Program.TraceLevel.values)
        parser.add_argument("--access", choices=Program.Access.values)
        served = parser.add_mutually_exclusive_group()
        served.add_argument("--enable", dest="is_enabled", action="store_true", default=None, help="serve it")
        served.add_argument("--disable", dest="is_enabled", action="store_false", help="serve it no longer")

    def handle(self, *args: Any, **options: Any) -> None:
        """Build it, and save it when that succeeded."""
        name = options["name"]
        row = Program.objects.filter(name=name).first() or Program(name=name)
        values = given(options, _COLUMNS)
        if "language_model" in values:
            values["language_model"] = _language_model(values["language_model"])
        is_code = row.source == Program.Source.CODE or name in registry
        if is_code and values.keys() & set(_SHAPE):
            raise CommandError(f"{name} is registered in code: its signature is written there")
        if row._state.adding and is_code:
            raise CommandError(f"{name} is registered in code: run sync_programs first")
        if not is_code:
            _build(row, values)
        done = save(row, values)
        self.stdout.write(f"program {name}: {done}")


def _build(row: Program, values: dict[str, Any]) -> None:
    trial = Program(**{name: values.get(name, getattr(row, name)) for name in (*_SHAPE, "execution")})
    if not trial.signature.strip():
        raise CommandError('--signature is needed, such as "question -> answer"')
    try:
        template = program_from_signature(trial)
        program_schema(template)
        execution_mode(template, trial.execution)
    except DspyserveError as error:
        raise CommandError(" ".join(str(error).split())) from None


def _language_model(name: str) -> LanguageModel | None:
    if not name:
        return None
    row = LanguageModel.objects.filter(name=name).first()
    if row is None:
        known = ", ".join(LanguageModel.objects.values_list("name", flat=True))
        raise CommandError(f"there is no language model named {name!r}; there are: {known or 'none'}")
    return row
