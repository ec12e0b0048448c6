"""The playground and the page that runs a trace again, in a browser, against a real server, under a strict policy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.test import Client
from playwright.async_api import Page, Response, expect

from dspyserve.models import LanguageModel, Program, Trace
from tests.api.conftest import make_key
from tests.api.test_run import wait_for_trace
from tests.browser.chromium import page_of
from tests.server import Server

SLOW = "@@words=60@@ @@token_delay=0.03@@"
HOSTILE = "<img src=x onerror=document.title='ran'><script>document.title='ran'</script>"

AWKWARD = (
    """It's "quoted" 'twice' $HOME $(id) `id` ${x} !! %s {x} {{x}} # // */ \\ \\n \\' \\" \\u0041 """
    "\n\n\ttab \"\"\" ''' ü 👋 \u2028 \x7f \\"
)
"""What means something to a shell, to Python or to JavaScript."""


@pytest.fixture
def server(language_model: Any, start_server: Callable[..., Server]) -> Server:
    LanguageModel.objects.create(name="offline", model="demo/offline")
    Program.objects.create(name="typed", signature="text, count: int, tags: list[str] -> reply, labels: list[str]")
    Program.objects.create(name="thinking", signature="question -> answer", module="chain_of_thought")
    Program.objects.create(name="untraced", signature="question -> answer", trace_level=Program.TraceLevel.OFF)
    return start_server("uvicorn")


def session() -> str:
    """The session of somebody who may do all."""
    client = Client()
    client.force_login(User.objects.create_superuser("ann"))
    return str(client.cookies["sessionid"].value)


@asynccontextmanager
async def signed_in(server: Server) -> AsyncIterator[Page]:
    """A page of that user. What a text of a program smuggles in, it has not run in the end."""
    async with page_of(server.url, "/admin/", session=await sync_to_async(session)()) as page:
        yield page
        assert await page.title() != "ran"


async def open_playground(page: Page, server: Server, name: str) -> None:
    """Open the playground of the program `name`."""
    row = await Program.objects.aget(name=name)
    found: Response | None = await page.goto(f"{server.url}/admin/dspyserve/program/{row.pk}/playground/")
    assert found is not None
    assert found.headers["content-security-policy"].startswith("default-src 'self'")


def box(page: Page, name: str) -> Any:
    """Where the output field `name` streams to."""
    return page.locator(f'[data-output="{name}"] [data-text]')


async def trace_of(page: Page) -> Trace:
    """The trace that the page links to."""
    await expect(page.locator("[data-links]")).to_be_visible()
    address = await page.locator("[data-trace-link]").get_attribute("href")
    assert address is not None
    return await Trace.objects.aget(pk=address.split("/")[-3])


async def test_a_program_streams_is_cancelled_and_copied(server: Server, tmp_path: Path) -> None:
    question = f"{HOSTILE} {AWKWARD}"
    async with signed_in(server) as page:
        await open_playground(page, server, "echo")
        await page.fill('[data-field="question"]', f"{SLOW} {question}")
        await page.click("[data-start]")
        await expect(page.locator("[data-status]")).to_contain_text("Streaming")
        await expect(box(page, "answer")).not_to_be_empty()
        assert 1 < len(await box(page, "answer").inner_text()) < 400
        await expect(page.locator(".dspyserve-step.is-running")).to_have_count(2)
        await expect(page.locator("[data-start]")).to_be_disabled()
        await expect(page.locator("[data-status]")).to_contain_text("Succeeded")
        trace = await trace_of(page)
        assert (trace.transport, trace.tags, trace.status) == ("websocket", ["playground"], "succeeded")
        shown = await page.locator("[data-fact]").all_inner_texts()
        assert [text for text in shown if text == "–"] == []
        assert "as written" in shown
        await expect(page.locator(".dspyserve-step.is-done")).to_have_count(2)
        await expect(page.locator(".dspyserve-step .dspyserve-step .name")).to_have_text("openai/gpt-4o-mini")

        await page.click("[data-start]")
        await expect(box(page, "answer")).not_to_be_empty()
        await page.click("[data-cancel]")
        await expect(page.locator("[data-status]")).to_contain_text("Cancelled (client)")
        assert (await trace_of(page)).status == "cancelled"
        await expect(page.locator("[data-start]")).to_be_enabled()

        await page.fill('[data-field="question"]', question)
        snippets = {}
        for language in ("curl", "python", "javascript"):
            await page.click(f'[data-language="{language}"]')
            snippets[language] = await page.locator("[data-snippet]").inner_text()
    await sync_to_async(run_snippets)(snippets, question, tmp_path)


