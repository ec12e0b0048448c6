"""`manage.py prune_traces`."""

from __future__ import annotations

import datetime
import re
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from dspyserve.conf import settings
from dspyserve.tracing.compaction import compact
from dspyserve.tracing.retention import Limits, delete

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


class Command(BaseCommand):
    help = (
        "Delete traces that are too old or too many, in chunks, by default as RETENTION_DAYS and RETENTION_COUNT say. "
        "Traces with feedback are kept, and so are the figures of the dashboard. Run it daily."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """What is kept."""
        parser.add_argument("--older-than", metavar="AGE", type=_age, help="such as 12h, 30d or 8w")
        parser.add_argument("--keep", metavar="N", type=_count, help="the newest N are kept, of each --program")
        parser.add_argument(
            "--program", metavar="NAME", action="append", default=[], help="only its traces; repeatable"
        )
        parser.add_argument("--with-feedback", action="store_true", help="delete those with feedback too")
        parser.add_argument("--dry-run", action="store_true", help="only say how many")

    def handle(self, *args: Any, **options: Any) -> None:
        """Delete, then merge figures, and say so in one line."""
        limits = _limits(options)
        spared = limits.spared().count()
        kept = f", {spared} more are kept for their feedback" if spared else ""
        if options["dry_run"]:
            self.stdout.write(f"{limits.beyond().count()} traces would be deleted{kept}.")
            return
        count = delete(limits.beyond())
        went, came = compact()
        unlimited = "; nothing limits how many are kept" if limits.is_nothing else ""
        self.stdout.write(f"{count} traces deleted{kept}{unlimited}; {went} rows of figures became {came}.")


def _limits(options: dict[str, Any]) -> Limits:
    age, count = options["older_than"], options["keep"]
    if age is None and count is None:
        days, count = settings().retention_days, settings().retention_count or None
        age = datetime.timedelta(days=days) if days else None
    return Limits(age=age, count=count, programs=tuple(options["program"]), with_feedback=options["with_feedback"])


def _age(text: str) -> datetime.timedelta:
    match = re.fullmatch(r"([1-9][0-9]{0,4})([hdw])", text)
    if match is None:
        raise CommandError(f"{text!r} is no age such as 12h, 30d or 8w")
    return datetime.timedelta(**{_UNITS[match[2]]: int(match[1])})


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise CommandError(f"{text!r} is no number of traces")
    return int(text)
