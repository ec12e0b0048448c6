"""`manage.py export_traces`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.dateparse import parse_datetime
from django.utils.timezone import is_aware, make_aware

from dspyserve.models import Trace
from dspyserve.tracing.export import jsonl
from dspyserve.tracing.search import TraceFilter


class Command(BaseCommand):
    help = "Write traces with their spans and feedback as lines of JSON, the newest first."

    def add_arguments(self, parser: CommandParser) -> None:
        """Which traces, and where to."""
        parser.add_argument("--output", metavar="FILE", help="a new file; standard output by default")
        parser.add_argument("--program", metavar="NAME")
        parser.add_argument("--status", choices=Trace.Status.values)
        parser.add_argument("--since", metavar="TIME", type=_moment, help="such as 2026-01-31T12:00:00Z")
        parser.add_argument("--until", metavar="TIME", type=_moment, help="likewise; not included")
        parser.add_argument("--no-payloads", action="store_true", help="without inputs, outputs and messages")

    def handle(self, *args: Any, **options: Any) -> None:
        """Write them."""
        wanted = TraceFilter(**{name: options[name] for name in ("program", "status", "since", "until")})
        payloads = not options["no_payloads"]
        lines = jsonl(wanted.apply(Trace.objects.all(), payloads=payloads), payloads=payloads)
        count = 0
        try:
            if options["output"] is None:
                for chunk in lines:
                    sys.stdout.write(chunk.decode())
                return
            with Path(options["output"]).open("xb") as file:
                for chunk in lines:
                    file.write(chunk)
                    count += chunk.count(b"\n")
        except OSError as error:
            raise CommandError(f"{options['output']}: {error.strerror}") from None
        self.stderr.write(f"{count} traces written to {options['output']}")


def _moment(text: str) -> Any:
    found = parse_datetime(text)
    if found is None:
        raise CommandError(f"{text!r} is no time such as 2026-01-31T12:00:00Z")
    return found if is_aware(found) else make_aware(found)
