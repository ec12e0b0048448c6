"""`manage.py rebuild_rollups`."""

from __future__ import annotations

import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from dspyserve.tracing.figures import day_of
from dspyserve.tracing.recount import recount, stored_days


class Command(BaseCommand):
    help = (
        "Make the figures of the dashboard anew from the traces, day by day: after an import, or for traces that are "
        "older than the figures. Traces may be stored meanwhile."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Which days, and what becomes of figures whose traces were deleted."""
        parser.add_argument("--since", metavar="DAY", type=_day, help="such as 2026-01-31; the first by default")
        parser.add_argument("--until", metavar="DAY", type=_day, help="the last day; that of the last trace by default")
        parser.add_argument(
            "--exactly",
            action="store_true",
            help="count what is stored, and forget deleted traces; otherwise no figure shrinks",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Make them."""
        stored = stored_days()
        if stored is None:
            self.stdout.write("No traces are stored.")
            return
        day, last = options["since"] or stored[0], options["until"] or stored[1]
        days = traces = 0
        while day <= last:
            counted = recount(day, exactly=options["exactly"])
            if counted is None:
                raise CommandError(f"Another process made figures of {day:%Y-%m-%d} at the same time: run it again.")
            traces, days, day = traces + counted, days + 1, day + datetime.timedelta(days=1)
        self.stdout.write(f"The figures of {days} days are made from {traces} traces.")


def _day(text: str) -> datetime.datetime:
    try:
        return day_of(datetime.datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=datetime.UTC))
    except ValueError:
        raise CommandError(f"{text!r} is no day such as 2026-01-31") from None
