"""Debian's Chromium, steered by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from django.contrib.staticfiles import finders
from playwright.async_api import Page, Route, async_playwright


@asynccontextmanager
async def page_of(url: str, path: str = "/") -> AsyncIterator[Page]:
    """A page of the server at `url`; static files come from the finders, errors of scripts fail the test."""
    errors: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = await browser.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        await page.route("**/static/**", _static)
        await page.goto(url + path)
        yield page
        await browser.close()
    assert errors == []


async def _static(route: Route) -> None:
    found = finders.find(route.request.url.partition("/static/")[2])
    if found is None:
        await route.abort()
    else:
        kinds = {".js": "text/javascript", ".css": "text/css"}
        await route.fulfill(path=found, content_type=kinds[Path(found).suffix])
