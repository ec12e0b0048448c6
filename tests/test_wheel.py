"""The wheel of `dspyserve` works alone: in another Django project, without the checkout that it was built from."""

from __future__ import annotations

import json
import os
import site
import socket
import subprocess
import sys
import time
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent

SETTINGS = """
SECRET_KEY = "x"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["daphne", *(f"django.contrib.{name}" for name in
    ("admin", "auth", "contenttypes", "sessions", "messages", "staticfiles")), "channels", "ninja", "dspyserve", "shop"]
MIDDLEWARE = [f"django.contrib.{name}" for name in ("sessions.middleware.SessionMiddleware",
    "auth.middleware.AuthenticationMiddleware", "messages.middleware.MessageMiddleware")]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True, "OPTIONS":
    {"context_processors": [f"django.{name}" for name in ("template.context_processors.request",
    "contrib.auth.context_processors.auth", "contrib.messages.context_processors.messages")]}}]
ROOT_URLCONF = "shop.urls"
ASGI_APPLICATION = "shop.asgi.application"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3", "OPTIONS":
    {"timeout": 20, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL;"}}}
USE_TZ = True
STATIC_URL = "static/"
"""
URLS = """
from django.contrib import admin
from django.urls import include, path
urlpatterns = [path("admin/", admin.site.urls), path("api/", include("dspyserve.api.urls"))]
"""
ASGI = """
from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
django_application = get_asgi_application()
from dspyserve.asgi import serve
from dspyserve.websocket.routing import websocket_urlpatterns
application = serve(ProtocolTypeRouter(
    {"http": django_application, "websocket": AuthMiddlewareStack(URLRouter(websocket_urlpatterns))}))
"""
PROGRAMS = """
import dspy
from dspyserve import register

@register("greet", access="public")
class Greet(dspy.Module):
    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("name -> greeting")

    def forward(self, name: str):
        return self.ask(name=name)
"""


class Project:
    """A bare Django project with the wheel in an environment of its own."""

    def __init__(self, directory: Path, wheel: Path) -> None:
        self.directory = directory
        shop = directory / "shop"
        shop.mkdir()
        files = {"__init__": "", "settings": SETTINGS, "urls": URLS, "asgi": ASGI, "dspy_programs": PROGRAMS}
        for name, text in files.items():
            (shop / f"{name}.py").write_text(text)
        self.python = _environment(directory / "environment", wheel)
        self.variables = {**_clean_environment(), "DJANGO_SETTINGS_MODULE": "shop.settings"}

    def run(self, *arguments: str) -> str:
        """Run Python in the project."""
        done = subprocess.run(
            [self.python, *arguments],
            cwd=self.directory,
            env=self.variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start Python in the project."""
        return subprocess.Popen([self.python, *arguments], cwd=self.directory, env=self.variables)


def _clean_environment() -> dict[str, str]:
    hidden = ("DJANGO_SETTINGS_MODULE", "PYTHONPATH", "DATABASE_URL", "REDIS_URL")
    return {name: value for name, value in os.environ.items() if name not in hidden}


def _environment(directory: Path, wheel: Path) -> str:
    """Its own `dspyserve`, and all dependencies of the running environment, but for the checkout itself."""
    venv.create(directory, with_pip=False)
    packages = next((directory / "lib").glob("python*")) / "site-packages"
    # A path that a .pth file adds is searched, but its own .pth files are not read: an editable install stays hidden.
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    return str(directory / "bin" / "python")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (found,) = target.glob("*.whl")
    return found


@pytest.fixture
def project(tmp_path: Path, wheel: Path) -> Project:
    return Project(tmp_path, wheel)


@pytest.fixture
def url(project: Project) -> Iterator[str]:
    project.run("-m", "django", "migrate", "--verbosity", "0")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    server = project.start("-m", "daphne", "-b", "127.0.0.1", "-p", str(port), "shop.asgi:application")
    try:
        _wait_until_ready(f"http://127.0.0.1:{port}")
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


def test_holds_all_that_it_needs_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "dspyserve/py.typed" in names
    assert "dspyserve/templates/admin/dspyserve/trace/page.html" in names
    assert "dspyserve/static/dspyserve/admin/base.css" in names
    assert "dspyserve/migrations/0001_initial.py" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"dspyserve"}


def test_serves_a_program_of_another_project(project: Project, url: str) -> None:
    place = project.run("-c", "import dspyserve; print(dspyserve.__file__)").strip()
    assert Path(place).is_relative_to(project.directory)
    body = httpx.post(f"http://{url}/api/programs/greet", json={"inputs": {"name": "Ann"}}, timeout=30).json()
    assert "Ann" in body["outputs"]["greeting"]
    assert body["trace_stored"] is True
    with connect(f"ws://{url}/ws/programs/greet", subprotocols=["dspyserve.v1"]) as found:  # type: ignore[list-item]
        found.send(json.dumps({"type": "run", "id": "1", "inputs": {"name": "Bob"}}))
        while (event := json.loads(found.recv(timeout=30))["event"])["type"] != "run_end":
            assert event["type"] != "run_error", event
    make_user = "from django.contrib.auth.models import User; User.objects.create_superuser('ann', '', 'secret')"
    project.run("-c", f"import django; django.setup(); {make_user}")
    with httpx.Client(base_url=f"http://{url}", follow_redirects=True) as client:
        token = client.get("/admin/login/").cookies["csrftoken"]
        client.post(
            "/admin/login/?next=/admin/dspyserve/trace/",
            data={"username": "ann", "password": "secret", "csrfmiddlewaretoken": token},
        )
        assert client.get("/admin/dspyserve/trace/").text.count("greet") >= 2


def _wait_until_ready(url: str) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            if httpx.get(f"{url}/api/health/ready", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.1)
    raise AssertionError("the server did not start")