def run_snippets(snippets: dict[str, str], question: str, directory: Path) -> None:
    """Run the calls as a reader would, and see that the program got what was typed."""
    environment = {**os.environ, "DSPYSERVE_KEY": make_key("run")}
    (directory / "call.py").write_text(snippets["python"])
    (directory / "call.mjs").write_text(snippets["javascript"])
    commands = {
        "curl": ["bash", "-c", snippets["curl"]],
        "python": [sys.executable, str(directory / "call.py")],
        "javascript": ["node", str(directory / "call.mjs")],
    }
    for language, command in commands.items():
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (language, done.stderr)
        assert "answer" in done.stdout, language
        trace = Trace.objects.filter(transport="rest").latest("started_at")
        assert trace.spans.get(sequence=1).payload.inputs == {"question": question}, language
        assert environment["DSPYSERVE_KEY"] not in snippets[language]
    assert Trace.objects.filter(transport="rest").count() == len(commands)


async def test_errors_stand_where_they_belong(server: Server) -> None:
    async with signed_in(server) as page:
        await open_playground(page, server, "typed")
        fault = page.locator('[data-pointer="/inputs/tags"] [data-fault]')
        await page.fill('[data-field="tags"]', '["a", ')
        await expect(fault).to_have_text("This is not JSON.")
        await page.click("[data-start]")
        await expect(page.locator('[data-field="tags"]')).to_be_focused()
        await page.fill('[data-field="tags"]', '["a", 3]')
        await page.click("[data-start]")
        await expect(fault).to_have_text("1: Input should be a valid string")
        await expect(page.locator('[data-pointer="/inputs/count"] [data-fault]')).to_have_text(
            "This field is required."
        )
        await expect(page.locator('[data-field="count"]')).to_be_focused()
        await expect(page.locator('[data-field="count"]')).to_have_attribute("aria-invalid", "true")
        await expect(page.locator("[data-problem]")).to_contain_text("invalid_input")
        assert not await Trace.objects.aexists()
        await numbers_are_sent_as_they_were_typed(page)
        await page.fill('[data-field="count"]', "3")
        await page.fill('[data-field="tags"]', '["a"]')
        await page.select_option('[data-option="language_model"]', "offline")
        await page.keyboard.press("Control+Enter")
        await expect(page.locator("[data-status]")).to_contain_text("Succeeded")
        await expect(fault).to_be_empty()
        assert isinstance(json.loads(await box(page, "labels").inner_text()), list)
        assert (await trace_of(page)).model == "demo/offline"

        await open_playground(page, server, "failing")
        await page.fill('[data-field="question"]', "q")
        await page.click("[data-start]")
        await expect(page.locator("[data-problem]")).to_contain_text("program_error")
        await expect(page.locator("[data-status]")).to_contain_text("Failed")
        assert (await trace_of(page)).status == "failed"

        await open_playground(page, server, "echo")
        await page.fill('[data-field="question"]', "@@status=500@@")
        await page.click("[data-start]")
        await expect(page.locator("[data-problem]")).to_contain_text("lm_error")
        await expect(page.locator(".dspyserve-step.is-failed")).to_have_count(2)

        row = await Program.objects.aget(name="echo")
        await Program.objects.filter(pk=row.pk).aupdate(access="restricted")
        await User.objects.filter(username="ann").aupdate(is_superuser=False)
        await page.wait_for_timeout(5_000)
        await page.click("[data-start]")
        await expect(page.locator("[data-problem]")).to_contain_text("forbidden")


