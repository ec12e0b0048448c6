"""The trace page in a browser: keys, details on demand, copying, and all of it without a new entry of the history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgiref.sync import sync_to_async
from playwright.async_api import Browser, Page, expect

from dspyserve.models import Trace
from tests.admin.rows import make_span, make_trace, page_url, span_id
from tests.browser.chromium import Look, chromium, overflow, page_of
from tests.browser.signing_in import session_of, superuser
from tests.server import Server

LONG = "A long text\u202e. " * 2_000


def make() -> tuple[Trace, str]:
    """The run has the steps plan (with 3), look_up (with 5, an error) and answer (with 7 and 8, an error)."""
    trace = make_trace(status="failed", error_type="ValueError", span_count=8, error_count=2)
    make_span(trace, 1, {"inputs": {"question": "Why?"}}, kind="run", name="qa", took=1000)
    deep = {"a": {"b": {"c": {"d": {"e": {"f": {"g": "the bottom"}}}}}}}
    make_span(trace, 2, {"inputs": deep}, parent=1, kind="module", name="plan", took=400)
    messages = [{"role": "user", "content": "[[ ## question ## ]]\nWhy?"}]
    make_span(trace, 3, {"messages": messages, "outputs": [LONG]}, parent=2, kind="lm", name="openai/x", took=300)
    make_span(trace, 4, parent=1, kind="module", name="look_up", took=300)
    failed = {"status": "error", "error_type": "HTTPError"}
    make_span(trace, 5, {"inputs": {"query": "4711"}}, parent=4, name="search", **failed)
    make_span(trace, 6, parent=1, kind="module", name="answer", at=500)
    make_span(trace, 7, parent=6, kind="lm", name="openai/x", at=500)
    make_span(trace, 8, parent=6, kind="adapter", name="ChatAdapter", at=600, **failed)
    return trace, session_of(superuser())


async def chosen(page: Page, number: int) -> None:
    """The span of this number is the current one: row, panel, address and focus say so."""
    await expect(page.locator("tr[aria-current]")).to_have_attribute("data-span", span_id(number))
    await expect(page.locator("#span .dspyserve-panel")).to_have_attribute("data-span", span_id(number))
    assert f"span={span_id(number)}" in page.url
    assert await page.evaluate("() => document.activeElement.dataset.span") == span_id(number)


async def visible(page: Page) -> list[int]:
    """The numbers of the spans whose rows show."""
    rows = page.locator(".dspyserve-tree tbody tr:visible")
    found: list[str] = await rows.evaluate_all("rows => rows.map((row) => row.dataset.span)")
    return [int(span, 16) for span in found]


async def press(page: Page, *keys: str) -> None:
    for key in keys:
        await page.keyboard.press(key)


async def test_keys_and_details(transactional_db: None, start_server: Callable[..., Server]) -> None:
    server = await sync_to_async(start_server)("uvicorn")
    trace, session = await sync_to_async(make)()
    async with chromium() as browser:
        async with page_of(server.url, page_url(trace), session=session, browser=browser) as page:
            await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
            history = await page.evaluate("() => history.length")
            await walks_with_keys(page)
            await collapses(page)
            await filters(page)
            await finds_errors(page)
            await loads_values(page)
            await goes_to_neighbours(page)
            assert await page.evaluate("() => history.length") == history + 3
        await fits_a_narrow_screen(browser, server.url, trace, session)


async def walks_with_keys(page: Page) -> None:
    await expect(page.locator("[role=treegrid] tr[aria-level='3'][aria-posinset='2'][aria-setsize='2']")).to_have_count(
        1
    )
    assert await page.locator("#span").is_hidden()
    await press(page, "j")
    await chosen(page, 1)
    await press(page, "ArrowDown", "ArrowDown")
    await chosen(page, 3)
    await expect(page.locator("#span h5")).to_have_text("question")
    await press(page, "k")
    await chosen(page, 2)
    await press(page, "End")
    await chosen(page, 8)
    await press(page, "Home")
    await chosen(page, 1)
    await press(page, "Enter")
    await expect(page.locator("#span")).to_be_focused()
    await press(page, "Escape")
    assert await page.locator("#span").is_hidden()
    assert "span=" not in page.url
    await page.locator("tr", has_text="plan").click()
    await chosen(page, 2)


async def collapses(page: Page) -> None:
    await press(page, "ArrowLeft")
    await expect(page.locator("tr[aria-current]")).to_have_attribute("aria-expanded", "false")
    assert await visible(page) == [1, 2, 4, 5, 6, 7, 8]
    await press(page, "ArrowLeft", "ArrowLeft")
    assert await visible(page) == [1]
    await chosen(page, 1)
    await press(page, "ArrowRight")
    assert await visible(page) == [1, 2, 4, 5, 6, 7, 8]
    await press(page, "ArrowRight", "ArrowRight", "ArrowRight")
    await chosen(page, 3)
    await page.locator(f"tr[data-span='{span_id(6)}'] .dspyserve-twist").click()
    assert await visible(page) == [1, 2, 3, 4, 5, 6]


async def filters(page: Page) -> None:
    await press(page, "/")
    await expect(page.locator("#span-filter")).to_be_focused()
    await page.keyboard.type("SEAR")
    await expect(page.locator("output")).to_have_text("1 / 8")
    assert await visible(page) == [1, 4, 5]
    await press(page, "ArrowDown")
    await chosen(page, 5)
    await press(page, "Escape")
    assert await visible(page) == [1, 2, 3, 4, 5, 6]


async def finds_errors(page: Page) -> None:
    await press(page, "e")
    await chosen(page, 8)
    assert await visible(page) == [1, 2, 3, 4, 5, 6, 7, 8]
    await press(page, "e")
    await chosen(page, 5)
    await press(page, "?")
    await expect(page.locator("dialog")).to_be_visible()
    await press(page, "e", "Escape")
    await expect(page.locator("dialog")).to_be_hidden()
    await chosen(page, 5)


async def loads_values(page: Page) -> None:
    await page.locator(f"tr[data-span='{span_id(3)}']").click()
    await chosen(page, 3)
    answer = page.locator("#span .role-answer")
    await expect(answer).to_contain_text(f"4000 of {len(LONG)} characters")
    await answer.get_by_role("link", name="Show all").click()
    await expect(answer.locator("pre")).to_have_text(LONG.replace("\u202e", "[U+202E]").strip())
    copy = answer.get_by_role("button").first
    await copy.click()
    await expect(copy).to_have_text("✓")
    await copy.click()
    assert await page.evaluate("() => navigator.clipboard.readText()") == LONG
    await expect(copy).to_have_text("Copy")
    await page.locator(f"tr[data-span='{span_id(2)}']").click()
    await chosen(page, 2)
    closed = page.locator("#span details:not([open]) > summary:visible")
    while await closed.count():
        await closed.first.click()
    await page.get_by_role("link", name="Show what is within").click()
    await expect(page.locator("#span")).to_contain_text("the bottom")


async def goes_to_neighbours(page: Page) -> None:
    for rel, key in (("prev", "["), ("next", "]")):
        script = "(rel) => document.body.append(Object.assign(document.createElement('a'), { rel, href: `#${rel}` }))"
        await page.evaluate(script, rel)
        await press(page, key)
        assert page.url.endswith(f"#{rel}")
    # As Windows tells a key that a German keyboard has on AltGr; the same without it is somebody else's.
    event = "(init) => document.body.dispatchEvent(new KeyboardEvent('keydown', { key: '[', bubbles: true, ...init }))"
    await page.evaluate(event, {"ctrlKey": True, "altKey": True})
    assert page.url.endswith("#next")
    await page.evaluate(event, {"ctrlKey": True, "altKey": True, "modifierAltGraph": True})
    assert page.url.endswith("#prev")


async def fits_a_narrow_screen(browser: Browser, url: str, trace: Trace, session: str) -> None:
    look = Look(width=390, height=800, scheme="dark")
    async with page_of(
        url, page_url(trace, f"?span={span_id(3)}"), session=session, look=look, browser=browser
    ) as page:
        assert await overflow(page) == 0
        bars = await page.locator(".dspyserve-tree svg").evaluate_all("bars => bars.map((bar) => bar.clientWidth)")
        assert len(set(bars)) == 1, "bars of one waterfall have one scale"
        await page.locator(f"tr[data-span='{span_id(5)}']").click()
        await chosen(page, 5)
        await expect(page.locator("#span")).to_be_in_viewport()
        assert await overflow(page) == 0


async def test_all_of_it_can_be_read_without_javascript(
    transactional_db: None, start_server: Callable[..., Server]
) -> None:
    server = await sync_to_async(start_server)("uvicorn")
    trace, session = await sync_to_async(make)()
    async with chromium() as browser:
        context = await browser.new_context(java_script_enabled=False, base_url=server.url)
        await context.add_cookies([{"name": "sessionid", "value": session, "url": server.url}])
        page = await context.new_page()
        await page.goto(page_url(trace))
        await page.get_by_role("link", name="module plan").click()
        assert page.url.endswith(f"?span={span_id(2)}#span")
        href: Any = await page.locator("#span a", has_text="Show what is within").get_attribute("href")
        await page.goto(str(await page.evaluate("(href) => new URL(href, location.href).href", href)))
        assert "the bottom" in await page.locator("#span").inner_text()
