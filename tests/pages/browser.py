"""Pages opened in a real Chromium from their file, and all that a page must not do there: ask for anything, complain, run what
strangers wrote.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

DESKTOP, PHONE, SMALL = (1280, 900), (390, 844), (320, 640)
MISSING = "these tests open pages in Chromium: install it (Debian: apt-get install chromium) and playwright (make dev)"


def found() -> str:
    """Where Chromium is; without it tests skip, but for those of CI, which installs it."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None or importlib.util.find_spec("playwright") is None:
        (pytest.fail if os.environ.get("SOFTLABELS_BROWSER") == "required" else pytest.skip)(MISSING)
    return program


@dataclass
class Tabs:
    """Pages of one test, and what they did that they must not."""

    browser: Browser
    problems: list[str] = field(default_factory=list)
    opened: list[Page] = field(default_factory=list)

    def open(self, path: Path, size: tuple[int, int] = DESKTOP, *, lazy: bool = False, **settings: Any) -> Page:
        """The page of a file, once it has loaded, in a window of that width and height; `settings` are the context's. Sections
        far below are drawn too, as for print, unless `lazy`.
        """
        context = self.browser.new_context(viewport={"width": size[0], "height": size[1]}, **settings)
        page = context.new_page()
        own = path.resolve().as_uri()
        context.on("request", lambda request: None if request.url == own else self._saw("request", request.url))
        page.on("console", lambda m: self._saw(m.type, m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self._saw("page error", str(error)))
        page.on("popup", lambda other: self._saw("window", other.url))
        page.on("download", lambda file: self._saw("download", file.url))
        page.on("dialog", lambda dialog: (self._saw("dialog", dialog.message), dialog.dismiss()))
        page.set_default_timeout(20_000)  # ms
        self.opened.append(page)
        page.goto(own)
        if not lazy:
            page.evaluate("dispatchEvent(new Event('beforeprint'))")
        return page

    def _saw(self, kind: str, text: str) -> None:
        self.problems.append(f"{kind}: {text[:500]}")

    def check(self) -> None:
        """Every page did nothing that it must not, and nothing that a stranger wrote ran in it."""
        ran = [page.url for page in self.opened if page.evaluate("window.__pwned") is not None]
        problems = self.problems + [f"a stranger's code ran in {url}" for url in ran]
        assert problems == [], "\n".join(problems)

    def close(self) -> None:
        for page in self.opened:
            page.context.close()


def wait_until(tab: Page, expression: str) -> None:
    """Until it is true. Playwright's `wait_for_function` has the page evaluate a text again where it was not true at once, and
    the page's policy forbids that.
    """
    end = time.monotonic() + 20
    while not tab.evaluate(expression):
        assert time.monotonic() < end, f"never: {expression}"
        tab.wait_for_timeout(10)


def too_wide(page: Page) -> list[str]:
    """What reaches over the right edge of the window, if the page can be scrolled sideways: tag, class and right edge in px.
    What scrolls inside a box of its own does not.
    """
    found: list[str] = page.evaluate(
        """() => {
            const width = document.documentElement.clientWidth;
            if (document.documentElement.scrollWidth <= width) return [];
            const boxed = (each) => each !== document.body
                && (getComputedStyle(each).overflowX !== "visible" || boxed(each.parentElement));
            return ["scrolls sideways", ...[...document.body.querySelectorAll("*")]
                .filter((each) => each.getBoundingClientRect().right > width + 1 && !boxed(each.parentElement))
                .map((each) => `${each.tagName} .${each.getAttribute("class")} ${each.getBoundingClientRect().right}`)];
        }"""
    )
    return found
