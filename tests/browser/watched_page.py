"""A page in a real Chromium, without a network, with everything that goes wrong written down."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BAD = ("error", "warning")
LAPTOP = {"width": 1366, "height": 768}


def find_chromium() -> str | None:
    """Path of a Chromium that is installed, or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for path in map(shutil.which, names) if path), None)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start Chromium; without its sandbox, which refuses to run as root."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(), args=["--no-sandbox", "--disable-gpu"]
        )
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class WatchedPage:
    """A page and what went wrong on it.

    Attributes:
        page: Playwright's page.
        errors: Errors and warnings on the console, and exceptions nobody caught.
        requests: Addresses of all that was asked for.
    """

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def evaluate(self, expression: str) -> Any:
        return self.page.evaluate(expression)

    def wait_for(self, expression: str, value: Any, seconds: float = 20.0) -> None:
        """Wait for a value; the page's policy allows playwright no waiting of its own."""
        end = time.monotonic() + seconds
        while (found := self.evaluate(expression)) != value:
            assert time.monotonic() < end, f"{expression} stayed {found}, not {value}"
            self.page.wait_for_timeout(30)


@contextmanager
def watched(browser: Browser, path: Path, **options: Any) -> Iterator[WatchedPage]:
    """Open a file offline, in a profile of its own."""
    context = browser.new_context(offline=True, **{"viewport": LAPTOP, **options})
    try:
        page = context.new_page()
        seen = WatchedPage(page)
        page.on("console", lambda m: seen.errors.append(m.text) if m.type in BAD else None)
        page.on("pageerror", lambda error: seen.errors.append(str(error)))
        page.on("request", lambda request: seen.requests.append(request.url))
        page.goto(path.resolve().as_uri())
        page.wait_for_load_state("load")
        yield seen
    finally:
        context.close()
