"""Debian's Chromium, steered by Playwright."""

from __future__ import annotations

import mimetypes
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from django.contrib.staticfiles import finders
from playwright.async_api import Browser, ConsoleMessage, Page, Response, Route, async_playwright

Scheme = Literal["light", "dark"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a page is looked at with: sizes in CSS pixels, and the colours that the reader's system prefers."""

    width: int = 1440
    height: int = 900
    scheme: Scheme = "light"


DESKTOP = Look()
LOOKS = [Look(width=width, scheme=scheme) for width in (1440, 390) for scheme in ("light", "dark")]
"""All that a page must look well in."""


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield browser
        await browser.close()


@asynccontextmanager
async def page_in(browser: Browser, url: str, session: str = "", look: Look = DESKTOP) -> AsyncIterator[Page]:
    """A blank page for the server at `url`, signed in with the cookie `session`.

    Static files come from the finders. Errors of scripts, whatever the Content-Security-Policy refused, and files that
    are not there fail the test in the end.
    """
    errors: list[str] = []
    context = await browser.new_context(
        viewport={"width": look.width, "height": look.height}, color_scheme=look.scheme, base_url=url
    )
    if session:
        await context.add_cookies([{"name": "sessionid", "value": session, "url": url, "httpOnly": True}])
    await context.route("**/static/**", _static)
    page = await context.new_page()
    page.on("pageerror", lambda error: errors.append(f"{page.url}: {error}"))
    page.on("console", lambda message: errors.extend(_refusals(page, message)))
    page.on("response", lambda response: errors.extend(_missing(page, response)))
    yield page
    await context.close()
    assert not errors, "\n".join(errors)


@asynccontextmanager
async def page_of(
    url: str, path: str = "/", *, session: str = "", look: Look = DESKTOP, browser: Browser | None = None
) -> AsyncIterator[Page]:
    """The page `path` of the server at `url`, as `page_in` opens it, in a browser of its own unless one is given."""
    if browser is None:
        async with chromium() as own, page_of(url, path, session=session, look=look, browser=own) as page:
            yield page
        return
    async with page_in(browser, url, session, look) as page:
        await page.goto(url + path)
        yield page


async def overflow(page: Page) -> int:
    """By how many pixels the document is wider than the window."""
    found: Any = await page.evaluate(
        "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    return int(found)


async def _static(route: Route) -> None:
    found = finders.find(route.request.url.partition("/static/")[2].partition("?")[0])
    if found is None:
        await route.fulfill(status=404)
    else:
        kind, _ = mimetypes.guess_type(Path(found).name)
        await route.fulfill(path=found, content_type=kind or "application/octet-stream")


def _refusals(page: Page, message: ConsoleMessage) -> list[str]:
    text = message.text
    return [f"{page.url}: {text}"] if message.type == "error" and "Content Security Policy" in text else []


def _missing(page: Page, response: Response) -> list[str]:
    missing = response.status == 404 and "/static/" in response.url
    return [f"{page.url}: {response.url} is not there"] if missing else []
