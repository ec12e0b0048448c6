"""The pages under django-unfold, which replaces the admin's templates and style sheets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import unfold
from playwright.async_api import Page

from tests.browser.chromium import Look, chromium, overflow, page_in
from tests.browser.conftest import Site
from tests.browser.pages import PAGES

pytestmark = [pytest.mark.slow]

FORMS = ("program", "program-add", "language-model", "api-key", "api-key-add")
"""Made by the theme from start to end."""

COLOURS = """
() => [document.body, document.querySelector("#content-main")].map((element) => {
  const style = getComputedStyle(element);
  return [style.color, style.getPropertyValue("--body-bg"), style.getPropertyValue("--link-fg")];
})
"""


@pytest.fixture
def site_settings(settings: Any) -> str:
    # Where this process finds the files of the theme, before those of the admin.
    settings.STATICFILES_DIRS = [Path(unfold.__file__).parent / "static"]
    return "tests.browser.unfold_settings"


@pytest.mark.parametrize("look", [Look(), Look(width=390, scheme="dark")], ids=["wide", "narrow"])
async def test_pages_hold_together(site: Site, look: Look) -> None:
    faults: list[str] = []
    async with chromium() as browser, page_in(browser, site.server.url, site.session, look) as page:
        for wanted in PAGES:
            if wanted.is_twin:
                continue
            answer = await page.goto(site.addresses[wanted.name])
            assert answer is not None
            assert answer.status == 200, wanted
            assert await page.locator("#nav-sidebar-apps, #main").count(), "this is not the theme"
            if wanted.shows not in await page.inner_text("#main"):
                faults.append(f"{wanted.name} does not show {wanted.shows!r}")
            if wanted.name not in FORMS and (wide := await overflow(page)):
                faults.append(f"{wanted.name} is {wide} pixels wider than the window")
        await page.goto(site.addresses["trace"])
        faults += await colours(page, look)
    assert not faults, "\n".join(faults)


async def colours(page: Page, look: Look) -> list[str]:
    """What is wrong with the colours that our style sheets take from the admin's, which the theme does not have."""
    (_, background, link), (text, *_) = await page.evaluate(COLOURS)
    assert text.startswith("oklch"), "the theme has colours of its own"
    found = []
    if not background or not link:
        found.append("the variables of the admin are not there")
    if (background == "#fff") != (look.scheme == "light"):
        found.append(f"in {look.scheme} colours the background is {background}")
    return found