async def numbers_are_sent_as_they_were_typed(page: Page) -> None:
    snippet, fault = page.locator("[data-snippet]"), page.locator('[data-pointer="/inputs/count"] [data-fault]')
    await page.fill('[data-field="tags"]', '["a"]')
    await page.fill('[data-field="count"]', "12345678901234567890")
    await page.click('[data-language="curl"]')
    await expect(fault).to_contain_text("exactly")
    await expect(snippet).to_be_hidden()
    await page.fill('[data-field="count"]', "9007199254740991")
    await expect(snippet).to_contain_text('"count":9007199254740991')
    await page.fill('[data-field="tags"]', "[9007199254740993]")
    await expect(snippet).to_be_hidden()
    await page.fill('[data-field="tags"]', "[1e20, 100000000000000000000, 0.1]")
    await expect(snippet).to_be_visible()
    await page.fill('[data-field="tags"]', "[1e999]")
    await expect(page.locator('[data-pointer="/inputs/tags"] [data-fault]')).to_contain_text("exactly")


async def test_a_program_without_traces_links_to_none(server: Server) -> None:
    async with signed_in(server) as page:
        await open_playground(page, server, "untraced")
        await page.fill('[data-field="question"]', "q")
        await page.click("[data-start]")
        await expect(page.locator("[data-status]")).to_contain_text("Succeeded")
        await expect(page.locator("[data-links]")).to_be_hidden()
        await expect(page.locator("[data-message]")).to_be_empty()


WATCH = """
() => {
  const text = document.querySelector('[data-output="reasoning"] [data-text]').firstChild;
  window.lengths = [];
  new MutationObserver(() => window.lengths.push(text.length)).observe(text, { characterData: true });
}
"""


async def test_an_answer_that_could_not_be_read_is_taken_back(server: Server) -> None:
    async with signed_in(server) as page:
        await open_playground(page, server, "thinking")
        await page.fill('[data-field="question"]', f"@@fields=1@@ @@fail_times=1@@ @@id=browser@@ {SLOW}")
        await page.evaluate(WATCH)
        await page.click("[data-start]")
        await expect(page.locator("[data-status]")).to_contain_text("Succeeded", timeout=20_000)
        lengths = await page.evaluate("() => window.lengths")
        final = len(await box(page, "reasoning").text_content())
        taken_back = next(i for i, length in enumerate(lengths) if length == 0 and any(lengths[:i]))
        assert max(lengths[:taken_back]) > 100
        assert max(lengths[taken_back:]) == final
        await expect(page.locator(".dspyserve-step.is-failed .name")).to_have_text(["ChatAdapter"])
        assert (await trace_of(page)).lm_calls == 2


async def test_a_trace_is_run_again(server: Server) -> None:
    async with signed_in(server) as page:
        await sync_to_async(server.run)("echo", question=HOSTILE)
        old = await sync_to_async(wait_for_trace)("echo")
        await page.goto(f"{server.url}/admin/dspyserve/trace/{old.pk}/change/")
        await page.click("text=Run again")
        assert await page.input_value('[data-field="question"]') == HOSTILE
        before = await page.locator('[data-output="answer"] pre').first.inner_text()
        assert before == old.output_preview or before.startswith(old.output_preview[:50])
        await page.fill('[data-field="question"]', "another question")
        await page.select_option('[data-option="language_model"]', "offline")
        await page.click("[data-start]")
        await expect(page.locator("[data-status]")).to_contain_text("Succeeded")
        await expect(box(page, "answer")).to_contain_text('Demo answer to "another question"')
        assert await page.locator('[data-output="answer"] pre').first.inner_text() == before
        found = await trace_of(page)
        assert (found.replay_of_id, found.model, found.tags) == (old.pk, "demo/offline", ["replay"])
        compare = await page.locator("[data-compare-link]").get_attribute("href")
        assert compare == f"/admin/dspyserve/trace/compare/?a={old.id.hex}&b={found.id.hex}"
        await page.click("[data-trace-link]")
        await expect(page.locator(".dspyserve-replays")).to_contain_text(old.id.hex)
