"""A reviewer at the keyboard: thumbs, a form made of the program's outputs, and on to the next trace."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from playwright.async_api import Page, expect

from dspyserve.models import Feedback, SpanPayload, Trace
from tests.admin.test_review import OUTPUTS
from tests.admin.test_traces import HOSTILE, LIST, make_traces
from tests.browser.chromium import LOOKS, chromium, overflow, page_in
from tests.browser.signing_in import session_of, superuser
from tests.server import Server

PRESSES = [
    ("u", "true", "false", 1.0),
    ("-", "false", "true", 0.0),
    ("d", "false", "false", None),
    ("+", "true", "false", 1.0),
    ("u", "false", "false", None),
]
"""Keys one after the other, whether the thumbs are pressed then, and what is stored."""


@pytest.fixture
def server(language_model: Any, start_server: Callable[..., Server]) -> Server:
    return start_server("uvicorn")


def make_queue() -> list[Trace]:
    """Three traces of `extract`, the newest first; the hostile one is the last."""
    traces = make_traces(3, program_name="extract", session_id="s", output_preview="x")
    hostile = {"contact": {"name": f"</textarea>{HOSTILE}"}, "sentiment": HOSTILE, "topics": [HOSTILE * 50]}
    for trace, outputs in zip(traces, (OUTPUTS, OUTPUTS, hostile), strict=True):
        SpanPayload.objects.filter(span__trace=trace, span__sequence=1).update(outputs=outputs)
    return traces


def given(trace: Trace) -> list[tuple[Any, ...]]:
    """What was said of a trace."""
    names = ("name", "score", "label", "correction", "span_id")
    return list(Feedback.objects.filter(trace=trace).order_by("name").values_list(*names))


def page_url(trace: Trace, query: str = "") -> str:
    """The page of `trace`."""
    return f"{LIST}{trace.pk}/change/{query}"


async def look_everywhere(browser: Any, server: Server, session: str, traces: list[Trace]) -> None:
    """No page is wider than its window, whatever it shows."""
    one, other = traces[0].pk.hex, traces[2].pk.hex
    paths = [page_url(traces[2]), f"{LIST}compare/?a={one}&b={other}", f"{LIST}session/s/"]
    for look in LOOKS:
        async with page_in(browser, server.url, session, look) as page:
            for path in paths:
                await page.goto(path)
                await page.evaluate("() => document.querySelectorAll('details').forEach((each) => (each.open = true))")
                assert await overflow(page) <= 0, (path, look)


@asynccontextmanager
async def reviewing(server: Server) -> AsyncIterator[tuple[Page, list[Trace], Any, str]]:
    """The page of the newest of three traces, before a signed-in reviewer."""
    traces = await sync_to_async(make_queue)()
    session = await sync_to_async(lambda: session_of(superuser()))()
    async with chromium() as browser, page_in(browser, server.url, session) as page:
        page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
        await page.goto(page_url(traces[0]))
        yield page, traces, browser, session


async def test_a_reviewer_goes_through_the_queue_with_keys(server: Server) -> None:
    async with reviewing(server) as (page, traces, browser, session):
        # Thumbs, while something is being typed that is not to be lost, and no new page.
        await page.evaluate("() => { window.isTheSamePage = true; }")
        await page.keyboard.press("r")
        await page.keyboard.type("half a thou")
        await page.locator("#review_comment").press("u")
        assert await page.input_value("#review_comment") == "half a thouu"
        await page.locator("#review_comment").blur()
        for key, pressed, score in (
            ("u", ["true", "false"], 1.0),
            ("-", ["false", "true"], 0.0),
            ("d", ["false"] * 2, None),
        ):
            await page.keyboard.press(key)
            await expect(page.locator("[data-thumb=up]")).to_have_attribute("aria-pressed", str(pressed[0]))
            await expect(page.locator("[data-thumb=down]")).to_have_attribute("aria-pressed", str(pressed[1]))
            said = [("thumbs", score, "", None, "")] if score is not None else []
            assert await sync_to_async(given)(traces[0]) == said
        assert await page.evaluate("() => window.isTheSamePage")
        assert await page.input_value("#review_comment") == "half a thouu"

        # The form that the outputs made: a choice, an object and a list; only what is changed is kept.
        await page.click("summary:has-text('Correct the outputs')")
        fields = page.locator(".dspyserve-corrections")
        assert await fields.locator("select").evaluate("(each) => each.selectedOptions[0].text") == "neutral"
        assert await fields.locator("textarea").count() == 2
        await fields.locator("select").select_option(label="negative")
        await page.get_by_label("topics").fill("[1, 2]")
        await page.keyboard.press("Control+Enter")

        # What does not fit comes back beside its field, with all that was typed.
        await page.wait_for_url("**/review/")
        await expect(page.locator(".has-errors label")).to_have_text("topics")
        assert await page.get_by_label("topics").input_value() == "[1, 2]"
        assert await page.input_value("#review_comment") == "half a thouu"
        assert await fields.locator("select").evaluate("(each) => each.selectedOptions[0].text") == "negative"
        assert await sync_to_async(given)(traces[0]) == []
        await page.get_by_label("topics").fill('["a"]')
        await page.keyboard.press("Control+Enter")

        # On to the next one that nobody has reviewed.
        await page.wait_for_url(f"**{page_url(traces[1])}")
        correction = {"sentiment": "negative", "topics": ["a"]}
        assert await sync_to_async(given)(traces[0]) == [("review", None, "", correction, "")]
        await page.keyboard.press("+")
        await expect(page.locator("[data-thumb=up]")).to_have_attribute("aria-pressed", "true")

        # The neighbours, and a span that was chosen without a new page.
        await page.keyboard.press("[")
        await page.wait_for_url(f"**{page_url(traces[0])}")
        await page.keyboard.press("]")
        await page.wait_for_url(f"**{page_url(traces[1])}")
        await page.locator(".dspyserve-tree tbody tr").nth(2).click()
        await page.wait_for_url("**span=cccccccccccccccc*")
        await page.keyboard.press("r")
        await page.focus("#review_span_id")
        await page.select_option("#review_span_id", "c" * 16)
        await page.fill("#review_label", "slow")
        await page.locator("#review_label").press("Enter")
        await page.wait_for_url("**#review")
        said = [("review", None, "slow", None, "c" * 16), ("thumbs", 1.0, "", None, "")]
        assert await sync_to_async(given)(traces[1]) == said

        await look_everywhere(browser, server, session, traces)
