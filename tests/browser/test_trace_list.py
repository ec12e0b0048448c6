"""The list of traces in a browser: wide and narrow, what can be clicked, and news while it is read."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from playwright.async_api import Page, expect

from dspyserve.admin.traces.list import NEWS_SECONDS
from dspyserve.models import Feedback, Trace
from tests.browser.chromium import overflow, page_of
from tests.server import Server

LIST = "/admin/dspyserve/trace/"
HOSTILE = "<script>document.title = 'pwned'</script><img src=x onerror=document.title='pwned'>\u202e" + "W" * 100


@pytest.fixture
def server(transactional_db: None, start_server: Callable[..., Server]) -> Server:
    return start_server("uvicorn")


def make_traces() -> str:
    """Some of the widest traces that there can be; returns the session cookie of somebody who may do everything."""
    now = timezone.now()
    user = User.objects.create_superuser("ann")
    for number in range(3):
        trace = Trace.objects.create(
            id=uuid.UUID(int=number + 1),
            program_name="w" * 100,
            version_number=123_456,
            status="failed" if number else "succeeded",
            error_type="E" * 200,
            error_count=12,
            transport="rest",
            started_at=now - datetime.timedelta(minutes=number + 1),
            duration_ms=1e9,
            first_token_ms=1e8,
            input_tokens=123_456_789,
            output_tokens=123_456_789,
            cost=1234.123456,
            span_count=32_000,
            session_id=HOSTILE[:200],
            tags=[HOSTILE, "beta"],
            user=user,
            input_preview=HOSTILE[:200],
            output_preview="" if number else HOSTILE[:200],
        )
        Feedback.objects.create(trace=trace, name="n" * 100, label="l" * 200, author="user:1")
    client = Client()
    client.force_login(user)
    return client.cookies[settings.SESSION_COOKIE_NAME].value


async def test_a_day_at_the_list(server: Server) -> None:
    session = await sync_to_async(make_traces)()
    async with page_of(server.url, LIST, session=session) as page:
        await page.clock.install()
        await fits_wide_and_narrow(page, server)
        await tells_news_politely(page)
        await comes_back_to_what_was_chosen(page)
        await deletes_what_was_chosen(page)
        await opens_a_trace_by_any_place_of_its_row(page)


async def fits_wide_and_narrow(page: Page, server: Server) -> None:
    for width in (390, 800, 1440):
        await page.set_viewport_size({"width": width, "height": 900})
        await page.goto(server.url + LIST)
        for part in ("Filters", "Search help", "Save view"):
            await page.locator("summary", has_text=part).click()
            assert await overflow(page) <= 0, (width, part)
    await page.set_viewport_size({"width": 390, "height": 900})
    await page.locator("summary", has_text="Export").click()
    menu = await page.locator(".list-menu ul").bounding_box()
    assert menu is not None
    assert menu["x"] >= 0
    assert menu["x"] + menu["width"] <= 390
    await page.set_viewport_size({"width": 1440, "height": 900})
    table, column = await page.evaluate(
        "[document.querySelector('.list-rows table').scrollWidth, document.querySelector('.list-rows').clientWidth]"
    )
    assert table <= column
    assert await page.title() != "pwned"


async def tells_news_politely(page: Page) -> None:
    news = page.get_by_role("status").filter(has=page.locator("button"))
    assert await page.locator("[data-news][aria-live=polite]").count() == 1
    assert await news.count() == 0
    await Trace.objects.acreate(id=uuid.uuid4(), program_name="fresh", status="succeeded", started_at=timezone.now())
    await page.clock.fast_forward(NEWS_SECONDS * 1000 + 100)
    button = page.get_by_role("button", name="1 new trace")
    await expect(button).to_be_visible()
    await button.click()
    await expect(page.locator(".list-rows tbody tr")).to_have_count(4)
    await expect(page.locator(".list-rows tbody tr").first).to_contain_text("fresh")


async def comes_back_to_what_was_chosen(page: Page) -> None:
    for number in range(2):
        await page.locator(".list-rows tbody input").nth(number).check()
    button = page.get_by_role("button", name="Compare two chosen traces")
    await button.click()
    await page.wait_for_url("**/compare/**")
    await page.go_back()
    await expect(page.locator(".list-rows tbody input:checked")).to_have_count(2)
    await expect(button).to_be_enabled()
    for number in range(2):
        await page.locator(".list-rows tbody input").nth(number).uncheck()


async def deletes_what_was_chosen(page: Page) -> None:
    button = page.get_by_role("button", name="Delete chosen traces…")
    await expect(button).to_be_disabled()
    await page.get_by_label("Choose all traces of this page").check()
    assert await page.locator(".list-rows tbody input:checked").count() == 4
    await page.get_by_label("Choose all traces of this page").uncheck()
    await page.locator(".list-rows tbody input").first.check()
    await button.click()
    await page.get_by_role("button", name="Delete").click()
    await expect(page.locator(".list-rows tbody tr")).to_have_count(3)
    assert not await Trace.objects.filter(program_name="fresh").aexists()


async def opens_a_trace_by_any_place_of_its_row(page: Page) -> None:
    await page.wait_for_load_state()
    await page.keyboard.press("/")
    await expect(page.get_by_label("Search traces")).to_be_focused()
    await page.keyboard.type("status:failed")
    await page.keyboard.press("Enter")
    await expect(page.locator(".list-rows tbody tr")).to_have_count(2)
    # Forced, because what lies there is the link of the row, and that is the point.
    await page.locator(".list-rows tbody tr").first.locator("td.spans").click(force=True)
    await page.wait_for_url("**/change/**")
    assert "_changelist_filters=q%3Dstatus%253Afailed" in page.url
