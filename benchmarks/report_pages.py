"""Reports as a browser opens them: bytes, seconds until all is drawn, and the picture of the README.

python -m benchmarks.report_pages digits.html lm.html [--picture=docs/report.png]

The pages are those that `softlabels report` writes. It opens each a few times in Debian's Chromium and prints the median; the
picture is of the first page: the slider, histograms and some rows, at T = 4.
"""

from __future__ import annotations

import argparse
import io
import shutil
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

TIMES = 3
SIZE = (1000, 760)


def main() -> None:
    """Print the table; draw the picture where one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path, help="files that softlabels report wrote")
    parser.add_argument("--picture", type=Path, help="where the picture of the first one goes; none by default")
    args = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        print(
            f"Chromium {browser.version}\n\n"
            "| page | MB | seconds until ready | of the processor | until all is drawn | of the processor |\n"
            "| --- | --- | --- | --- | --- | --- |"
        )
        for path in args.pages:
            found = zip(*(opened(browser, path) for _ in range(TIMES)), strict=True)
            cells = " | ".join(f"{statistics.median(each):.2f}" for each in found)
            print(f"| {path.stem} | {path.stat().st_size / 1e6:.2f} | {cells} |")
        if args.picture:
            picture(browser, args.pages[0]).save(args.picture, optimize=True)
        browser.close()


def opened(browser: Browser, path: Path) -> tuple[float, ...]:
    """Seconds from the request until what the window shows is drawn and answers, and those of the processor that Chromium's
    processes took; and both until every plot is drawn.
    """
    page = browser.new_page()
    session = browser.new_browser_cdp_session()

    def spent() -> float:
        return sum(float(each["cpuTime"]) for each in session.send("SystemInfo.getProcessInfo")["processInfo"])

    began, before, found = time.perf_counter(), spent(), []
    page.goto(path.resolve().as_uri())
    for mark in ("ready", "drawn"):
        page.wait_for_selector(f"[data-{mark}]", state="attached")
        found += [time.perf_counter() - began, spent() - before]
    session.detach()
    page.close()
    return tuple(found)


def drawn(page: Page, path: Path) -> None:
    """Open the file, and wait for the last plot."""
    page.goto(path.resolve().as_uri())
    page.wait_for_selector("[data-drawn]", state="attached")


def picture(browser: Browser, path: Path) -> Image.Image:
    """The page's top, its histograms and two rows, one below the other, in 128 colours."""
    page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]})
    drawn(page, path)
    page.fill("#temperature-number", "4")
    page.locator("h1").click()
    page.wait_for_timeout(500)
    page.add_style_tag(content=".bar { position: static !important }")
    places = ("header", "#temperature-bar", "#store-0 h3", "#store-0 .pair", "#rows-0 .row-legend", "#rows-0 .row")
    shots = []
    for place in places:
        found = page.locator(place)
        shots += [Image.open(io.BytesIO(found.nth(n).screenshot())) for n in range(2 if place == places[-1] else 1)]
    whole = Image.new("RGB", (SIZE[0], sum(each.height + 12 for each in shots)), "white")
    top = 12
    for each in shots:
        whole.paste(each, (16, top))
        top += each.height + 12
    return whole.quantize(128)


if __name__ == "__main__":
    main()
