"""A server in a process of its own."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from tests.forked import ROOT, Forked


class Server:
    """Daphne or uvicorn, serving the example deployment with the tests' programs on the current test database."""

    def __init__(
        self, kind: str = "daphne", environment: dict[str, str] | None = None, *, is_forked: bool = True
    ) -> None:
        """`kind` is `daphne` or `uvicorn`; the constructor returns when the server answers.

        Forked from a process in which the libraries are loaded, or started by itself as in production.
        """
        from django.db import connection

        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        directory = os.environ["DSPYSERVE_TESTS_DIRECTORY"]
        self.log_file = tempfile.NamedTemporaryFile(dir=directory, suffix=".log", delete=False)  # noqa: SIM115
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "DSPYSERVE_TESTS_DATABASE": str(connection.settings_dict["NAME"]),
            "PYTHONUNBUFFERED": "1",
            **(environment or {}),
        }
        start = _forked if is_forked else _executed
        self.process = start(_command(kind, self.port), environment, self.log_file.fileno())
        self._wait_until_ready()

    @property
    def websocket_url(self) -> str:
        """Where sockets are opened."""
        return f"ws://127.0.0.1:{self.port}/ws/programs"

    @property
    def log(self) -> str:
        """What the server printed so far."""
        return Path(self.log_file.name).read_text(errors="replace")

    def run(self, program: str, /, **inputs: object) -> httpx.Response:
        """Call a program."""
        return httpx.post(f"{self.url}/api/programs/{program}", json={"inputs": inputs}, timeout=60)

    def terminate(self, timeout: float = 30) -> int:
        """SIGTERM, and wait for the end."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def kill(self) -> None:
        """SIGKILL, where it still lives."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log_file.close()

    def rss(self) -> int:
        """Resident memory in bytes."""
        fields = Path(f"/proc/{self.process.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended at once:\n{self.log}")
            try:
                if httpx.get(f"{self.url}/api/health/ready", timeout=5).status_code == 200:
                    return
            except httpx.HTTPError:
                time.sleep(0.1)
        raise RuntimeError(f"the server did not start:\n{self.log}")


def _forked(command: list[str], environment: dict[str, str], output: int) -> Forked:
    return Forked(*command, environment=environment, output=output)


def _executed(command: list[str], environment: dict[str, str], output: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", *command]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)


def _command(kind: str, port: int) -> list[str]:
    if kind == "daphne":
        return ["daphne", "-b", "127.0.0.1", "-p", str(port), "project.asgi:application"]
    return [
        "uvicorn",
        "--host=127.0.0.1",
        f"--port={port}",
        "--timeout-graceful-shutdown=30",
        "--log-level=warning",
        "project.asgi:application",
    ]


def free_port() -> int:
    """A port that nobody listens on, below those that outgoing connections are given.

    The test runner's processes have ranges of their own: where two took the same port before either's server listened,
    one would test the other's server, on the other's database.
    """
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    ports = range(15_000, 32_000)[int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) :: processes]
    while True:
        port = random.choice(ports)
        with socket.socket() as found:
            try:
                found.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
