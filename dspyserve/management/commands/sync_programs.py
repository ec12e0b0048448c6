"""`manage.py sync_programs`."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from dspyserve.programs.synchronise import synchronise


class Command(BaseCommand):
    help = "Give every program that is registered in code its row. What people set in the admin stays."

    def handle(self, *args: Any, **options: Any) -> None:
        """Synchronise and say what was done."""
        done = synchronise()
        for word, names in (
            ("created", done.created),
            ("updated", done.updated),
            ("unchanged", done.unchanged),
            ("no longer registered", done.gone),
        ):
            if names:
                self.stdout.write(f"{word}: {', '.join(sorted(names))}")
