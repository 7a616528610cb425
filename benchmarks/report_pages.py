"""Reports as a browser opens them: bytes, seconds until all near the window is drawn, and pictures for README and gallery.

python -m benchmarks.report_pages digits.html lm.html [--picture=docs/report.png]
python -m benchmarks.report_pages --data=FOLDER --make=build/reports

The pages are those that `softlabels report` writes; the second command first makes those of all kinds (`report_kinds`) that are
not there yet. Each is opened a few times in Debian's Chromium, and the medians are printed. The picture is of the first page,
at T = 4: the slider, histograms and a row, or what `--show` names. The gallery's are

    --show '#rows-0 .row-legend' '#rows-0 .row' --width=760 --picture=docs/gallery/text.png   of the report of text.yaml
    --show '#rows-0 .row-boxes' '#rows-0 .row' --width=760 --picture=docs/gallery/boxes.png   of the report of detect
    --show header '#part-5' --width=720 --picture=docs/gallery/plan.png                       of softlabels plan ag_news
"""

from __future__ import annotations

import argparse
import io
import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from benchmarks.report_kinds import KINDS, make

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SIZE = (1000, 760)
SHOWN = ("header", "#temperature-bar", "#store-0 h3", "#store-0 .pair", "#rows-0 .row-legend", "#rows-0 .row")


def main() -> None:
    """Print the table; draw the picture where one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", type=Path, help="files that softlabels report wrote")
    parser.add_argument(
        "--make", type=Path, help="a folder in which the reports of all kinds are made, and then opened"
    )
    parser.add_argument("--data", type=Path, default=Path("data"), help="the folder of the folders with their rows")
    parser.add_argument("--picture", type=Path, help="where the picture of the first one goes; none by default")
    parser.add_argument(
        "--show", nargs="+", default=SHOWN, help="its parts, from top to bottom: the first of each selector"
    )
    parser.add_argument("--width", type=int, default=SIZE[0], help="pixels of the page")
    parser.add_argument("--times", type=int, default=3, help="how often each page is opened; 0 for the picture alone")
    args = parser.parse_args()
    pages: list[Path] = args.pages
    if args.make:
        pages = [*pages, *(make(name, args.data, args.make) for name in KINDS)]
    if not pages:
        parser.error("name pages, or a folder for --make")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        if args.times:
            print(f"Chromium {browser.version}\n")
            print("| report | MB | seconds until ready | of the processor | until all is drawn | of the processor |")
            print("| --- | --- | --- | --- | --- | --- |")
        for path in pages if args.times else ():
            found = zip(*(opened(browser, path) for _ in range(args.times)), strict=True)
            cells = " | ".join(f"{statistics.median(each):.2f}" for each in found)
            shows = f": {KINDS[path.stem].shows}" if path.stem in KINDS else ""
            print(f"| `{path.stem}`{shows} | {path.stat().st_size / 1e6:.2f} | {cells} |")
        if args.picture:
            picture(browser, pages[0], args.show, args.width).save(args.picture, optimize=True)
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
    """Open the file, and wait for the last plot near the window."""
    page.goto(path.resolve().as_uri())
    page.wait_for_selector("[data-drawn]", state="attached")


def picture(browser: Browser, path: Path, show: Sequence[str], width: int) -> Image.Image:
    """Parts of a page below each other, at T = 4 where it has a slider, in 128 colours."""
    page = browser.new_page(viewport={"width": width, "height": SIZE[1]})
    drawn(page, path)
    if page.locator("#temperature-number").count():
        page.fill("#temperature-number", "4")
        page.locator("h1").click()
        page.wait_for_timeout(500)
        page.add_style_tag(content=".bar { position: static !important }")
    shots = [Image.open(io.BytesIO(page.locator(each).first.screenshot())) for each in show]
    whole = Image.new("RGB", (width, 12 + sum(each.height + 12 for each in shots)), "white")
    top = 12
    for each in shots:
        whole.paste(each, ((width - each.width) // 2, top))
        top += each.height + 12
    return whole.quantize(128)


if __name__ == "__main__":
    main()
