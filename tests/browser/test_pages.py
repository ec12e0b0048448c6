"""Every page of the admin: for all eyes, on every screen, under the strictest content security policy."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page

from tests.browser.chromium import LOOKS, Look, chromium, overflow, page_in
from tests.browser.conftest import Site
from tests.browser.pages import PAGES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

GRAVE = ("serious", "critical")
RULES = {
    "resultTypes": ["violations"],
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    # Otherwise axe-core copies style sheets into elements, which the policy refuses.
    "preload": False,
}
DJANGOS = {
    "exclude": [
        [".breadcrumbs"],
        ["#changelist-search"],
        ["#changelist-filter"],
        [".selector"],
        [".vDateField"],
        [".vTimeField"],
    ]
}
"""Parts that Django's admin makes for every app, of which axe-core finds the targets small or the links plain."""


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: f"{look.scheme}-{look.width}")
async def test_pages_are_readable_for_all(site: Site, look: Look) -> None:
    faults: list[str] = []
    async with chromium() as browser, page_in(browser, site.server.url, site.session, look) as page:
        for wanted in PAGES:
            if wanted.is_twin and look in LOOKS[1:3]:
                continue
            answer = await page.goto(site.addresses[wanted.name])
            assert answer is not None
            assert answer.status == 200, wanted
            if wanted.shows not in await page.inner_text("#content, #main"):
                faults.append(f"{wanted.name} does not show {wanted.shows!r}")
            if wide := await overflow(page):
                faults.append(f"{wanted.name} is {wide} pixels wider than the window")
            faults += [f"{wanted.name}: {fault}" for fault in await axe(page)]
    assert not faults, "\n".join(faults)


async def axe(page: Page) -> list[str]:
    """What axe-core finds grave, with the elements that it is about."""
    response: Any = (await Axe().run(page, DJANGOS, RULES)).response
    return [
        f"{found['id']} ({found['impact']}): {_shown(node)}"
        for found in response["violations"]
        if found["impact"] in GRAVE
        for node in found["nodes"][:3]
    ]


def _shown(node: Any) -> str:
    return f"{node['html'][:150]} {node['failureSummary'].splitlines()[-1].strip()[:160]}"
