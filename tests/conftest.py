"""What all tests share: coroutine tests, a clean process around every test, and the provider."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync

for _name in [name for name in os.environ if name.endswith(("_API_KEY", "_API_BASE", "_BASE_URL"))]:
    # A developer's own keys must neither be used nor be taken for secrets.
    del os.environ[_name]
KEYS = {f"TEST_{letter}_API_KEY": f"key-{letter.lower()}" for letter in "ABCDE"}
os.environ.update(KEYS)

from tests.load.openai_server import OpenAIServer  # noqa: E402
from tests.server import Server  # noqa: E402


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what needs Redis where there is none, and mark what says nothing new on another database."""
    from django.conf import settings

    for item in items:
        if item.get_closest_marker("redis"):
            if not settings.REDIS_URL:
                item.add_marker(pytest.mark.skip(reason="REDIS_URL is not set"))
        elif not _asks_for_database(item) or "browser" in item.path.parts:
            # pytest-django refuses those that do not ask the database; scripts know nothing of it.
            item.add_marker("embedded")


def _asks_for_database(item: pytest.Item) -> bool:
    fixtures = {"db", "transactional_db"} & {*getattr(item, "fixturenames", ())}
    return bool(fixtures or item.get_closest_marker("django_db"))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run coroutine tests with asgiref, whose threads share the test's database connection; other plugins' do not."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    async_to_sync(pyfuncitem.obj)(**arguments)
    return True


@pytest.fixture(autouse=True)
def _clean_process() -> Iterator[None]:
    from dspyserve.programs.catalogue import catalogue
    from dspyserve.tracing.writer import writer
    from tests.dspy_programs import release

    catalogue.forget()
    release.clear()
    yield
    assert writer.flush(10), "traces of this test are still not stored"


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Django's own, and at the end nobody is left in the database, which could not be dropped otherwise.

    Event loops that tests ran are over, and with them whoever would have closed the connections of their contexts.
    """
    yield
    from django.db import connection

    if connection.vendor == "postgresql":
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        with django_db_blocker.unblock(), connection.cursor() as cursor:
            cursor.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")


@pytest.fixture(scope="session", autouse=True)
def _closed_writer() -> Iterator[None]:
    yield
    from dspyserve.tracing.writer import writer

    writer.close()


@pytest.fixture(scope="session")
def _provider() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def provider(_provider: OpenAIServer) -> OpenAIServer:
    """The OpenAI-compatible server, without memory of earlier tests."""
    _provider.clear()
    return _provider


@pytest.fixture
def language_model(provider: OpenAIServer, transactional_db: None) -> Any:
    """The default language model, at the provider, with the key of `TEST_A_API_KEY`."""
    from dspyserve.models import LanguageModel

    LanguageModel.objects.update(is_default=False)
    row, _ = LanguageModel.objects.update_or_create(
        name="provider",
        defaults={
            "model": "openai/gpt-4o-mini",
            "api_base": provider.url,
            "api_key_env": "TEST_A_API_KEY",
            "parameters": {"temperature": 0.1},
            "is_default": True,
            "timeout": 20.0,
        },
    )
    return row


@pytest.fixture
def start_server(transactional_db: None) -> Iterator[Callable[..., Server]]:
    """Start servers in processes of their own, on the test's database; they are stopped after the test."""
    servers: list[Server] = []

    def start(kind: str = "daphne", *, is_forked: bool = True, **environment: str) -> Server:
        servers.append(Server(kind, environment, is_forked=is_forked))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()
