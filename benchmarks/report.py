"""What a report of a large store costs: seconds, processor seconds and peak memory of `softlabels report`, the bytes of the
page, and how long Chromium takes from opening it to its last plot, on the clock and of the tab's process. No runs; the store
holds three members' dense labels of noise.

    python -m benchmarks.report --output benchmarks/results/report.md
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.page import machine, publish
from softlabels import write_store

DRAWN = "() => [...document.querySelectorAll('.plot')].every((each) => each.querySelector('svg'))"


def main(argv: Sequence[str] | None = None) -> None:
    """Make stores and their pages, open these, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3, help="how often a page is opened")
    parser.add_argument("--output", type=Path, help="also write the table here")
    options = parser.parse_args(argv)
    lines = [
        "| rows | seconds | processor seconds | peak memory | page | all drawn after | processor time of that |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for rows in options.rows:
        with tempfile.TemporaryDirectory(prefix="softlabels-benchmark-") as folder:
            lines.append(line(Path(folder), rows, options))
    shape = f"{options.members} members, {options.classes} classes, dense"
    text = "\n".join(["# Report", "", f"{shape}. {machine('torch', 'vl-convert-python')}", "", *lines, ""])
    publish(text, options.output)


def line(folder: Path, rows: int, options: argparse.Namespace) -> str:
    """A line of the table."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((rows, options.members, options.classes), np.float32) * 3
    keys = rng.integers(0, 256, (rows, 16), np.uint8)
    labels = logits.mean(axis=1).argmax(axis=1)
    write_store(folder / "noise" / "train", logits, keys=keys, labels=labels)
    page, code = folder / "page.html", "from softlabels_stages.__main__ import main; raise SystemExit(main())"
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    words = [sys.executable, "-c", code, "report", str(folder / "noise"), f"--out={page}"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 (our own command)
    seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    drawn, processor = opened(page, options.rounds)
    size, memory = page.stat().st_size / 1e6, after.ru_maxrss / 2**20
    return f"| {rows:,} | {seconds:.1f} | {used:.1f} | {memory:.2f} GiB | {size:.2f} MB | {drawn:.2f} s | {processor:.2f} s |"


def opened(page: Path, rounds: int) -> tuple[float, float]:
    """Seconds (medians) until the last plot of a page is drawn, and the tab's processor seconds until then."""
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for _ in range(rounds):
            tab = browser.new_page()
            session = tab.context.new_cdp_session(tab)
            session.send("Performance.enable")
            begin = time.perf_counter()
            tab.goto(page.as_uri())
            while not tab.evaluate(DRAWN):  # `wait_for_function` would ask from inside, which the page's policy forbids
                tab.wait_for_timeout(5)
            seconds = time.perf_counter() - begin
            measured = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
            found.append((seconds, measured["ProcessTime"]))
            tab.close()
        browser.close()
    first, second = (statistics.median(part) for part in zip(*found, strict=True))
    return first, second


if __name__ == "__main__":
    main()
