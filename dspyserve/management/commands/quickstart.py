"""`manage.py quickstart`: from a fresh clone to a running server."""

from __future__ import annotations

import ipaddress
import json
import secrets
import socket
from typing import Any

from channels.routing import get_default_application
from daphne.endpoints import build_endpoint_description_strings
from daphne.server import Server
from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.urls import NoReverseMatch, Resolver404, resolve, reverse

from dspyserve.errors import RequestError
from dspyserve.models import Program
from dspyserve.programs.catalogue import catalogue

ADMIN = "admin"
QUESTION = "What is the capital of France?"


class Command(BaseCommand):
    help = (
        "Migrate, make an admin user, print what to open and serve on this machine. For trying out, not for production."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Where to listen."""
        parser.add_argument("address", nargs="?", default="127.0.0.1:8000", metavar="[addr:]port")
        parser.add_argument(
            "--insecure-public",
            action="store_true",
            help="serve on an address that others can reach, without encryption; name the host in ALLOWED_HOSTS",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Set up, then serve until it is stopped."""
        host, port = _address(options["address"])
        if not options["insecure_public"]:
            _check_loopback(host)
        _check_port(host, port)
        application = _application()
        call_command("migrate", verbosity=0, interactive=False)
        password = _make_admin()
        self._welcome(f"http://{f'[{host}]' if ':' in host else host}:{port}", password)
        endpoints = build_endpoint_description_strings(host=host, port=port)
        Server(application=_with_static_files(application), endpoints=endpoints).run()

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
        if (program := _first_program()) is not None and (curl := _curl(url, program)):
            lines += ["Call a program:", "", f"  {curl}", ""]
        lines.append("Stop with Ctrl-C.")
        self.stdout.write("\n".join(lines))
        self.stdout.flush()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = (host or "127.0.0.1").strip("[]")
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise CommandError(f"{text!r} is not [addr:]port")
    return host, int(port)


def _check_loopback(host: str) -> None:
    if host != "localhost" and not _is_loopback(host):
        raise CommandError(
            f"{host} is not a loopback address, and what goes there is not encrypted; "
            "--insecure-public serves there all the same"
        )


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


def _application() -> Any:
    if not getattr(settings, "ASGI_APPLICATION", None):
        raise CommandError("the setting ASGI_APPLICATION is missing: it names the application to serve")
    return get_default_application()


def _make_admin() -> str | None:
    user = get_user_model()
    users = user._default_manager
    if users.filter(**{user.USERNAME_FIELD: ADMIN}).exists():
        return None
    password = secrets.token_urlsafe(12)
    values = {**dict.fromkeys(user.REQUIRED_FIELDS, ""), user.USERNAME_FIELD: ADMIN, "password": password}
    users.create_superuser(**values)  # type: ignore[attr-defined]
    return password


def _addresses() -> list[tuple[str, str]]:
    names = {
        "programs": "dspyserve-api:list_programs",
        "API docs": "dspyserve-api:openapi-view",
        "admin": "admin:index",
        "traces": "admin:dspyserve_trace_changelist",
    }
    found = [("home", "/")] if _is_served("/") else []
    for title, name in names.items():
        try:
            found.append((title, reverse(name)))
        except NoReverseMatch:
            continue
    return found


def _is_served(path: str) -> bool:
    try:
        resolve(path)
    except Resolver404:
        return False
    return True


def _first_program() -> Program | None:
    public = Program.objects.filter(access=Program.Access.PUBLIC, is_enabled=True)
    return public.filter(name="qa").first() or public.order_by("name").first()


def _curl(url: str, program: Program) -> str | None:
    try:
        path = reverse("dspyserve-api:run_program", kwargs={"name": program.name})
        fields = catalogue.get(program.name).schema.inputs
    except (NoReverseMatch, RequestError):
        return None
    # Quotes of the shell cannot stand in it: names are identifiers, values are ours.
    body = json.dumps({"inputs": {field.name: QUESTION if field.type is str else None for field in fields}})
    return f"curl -s {url}{path} -H 'content-type: application/json' -d '{body}'"


def _with_static_files(application: Any) -> Any:
    if not apps.is_installed("django.contrib.staticfiles"):
        return application
    static = ASGIStaticFilesHandler(application)

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        # The handler refuses all but HTTP; it serves what the finders find, whatever DEBUG says.
        await (static if scope["type"] == "http" else application)(scope, receive, send)

    return serve
