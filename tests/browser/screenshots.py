"""Pictures of pages, light and dark, wide and narrow: `python -m tests.browser.screenshots DIRECTORY [NAME ...]`."""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from pathlib import Path

import django
from django.core.management import call_command


def main() -> None:
    """Make the sample in a database of its own, serve it, and take the pictures."""
    parser = argparse.ArgumentParser(prog="python -m tests.browser.screenshots", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("names", nargs="*", help="of pages; all of them by default")
    parser.add_argument("--unfold", action="store_true", help="under the theme django-unfold")
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="dspyserve-screenshots-") as scratch:
        database = f"{scratch}/db.sqlite3"
        os.environ |= {
            "DSPYSERVE_TESTS_DIRECTORY": scratch,
            "DSPYSERVE_TESTS_DATABASE": database,
            "DATABASE_URL": f"sqlite:///{database}",
        }
        os.environ["DJANGO_SETTINGS_MODULE"] = "tests.browser.unfold_settings" if options.unfold else "tests.settings"
        django.setup()
        call_command("migrate", verbosity=0)
        _serve_and_take(options.directory, options.names)


def _serve_and_take(directory: Path, names: list[str]) -> None:
    from tests.browser.pages import PAGES
    from tests.browser.sample import make
    from tests.browser.signing_in import session_of
    from tests.server import Server

    sample = make()
    addresses = {page.name: page.address(sample) for page in PAGES if not names or page.name in names}
    server = Server("uvicorn", {"DJANGO_SETTINGS_MODULE": os.environ["DJANGO_SETTINGS_MODULE"]})
    try:
        asyncio.run(_take(directory, server.url, session_of(sample.user), addresses))
    finally:
        server.terminate()


async def _take(directory: Path, url: str, session: str, addresses: dict[str, str]) -> None:
    from tests.browser.chromium import LOOKS, chromium, page_in

    async with chromium() as browser:
        for look in LOOKS:
            async with page_in(browser, url, session, look) as page:
                for name, address in addresses.items():
                    await page.goto(address)
                    path = directory / f"{name}-{look.width}-{look.scheme}.png"
                    await page.screenshot(path=path, full_page=True)
                    print(path)


if __name__ == "__main__":
    main()
