"""The examples of the README, run as a reader would run them."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import shutil
import subprocess
import sys
from ast import PyCF_ALLOW_TOP_LEVEL_AWAIT
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from dspyserve import runs
from tests.api.conftest import make_key
from tests.browser.chromium import page_of
from tests.proxy import Proxy
from tests.server import Server

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```(python|js)\n(?:#|//) ([^\n]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ADDRESS = "127.0.0.1:8000"
CLIENT = ROOT / "dspyserve/static/dspyserve/client.js"
SLOW = "@@words=60@@ @@token_delay=0.02@@"

EXAMPLES = {name: code for _, name, code in BLOCK.findall((ROOT / "README.md").read_text())}
"""By the name that stands in the first line of each."""

RUN_HERE = {
    *("settings.py", "urls.py", "asgi.py", "shop/dspy_programs.py"),
    *(
        "client.py",
        "socket_client.py",
        "chat.py",
        "page.js",
        "client.mjs",
        "socket.mjs",
        "in a thread",
        "on the event loop",
        "examples.py",
    ),
}


def test_every_example_runs_in_a_test_below() -> None:
    fences = re.findall(r"^```(?:python|js)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(fences) == len(EXAMPLES)
    assert set(EXAMPLES) == RUN_HERE


def test_the_project_of_the_readme_serves_its_program(tmp_path: Path) -> None:
    """Settings, addresses, application and program, put together as the README says."""
    site, shop = tmp_path / "mysite", tmp_path / "shop"
    for package in (site, shop):
        package.mkdir()
        (package / "__init__.py").touch()
    rest = (
        "SECRET_KEY = 'x'\nROOT_URLCONF = 'mysite.urls'\nASGI_APPLICATION = 'mysite.asgi.application'\nUSE_TZ = True\n"
        f"DATABASES = {{'default': {{'ENGINE': 'django.db.backends.sqlite3', 'NAME': {str(tmp_path / 'db')!r}}}}}\n"
        "MIDDLEWARE = ['django.contrib.sessions.middleware.SessionMiddleware',"
        " 'django.contrib.auth.middleware.AuthenticationMiddleware',"
        " 'django.contrib.messages.middleware.MessageMiddleware']\n"
        "TEMPLATES = [{'BACKEND': 'django.template.backends.django.DjangoTemplates', 'APP_DIRS': True, 'OPTIONS':"
        " {'context_processors': ['django.template.context_processors.request',"
        " 'django.contrib.auth.context_processors.auth', 'django.contrib.messages.context_processors.messages']}}]\n"
    )
    (site / "settings.py").write_text(EXAMPLES["settings.py"] + rest)
    (site / "urls.py").write_text(EXAMPLES["urls.py"])
    (site / "asgi.py").write_text(EXAMPLES["asgi.py"])
    (shop / "dspy_programs.py").write_text(EXAMPLES["shop/dspy_programs.py"])
    script = (
        "from mysite.asgi import application\n"
        "from django.core.management import call_command\n"
        "call_command('migrate', verbosity=0)\n"
        "from django.test import Client\n"
        "from dspyserve import runs\n"
        "print(runs.execute('triage', {'message': 'Help!'}).outputs['urgency'])\n"
        "print(Client().get('/api/programs/triage').status_code)\n"
        "print(Client().get('/api/programs').status_code)\n"
    )
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "mysite.settings", "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["low", "401", "200"] or done.stdout.split() == ["high", "401", "200"]


def test_programs_run_in_a_thread(language_model: Any) -> None:
    found: dict[str, Any] = {}
    exec(EXAMPLES["in a thread"], found)
    assert "answer" in found["result"].outputs


def test_examples_of_an_export_are_read(language_model: Any, tmp_path: Path) -> None:
    runs.execute("echo", {"question": "Why?"})
    call_command("export_traces", format="dspy", output=str(tmp_path / "examples.jsonl"), stdout=StringIO())
    found: dict[str, Any] = {}
    exec(EXAMPLES["examples.py"], found)
    (example,) = found["load"](tmp_path / "examples.jsonl")
    assert example.inputs().toDict() == {"question": "Why?"}
    assert example.labels().keys() == ["answer"]


async def test_programs_run_on_the_event_loop(language_model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found: dict[str, Any] = {}
    code = compile(EXAMPLES["on the event loop"], "README.md", "exec", flags=PyCF_ALLOW_TOP_LEVEL_AWAIT)
    running = eval(code, found)
    assert inspect.isawaitable(running)
    await asyncio.wait_for(running, 30)
    assert "answer" in found["result"].outputs
    assert capsys.readouterr().out.splitlines()[-1] == "run_end"


@pytest.fixture
def server(language_model: Any, start_server: Callable[..., Server]) -> Server:
    return start_server()


def run_client(name: str, command: list[str], server: Server, directory: Path) -> str:
    """What the example `name` prints, with the server of the test in place of the README's."""
    file = directory / name
    shutil.copy(CLIENT, directory / "dspyserve.mjs")
    file.write_text(EXAMPLES[name].replace(ADDRESS, f"127.0.0.1:{server.port}"))
    environment = {**os.environ, "DSPYSERVE_KEY": make_key("run", "give_feedback")}
    done = subprocess.run(
        [*command, str(file)], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_python_client(server: Server, tmp_path: Path) -> None:
    from dspyserve.models import Feedback

    printed = run_client("client.py", [sys.executable], server, tmp_path)
    assert "Why is the sky blue?" in printed
    assert "And at night?" in printed
    assert Feedback.objects.get().correction == {"answer": "Rayleigh scattering."}
    for name in ("chat.py", "socket_client.py"):
        assert "Why is the sky blue?" in run_client(name, [sys.executable], server, tmp_path)


@pytest.mark.parametrize("name", ["client.py", "socket_client.py"])
def test_the_python_clients_read_on_where_the_connection_breaks(server: Server, tmp_path: Path, name: str) -> None:
    with Proxy(server.port) as proxy:
        code = EXAMPLES[name].replace("And at night?", SLOW).replace("Why is the sky blue?", SLOW)
        (tmp_path / name).write_text(code.replace(ADDRESS, f"127.0.0.1:{proxy.port}"))
        environment = {**os.environ, "DSPYSERVE_KEY": make_key("run", "give_feedback"), "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, str(tmp_path / name)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as running:
            printed = ""
            for mark in ("reasoning_9 ", "reasoning_39 ", "answer_19 "):
                printed += read_until(running, mark)
                assert proxy.cut() >= 1
            assert running.stdout is not None
            printed += running.stdout.read()
        assert running.returncode == 0
    words = " ".join(f"{field}_{number}" for field in ("reasoning", "answer") for number in range(60))
    assert words in printed.replace("reasoning_59answer_0", "reasoning_59 answer_0"), "nothing is missing or twice"


def read_until(running: subprocess.Popen[str], mark: str) -> str:
    """What is printed up to `mark`."""
    assert running.stdout is not None
    found = ""
    while not found.endswith(mark):
        character = running.stdout.read(1)
        assert character, found
        found += character
    return found


@pytest.mark.embedded
@pytest.mark.skipif(
    shutil.which("node") is None and os.environ.get("CI") != "true", reason="Node is not installed, and this is not CI"
)
def test_the_javascript_clients(server: Server, tmp_path: Path) -> None:
    printed = run_client("client.mjs", ["node"], server, tmp_path)
    assert "Why is the sky blue?" in printed
    assert "And at night?" in printed
    # Before Node 22, WebSocket is there with this flag only.
    printed = run_client("socket.mjs", ["node", "--experimental-websocket"], server, tmp_path)
    assert printed.splitlines()[0] == "run_start"
    assert printed.splitlines()[-1] == "run_end"


@pytest.mark.embedded
async def test_the_script_of_a_page(server: Server) -> None:
    async with page_of(server.url) as page:
        await page.set_content("<button></button><output></output>")
        await page.add_script_tag(content=EXAMPLES["page.js"], type="module")
        # The question comes back in the answer; at the end the trace follows it.
        found = await page.wait_for_function(
            "() => /\\([0-9a-f]{32}\\)$/.exec(document.querySelector('output').textContent)"
        )
        assert found
        assert "Why is the sky blue?" in await page.inner_text("output")
