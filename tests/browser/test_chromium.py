"""What pages must not do fails the tests that look at them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from asgiref.sync import sync_to_async
from playwright.async_api import Browser, Page

from tests.browser.chromium import Look, chromium, overflow, page_of
from tests.browser.signing_in import session_of, superuser
from tests.server import Server

INLINE = {
    "a script": "document.head.append(made('script', {textContent: 'window.ran = 1'}))",
    "a handler": 'document.body.innerHTML = \'<img src="/static/none.png" onerror="window.ran = 1">\'',
    "a style": "document.body.innerHTML = '<p style=\"color: red\">x</p>'",
    "another site": "document.body.append(made('img', {src: 'https://a.example/a.png'}))",
    "an error": "setTimeout(() => { throw new Error('oops'); }, 0)",
}


async def test_pages_are_opened_as_asked_and_fail_the_test_where_they_break(
    transactional_db: None, start_server: Callable[..., Server]
) -> None:
    server = await sync_to_async(start_server)("uvicorn")
    session = await sync_to_async(lambda: session_of(superuser()))()
    async with chromium() as browser:
        look = Look(width=390, height=700, scheme="dark")
        async with page_of(server.url, "/admin/", session=session, look=look, browser=browser) as page:
            assert await page.inner_text("h1") == "Site administration"
            assert await page.evaluate("() => matchMedia('(prefers-color-scheme: dark)').matches")
            assert await page.evaluate("() => [innerWidth, innerHeight]") == [390, 700]
            assert await overflow(page) == 0
            await run(page, "document.body.append(made('img', {width: 900}))")
            assert await overflow(page) > 400
        for script in INLINE.values():
            ran: list[bool] = []
            with pytest.raises(AssertionError, match=r"Content Security Policy|oops"):
                await visit(browser, server.url, session, script, ran)
            assert ran == [False]


async def visit(browser: Browser, url: str, session: str, script: str, ran: list[bool]) -> None:
    """A page that a script spoils; `ran` tells whether what it put there ran."""
    async with page_of(url, "/admin/", session=session, browser=browser) as page:
        await run(page, script)
        ran.append(await page.evaluate("() => 'ran' in window"))


async def run(page: Page, script: str) -> None:
    """Run it, and let the page settle."""
    made = "const made = (name, values) => Object.assign(document.createElement(name), values);"
    await page.evaluate(f"() => {{ {made} {script} }}")
    await page.wait_for_timeout(50)
