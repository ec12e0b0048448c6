"""`manage.py create_api_key NAME`."""

from __future__ import annotations

import datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction
from django.utils import timezone

from dspyserve.management.rows import save
from dspyserve.models import APIKey, Program


class Command(BaseCommand):
    help = "Make an API key. Its token is the last line, and is shown only now."

    def add_arguments(self, parser: CommandParser) -> None:
        """What the key may do."""
        parser.add_argument("name", help="who or what calls with it")
        parser.add_argument(
            "--scope",
            action="append",
            choices=APIKey.Scope.values,
            help="what it may do; may be given more than once; run, where none is given",
        )
        parser.add_argument("--program", action="append", metavar="NAME", help="a program that it reaches; repeatable")
        parser.add_argument("--all-programs", action="store_true", help="every program, as without --program")
        parser.add_argument("--user", metavar="USERNAME", help="in whose name it runs programs")
        parser.add_argument("--days", metavar="N", type=float, help="how long it is valid; for ever by default")
        parser.add_argument("--rate-limit", metavar="RATE", default="", help="such as 600/min")

    def handle(self, *args: Any, **options: Any) -> None:
        """Make it."""
        names = options["program"] or []
        if names and options["all_programs"]:
            raise CommandError("--program and --all-programs exclude each other")
        programs = [_program(name) for name in names]
        key = APIKey()
        token = key.issue()
        values = {
            "name": options["name"],
            "scopes": options["scope"] or [APIKey.Scope.RUN.value],
            "all_programs": not names,
            "user": _user(options["user"]),
            "rate_limit": options["rate_limit"],
            "expires_at": _expiry(options["days"]),
        }
        with transaction.atomic():
            save(key, values)
            key.programs.set(programs)
        reach = "all programs" if key.all_programs else ", ".join(names)
        self.stderr.write(f"API key {key.name}: {', '.join(key.scopes)} of {reach}. The token is shown only now:")
        self.stdout.write(token)


def _program(name: str) -> Program:
    program = Program.objects.filter(name=name).first()
    if program is None:
        raise CommandError(f"there is no program named {name!r}")
    return program


def _user(name: str | None) -> Any:
    if name is None:
        return None
    model = get_user_model()
    user = model._default_manager.filter(**{model.USERNAME_FIELD: name}).first()
    if user is None:
        raise CommandError(f"there is no user named {name!r}")
    return user


def _expiry(days: float | None) -> datetime.datetime | None:
    if days is None:
        return None
    if not 0 < days < 36_500:
        raise CommandError("--days takes a number above 0")
    return timezone.now() + datetime.timedelta(days=days)
