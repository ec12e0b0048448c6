"""Streams and sockets behind nginx, configured as the README says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import connect_sse

from tests.api.test_stream import check
from tests.event_streams import sent_events
from tests.server import Server, free_port
from tests.websocket.test_consumer import receive, send, socket, until_over

pytestmark = pytest.mark.embedded

README = Path(__file__).resolve().parent.parent / "README.md"

MAIN = """
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    gzip on;
    gzip_proxied any;
    gzip_min_length 1;
    gzip_types text/event-stream application/json;
{site}
}}
"""


class Nginx:
    """Nginx in front of a server, which stands in for it."""

    def __init__(self, server: Server, directory: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.websocket_url = f"ws://127.0.0.1:{self.port}/ws/programs"
        (site,) = re.findall(r"```nginx\n(.*?)```", README.read_text(), re.DOTALL)
        for written, here in (
            ("listen 80;", f"listen 127.0.0.1:{self.port};"),
            ("127.0.0.1:8000", f"127.0.0.1:{server.port}"),
            ("proxy_read_timeout 60s;", "proxy_read_timeout 1s;"),
        ):
            assert written in site
            site = site.replace(written, here)
        configuration = directory / "nginx.conf"
        configuration.write_text(MAIN.format(directory=directory, site=site))
        program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program, "nginx is not installed"
        self.process = subprocess.Popen([program, "-p", str(directory), "-c", str(configuration)])
        self._wait(directory)

    def _wait(self, directory: Path) -> None:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                assert httpx.get(f"{self.url}/api/health/ready").status_code == 200
            except (httpx.HTTPError, AssertionError):
                assert self.process.poll() is None, (directory / "error.log").read_text()
                time.sleep(0.1)
            else:
                return
        raise AssertionError("nginx does not answer")


@pytest.fixture(params=["daphne", "uvicorn"])
def nginx(
    request: pytest.FixtureRequest, language_model: Any, start_server: Callable[..., Server], tmp_path: Path
) -> Iterator[Any]:
    server = start_server(request.param, DSPYSERVE_TESTS_KEEPALIVE="0.3", DSPYSERVE_TESTS_HEARTBEAT="0.3")
    nginx = Nginx(server, tmp_path)
    yield nginx
    nginx.process.terminate()
    nginx.process.wait(20)


def test_events_come_as_they_happen(nginx: Any) -> None:
    body = {"inputs": {"question": "@@delay=2.5@@ @@words=20@@ @@token_delay=0.05@@"}}
    accepts = {"Accept-Encoding": "gzip"}
    plain = httpx.post(f"{nginx.url}/api/programs/echo", json={"inputs": {"question": "q"}}, headers=accepts)
    assert plain.headers["Content-Encoding"] == "gzip", "nginx compresses what it may"
    arrived: dict[str, float] = {}
    events = []
    with (
        httpx.Client(timeout=30, headers=accepts) as client,
        connect_sse(client, "POST", f"{nginx.url}/api/programs/echo/stream", json=body) as source,
    ):
        assert source.response.headers["Content-Encoding"] == "identity"
        for frame in sent_events(source):
            events.append(frame.json())
            arrived.setdefault(frame.event, time.monotonic())
    check(events)
    # Far longer than nginx waits for a silent server.
    assert arrived["token"] - arrived["run_start"] > 2
    assert arrived["run_end"] - arrived["token"] > 0.7, "tokens come one by one"


def test_a_broken_stream_is_read_on(nginx: Any) -> None:
    body = {"inputs": {"question": "@@words=40@@ @@token_delay=0.02@@"}, "on_disconnect": "continue"}
    with (
        httpx.Client(timeout=30) as client,
        connect_sse(client, "POST", f"{nginx.url}/api/programs/echo/stream", json=body) as source,
    ):
        frames = sent_events(source)
        head = [next(frames).json() for _ in range(8)]
    known = {"Last-Event-ID": "8", "X-Resume-Token": head[0]["resume_token"]}
    with (
        httpx.Client(timeout=30, headers=known) as client,
        connect_sse(client, "GET", f"{nginx.url}/api/streams/{head[0]['trace_id']}") as source,
    ):
        check(head + [frame.json() for frame in sent_events(source)])


async def test_sockets_stay_open(nginx: Any) -> None:
    origin = nginx.url  # as a browser tells it
    async with socket(nginx, "echo", origin=origin) as found:
        await send(found, type="run", id="a", inputs={"question": "@@delay=2.5@@"})
        events = await until_over(found, {"a"})
        for _ in range(5):  # seconds of silence
            assert await receive(found) == {"type": "heartbeat"}
        await send(found, type="run", id="b", inputs={"question": "q"})
        events |= await until_over(found, {"b"})
    for own in events.values():
        assert own[-1]["type"] == "run_end"
