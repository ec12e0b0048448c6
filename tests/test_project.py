"""The example deployment: open on this machine alone, and to pages of the origins that it names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from django.test import Client

from project.loopback import are_loopback, loopback_only

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        (["localhost", "127.0.0.1", "[::1]"], True),
        ([".localhost", "127.8.8.8"], True),
        ([], True),
        (["localhost", "example.com"], False),
        (["*"], False),
        (["localhost.example.com"], False),
        (["0.0.0.0"], False),
    ],
)
def test_hosts_of_this_machine(hosts: list[str], expected: bool) -> None:
    assert are_loopback(hosts) is expected


@pytest.mark.parametrize(
    ("client", "is_served"),
    [(("127.0.0.1", 1), True), (("::1", 1), True), (None, True), (("10.0.0.7", 1), False), (("2001:db8::1", 1), False)],
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_open_programs_are_for_clients_of_this_machine(client: Any, is_served: bool, kind: str) -> None:
    served = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        served.append(scope["type"])

    # Whatever host they ask for.
    scope = {"type": kind, "client": client, "headers": [(b"host", b"localhost")], "path": "/"}
    communicator = ApplicationCommunicator(loopback_only(application), scope)
    await communicator.send_input({"type": "websocket.connect"})
    if is_served:
        await communicator.wait()
        assert served == [kind]
        return
    answer = await communicator.receive_output()
    assert (answer.get("status"), answer.get("code")) == ((403, None) if kind == "http" else (None, 4403))
    await communicator.wait()
    assert served == []


@pytest.mark.parametrize(("hosts", "access"), [("", "public"), ("example.com", "authenticated")])
def test_demo_programs_ask_for_credentials_on_other_hosts(hosts: str, access: str, tmp_path: Path) -> None:
    script = (
        "import django; django.setup()\n"
        "from dspyserve.programs.registry import registry\n"
        "print({r.defaults['access'] for r in registry})\n"
        "from project.asgi import application\n"
        "print(application.__module__)\n"
    )
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "project.settings"}
    environment |= {"DATABASE_URL": f"sqlite:///{tmp_path / 'db'}"} | ({"ALLOWED_HOSTS": hosts} if hosts else {})
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[0] == f"{{'{access}'}}"
    assert ("loopback" in done.stdout.splitlines()[1]) is (access == "public")


class TestOtherOrigins:
    ORIGIN = "https://app.example.com"

    def test_may_call_where_they_are_named(self, settings: Any, db: None) -> None:
        settings.CORS_ALLOWED_ORIGINS = [self.ORIGIN]
        asked = "authorization,content-type,idempotency-key,traceparent"
        headers = {"Origin": self.ORIGIN, "Access-Control-Request-Method": "POST"}
        preflight = Client().options("/api/programs/qa", headers={**headers, "Access-Control-Request-Headers": asked})
        assert preflight["Access-Control-Allow-Origin"] == self.ORIGIN
        assert set(asked.split(",")) <= set(preflight["Access-Control-Allow-Headers"].split(", "))
        response = Client().get("/api/programs", headers={"Origin": self.ORIGIN})
        assert response["Access-Control-Allow-Origin"] == self.ORIGIN
        assert {"X-Request-ID", "X-Trace-Id", "RateLimit", "Retry-After"} <= set(
            response["Access-Control-Expose-Headers"].split(", ")
        )

    def test_may_not_otherwise_and_nowhere_but_in_the_api(self, settings: Any, db: None) -> None:
        assert "Access-Control-Allow-Origin" not in Client().get("/api/programs", headers={"Origin": self.ORIGIN})
        settings.CORS_ALLOWED_ORIGINS = [self.ORIGIN]
        assert "Access-Control-Allow-Origin" not in Client().get("/admin/login/", headers={"Origin": self.ORIGIN})
