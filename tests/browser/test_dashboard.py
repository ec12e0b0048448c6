"""The dashboard in a browser: under a strict policy, at every width, and without a script."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable

from asgiref.sync import sync_to_async
from django.utils import timezone

from dspyserve.tracing import store
from tests.browser.chromium import LOOKS, chromium, overflow, page_of
from tests.browser.signing_in import session_of, superuser
from tests.server import Server
from tests.tracing.test_writer import rows

PAGE = "/admin/dspyserve/trace/dashboard/"
LIST = re.compile(r"/trace/\?")
LONG = "openai/a-model-with-a-name-that-is-much-too-long-for-any-column-of-any-table"


def fill() -> str:
    """A day of traces, some of them failed; the session of someone who may see them."""
    now = timezone.now()
    store.insert(
        [
            rows(
                program_name=f"program-{number % 3}",
                model=LONG,
                started_at=now - datetime.timedelta(hours=number / 10),
                status="failed" if number % 7 == 0 else "succeeded",
                error_type="ValueError" if number % 7 == 0 else "",
                duration_ms=100.0 * (number + 1),
                first_token_ms=20.0,
                input_tokens=90,
                output_tokens=10,
                cost=0.5,
            )
            for number in range(100)
        ]
    )
    return session_of(superuser())


async def test_is_read_and_followed_at_every_width(transactional_db: None, start_server: Callable[..., Server]) -> None:
    server = await sync_to_async(start_server)("uvicorn")
    session = await sync_to_async(fill)()
    async with chromium() as browser:
        for look in LOOKS:
            async with page_of(server.url, PAGE, session=session, look=look, browser=browser) as page:
                assert await overflow(page) == 0
                assert await page.locator(".dspyserve-chart svg[focusable]").count() == 6
        async with page_of(server.url, f"{PAGE}?window=24h", session=session, browser=browser) as page:
            await page.click("section:has(#programs) a:text-is('program-1')")
            assert await page.locator("select[name=program]").input_value() == "program-1"
            assert "33" in await page.inner_text(".dspyserve-tiles dd")
            await page.click("summary:has-text('All figures')")
            times = page.locator("details section tbody tr")
            assert await times.count() == await page.locator(".chart-traces .plot rect.other").count()
            await page.locator("#errors ~ div tbody a").first.click()
            await page.wait_for_url(LIST)
            assert await page.locator(".list-rows tbody tr").count() == 5
            await page.goto(f"{server.url}{PAGE}?window=24h")
            await page.locator(".chart-traces a").nth(22).click()
            await page.wait_for_url(LIST)
            assert await page.locator(".list-rows tbody tr").count() == 10
        async with page_of(server.url, "/admin/dspyserve/trace/", session=session, browser=browser) as page:
            await page.click("summary:text-is('Export')")
            async with page.expect_download() as waiting:
                await page.click("a:has-text('CSV')")
            path = await (await waiting.value).path()
            assert len(path.read_text().splitlines()) == 101
