"""A server with sample data, and a session in which everything may be seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.server import Server


@dataclass(frozen=True, slots=True)
class Site:
    """A server that shows the sample, the cookie of a superuser's session, and the addresses of all pages by name."""

    server: Server
    session: str
    sample: Any
    addresses: dict[str, str]


@pytest.fixture
def site_settings() -> str:
    """The settings that the server has."""
    return "tests.settings"


@pytest.fixture
def site(transactional_db: None, start_server: Callable[..., Server], site_settings: str) -> Site:
    """The sample, served."""
    from tests.browser.pages import PAGES
    from tests.browser.sample import make
    from tests.browser.signing_in import session_of

    sample = make()
    server = start_server("uvicorn", DJANGO_SETTINGS_MODULE=site_settings)
    addresses = {page.name: page.address(sample) for page in PAGES}
    return Site(server, session_of(sample.user), sample, addresses)
