"""`manage.py quickstart`: from a fresh clone to a running server."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from typing import Any

from channels.routing import get_default_application
from daphne.endpoints import build_endpoint_description_strings
from daphne.server import Server
from django.contrib.auth import get_user_model
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.urls import NoReverseMatch, reverse

from dspyserve.models import Program

ADMIN = "admin"


class Command(BaseCommand):
    help = (
        "Migrate, make an admin user, print what to open and serve on this machine. For trying out, not for production."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Where to listen."""
        parser.add_argument("address", nargs="?", default="127.0.0.1:8000", metavar="[addr:]port")

    def handle(self, *args: Any, **options: Any) -> None:
        """Set up, then serve until it is stopped."""
        host, port = _address(options["address"])
        _check_port(host, port)
        call_command("migrate", verbosity=0, interactive=False)
        password = _make_admin()
        self._welcome(f"http://{f'[{host}]' if ':' in host else host}:{port}", password)
        endpoints = build_endpoint_description_strings(host=host, port=port)
        Server(application=_with_static_files(get_default_application()), endpoints=endpoints).run()

    def _welcome(self, url: str, password: str | None) -> None:
        lines = [
            "",
            self.style.SUCCESS(f"dspyserve is ready at {url}/"),
            "",
            *[f"  {name:<10} {url}{path}" for name, path in _addresses()],
            "",
        ]
        if password is not None:
            lines += [f"  user       {ADMIN}", f"  password   {password}   (shown only now)", ""]
        else:
            lines += [
                f"  The user {ADMIN} is there already; `manage.py changepassword {ADMIN}` sets a new password.",
                "",
            ]
        if (program := _first_program()) is not None:
            lines += ["Call a program:", "", f"  {_curl(url, program)}", ""]
        lines.append("Stop with Ctrl-C.")
        self.stdout.write("\n".join(lines))
        self.stdout.flush()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = (host or "127.0.0.1").strip("[]")
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise CommandError(f"{text!r} is not [addr:]port")
    if host != "localhost" and not _is_loopback(host):
        # The demo programs are open to everybody who can reach them.
        raise CommandError(f"quickstart serves on this machine alone: {host} is not a loopback address")
    return host, int(port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as error:
            raise CommandError(f"{host}:{port} cannot be used: {error.strerror}; try `quickstart {port + 1}`") from None


def _make_admin() -> str | None:
    users = get_user_model()._default_manager
    if users.filter(**{get_user_model().USERNAME_FIELD: ADMIN}).exists():
        return None
    password = secrets.token_urlsafe(12)
    users.create_superuser(ADMIN, "", password)  # type: ignore[attr-defined]
    return password


def _addresses() -> list[tuple[str, str]]:
    names = {
        "programs": "dspyserve-api:list_programs",
        "API docs": "dspyserve-api:openapi-view",
        "admin": "admin:index",
        "traces": "admin:dspyserve_trace_changelist",
    }
    found = []
    for title, name in names.items():
        try:
            found.append((title, reverse(name)))
        except NoReverseMatch:
            continue
    return found


def _first_program() -> Program | None:
    public = Program.objects.filter(access=Program.Access.PUBLIC, is_enabled=True)
    return public.filter(name="qa").first() or public.order_by("name").first()


def _curl(url: str, program: Program) -> str:
    body = '{"inputs": {"question": "What is the capital of France?"}}' if program.name == "qa" else '{"inputs": {}}'
    path = reverse("dspyserve-api:run_program", kwargs={"name": program.name})
    return f"curl -s {url}{path} -H 'content-type: application/json' -d '{body}'"


def _with_static_files(application: Any) -> Any:
    static = ASGIStaticFilesHandler(application)

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        # The handler refuses all but HTTP; it serves what the finders find, whatever DEBUG says.
        await (static if scope["type"] == "http" else application)(scope, receive, send)

    return serve
