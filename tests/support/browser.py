"""Debian's Chromium, driven by Playwright."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Locator, Page, sync_playwright

#: Without a GPU, a sandbox or calls home.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WIDE = (1280, 1000)


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=[*FLAGS])
        yield browser
        browser.close()


@contextmanager
def visiting(address: str) -> Iterator[Page]:
    """One page in a window of its own."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": WIDE[0], "height": WIDE[1]})
        page.goto(address)
        yield page


def downloaded(link: Locator, folder: Path) -> Path:
    """Click it; the file under the name that it came with."""
    with link.page.expect_download() as download:
        link.click()
    file = folder / download.value.suggested_filename
    download.value.save_as(file)
    return file
