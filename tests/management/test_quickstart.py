"""`quickstart` goes from nothing to a running server, on this machine alone."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from websockets.sync.client import connect

from tests.server import ROOT, free_port

PASSWORD = re.compile(r"^  password +(\S+)", re.MULTILINE)


class Quickstart:
    """`manage.py quickstart` of the example deployment, with the debug mode off, on a database of its own."""

    def __init__(self, directory: Path, port: int, *arguments: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._log = directory / f"quickstart-{time.monotonic_ns()}.log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "quickstart", *(arguments or [str(port)])],
                cwd=ROOT,
                env=environment(directory),
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def printed(self) -> str:
        """All that it printed so far."""
        return self._log.read_text()

    def wait_until_ready(self) -> str:
        """What it printed until it answered."""
        end = time.monotonic() + 90
        while time.monotonic() < end:
            assert self.process.poll() is None, self.printed
            try:
                httpx.get(f"{self.url}/api/health/live", timeout=5)
            except httpx.TransportError:
                time.sleep(0.1)
            else:
                return self.printed
        raise AssertionError(self.printed)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def environment(directory: Path) -> dict[str, str]:
    """Ours, without what the tests' own settings put there."""
    given = {name: value for name, value in os.environ.items() if not name.startswith(("DSPYSERVE_", "DJANGO_"))}
    database = f"sqlite:///{directory / 'quickstart.sqlite3'}"
    given |= {"DATABASE_URL": database, "SECRET_KEY": "only-for-tests", "REDIS_URL": "", "DEBUG": "off"}
    return given | {"DJANGO_SETTINGS_MODULE": "project.settings", "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Quickstart]]:
    """Start it; it is ended after the test."""
    started: list[Quickstart] = []

    def run(port: int, *arguments: str) -> Quickstart:
        started.append(Quickstart(tmp_path, port, *arguments))
        return started[-1]

    yield run
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait()


def test_from_nothing_to_a_running_server_and_again(start: Callable[..., Quickstart]) -> None:
    port = free_port()
    server = start(port)
    printed = server.wait_until_ready()
    for path in ("/", "/admin/", "/admin/dspyserve/trace/", "/api/docs", "/api/programs"):
        assert f"{server.url}{path}\n" in printed
        assert httpx.get(f"{server.url}{path}", follow_redirects=True).status_code == 200
    trace_id = call_as_printed(printed)
    with logged_in(server.url, password_in(printed)) as client:
        assert trace_id in client.get("/admin/dspyserve/trace/").text
        css = client.get("/static/admin/css/base.css")
        assert css.status_code == 200
        assert css.headers["content-type"].startswith("text/css")
        assert client.get("/static/dspyserve/admin/base.css").status_code == 200
        assert client.get("/static/nothing.css").status_code == 404
    stream_over_websocket(port)
    assert server.stop() == 0
    assert "Traceback" not in server.printed

    again = start(port)
    second = again.wait_until_ready()
    assert PASSWORD.search(second) is None
    assert "`manage.py changepassword admin` sets a new password" in second
    with logged_in(again.url, password_in(printed)) as client:
        assert trace_id in client.get("/admin/dspyserve/trace/").text
    assert again.stop() == 0


@pytest.mark.parametrize("address", ["localhost:{port}", "[::1]:{port}", "127.0.0.2:{port}"])
def test_every_loopback_address_will_do(start: Callable[..., Quickstart], address: str) -> None:
    port = free_port()
    address = address.format(port=port)
    server = start(port, address)
    server.url = f"http://{address}"
    printed = server.wait_until_ready()
    assert f"http://{address}/" in printed
    assert server.stop() == 0


def test_the_public_is_served_when_it_is_said(start: Callable[..., Quickstart]) -> None:
    port = free_port()
    server = start(port, f"0.0.0.0:{port}", "--insecure-public")
    server.wait_until_ready()
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["0.0.0.0:8000"], "0.0.0.0 is not a loopback address, .* --insecure-public"),
        (["192.0.2.1:8000"], "192.0.2.1 is not a loopback address"),
        (["[::]:8000"], ":: is not a loopback address"),
        (["example.com:8000"], "example.com is not a loopback address"),
        (["nonsense"], "'nonsense' is not \\[addr:\\]port"),
        (["127.0.0.1:0"], "is not \\[addr:\\]port"),
        (["127.0.0.1:70000"], "is not \\[addr:\\]port"),
    ],
)
def test_an_address_that_will_not_do_is_told_in_one_line(arguments: list[str], told: str) -> None:
    with pytest.raises(CommandError, match=told) as raised:
        call_command("quickstart", *arguments)
    assert "\n" not in str(raised.value)


def test_a_port_that_is_taken_is_told_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandError, match=f"127.0.0.1:{port} cannot be used: Address already in use") as raised:
            call_command("quickstart", str(port))
    assert "\n" not in str(raised.value)


def test_a_project_without_an_asgi_application_is_told_so(settings: object) -> None:
    del settings.ASGI_APPLICATION  # type: ignore[attr-defined]
    with pytest.raises(CommandError, match="ASGI_APPLICATION is missing"):
        call_command("quickstart", str(free_port()))


def call_as_printed(printed: str) -> str:
    """Do what the printed curl line does; gives the trace id of the answer."""
    line = next(line for line in printed.splitlines() if "curl " in line)
    words = shlex.split(line)
    assert words[:2] == ["curl", "-s"]
    name, _, value = words[words.index("-H") + 1].partition(": ")
    response = httpx.post(words[2], headers={name: value}, content=words[words.index("-d") + 1], timeout=60)
    assert response.status_code == 200, response.text
    assert response.json()["program"] == "qa"
    trace_id: str = response.json()["trace_id"]
    return trace_id


def password_in(printed: str) -> str:
    """The password, which stands there once."""
    found = PASSWORD.findall(printed)
    assert len(found) == 1
    return str(found[0])


@contextmanager
def logged_in(url: str, password: str) -> Iterator[httpx.Client]:
    """A client in whose session the admin user is logged in."""
    with httpx.Client(base_url=url, timeout=30) as client:
        client.get("/admin/login/")
        data = {"username": "admin", "password": password, "csrfmiddlewaretoken": client.cookies["csrftoken"]}
        response = client.post("/admin/login/?next=/admin/", data=data, headers={"referer": f"{url}/admin/login/"})
        assert response.status_code == 302, response.text
        yield client


def stream_over_websocket(port: int) -> None:
    """The handler of static files must let sockets through."""
    message = {"type": "run", "id": "1", "inputs": {"question": "q"}}
    url = f"ws://127.0.0.1:{port}/ws/programs/qa"
    with connect(url, subprotocols=["dspyserve.v1"], origin=f"http://127.0.0.1:{port}") as ws:  # type: ignore[list-item,arg-type]
        ws.send(json.dumps(message))
        kinds = [json.loads(text)["event"]["type"] for text in until_the_end(ws)]
    assert kinds[0] == "run_start"
    assert kinds[-1] == "run_end"


def until_the_end(socket: object) -> Iterator[str]:
    """The messages up to the terminal event."""
    while True:
        text = socket.recv(30)  # type: ignore[attr-defined]
        yield text
        if '"run_end"' in text or '"error"' in text:
            return
