"""What a report of a large store costs: seconds, processor seconds and peak memory of `softlabels report`, the bytes of the
page, and how long Chromium takes from opening it to its last plot, on the clock and of the tab's process. No runs; the stores
hold labels of noise, of which a few rows are repeated under other keys.

    python -m benchmarks.report --output benchmarks/results/report.md
    python -m benchmarks.report --stores "400 rows, 151,936 classes"
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.page import machine, publish
from softlabels.labels.encoding import DenseEncoding, Encoding, TopkEncoding
from softlabels.store import StoreWriter
from softlabels.store.new_spec import store_spec

POOL = 64  # rows whose labels are made; the others repeat them


@dataclass(frozen=True)
class Shape:
    """Rows, classes and members; the tail of topk labels, "" of dense ones."""

    rows: int
    classes: int
    members: int
    tail: str = ""


SHAPES = {
    "10,000 rows, 10 classes, 3 members": Shape(10_000, 10, 3),
    "1,000,000 rows, 10 classes, 3 members": Shape(1_000_000, 10, 3),
    "100,000 rows, 1,000 classes": Shape(100_000, 1_000, 1),
    "1,000 rows, 21,841 classes, 3 members": Shape(1_000, 21_841, 3),
    "400 rows, 151,936 classes": Shape(400, 151_936, 1),
    "100,000 rows, 151,936 classes, lowrank": Shape(100_000, 151_936, 1, "lowrank"),
    "20,000 rows, 151,936 classes, 3 members, lowrank": Shape(20_000, 151_936, 3, "lowrank"),
    "20,000 rows, 151,936 classes, 3 members, renormalised": Shape(20_000, 151_936, 3, "renormalised"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Make stores and their pages, open these, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--stores", nargs="+", choices=SHAPES, default=[*SHAPES], help="which of them; all by default")
    parser.add_argument("--rounds", type=int, default=3, help="how often a page is opened")
    parser.add_argument("--output", type=Path, help="also write the table here")
    options = parser.parse_args(argv)
    lines = [
        "| store | seconds | processor seconds | peak memory | page | all drawn after | processor time of that |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in options.stores:
        with tempfile.TemporaryDirectory(prefix="softlabels-benchmark-") as folder:
            make(Path(folder) / "noise" / "train", SHAPES[name])
            lines.append(line(Path(folder), name, options.rounds))
    text = "\n".join(["# Report", "", f"{machine('torch', 'vl-convert-python')}", "", *lines, ""])
    publish(text, options.output)


def make(path: Path, shape: Shape) -> None:
    """A store in which one class of each row is far above the others, and 3% of the hard labels are another one."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((POOL, shape.members, shape.classes), np.float32) * 2
    truth = rng.integers(0, shape.classes, POOL)
    z[np.arange(POOL), :, truth] += 14
    encoding, basis = _encoding(shape, rng)
    columns, lost = encoding.encode(torch.from_numpy(z), basis=None if basis is None else torch.from_numpy(basis))
    labels = truth[np.arange(shape.rows) % POOL]
    labels = np.where(rng.random(shape.rows) < 0.03, rng.integers(0, shape.classes, shape.rows), labels)
    keys = rng.integers(0, 256, (shape.rows, 16), np.uint8)
    spec = store_spec(
        encoding, teacher="noise", name="noise", keys=keys, classes=shape.classes, members=shape.members, basis=basis
    )
    dtype = next(each.dtype for each in spec.columns if each.name == "label")
    with StoreWriter(path, spec, basis=basis) as writer:
        for shard in range(spec.shards):
            rows = np.array(spec.shard_rows(shard))
            own = {name: values[rows % POOL] for name, values in columns.items()}
            writer.write_columns(shard, keys=keys[rows], labels=labels[rows].astype(dtype), columns=own, fidelity=lost)
        writer.seal(checked=True)


def _encoding(shape: Shape, rng: np.random.Generator) -> tuple[Encoding, np.ndarray | None]:
    if not shape.tail:
        return DenseEncoding(), None
    if shape.tail != "lowrank":
        return TopkEncoding(k=64, tail="renormalised", nodes=0), None
    encoding = TopkEncoding(k=64, tail="lowrank", rank=64, fine=16)
    return encoding, (rng.standard_normal((65, shape.classes)) / 2).astype(np.float16)


def line(folder: Path, name: str, rounds: int) -> str:
    """A line of the table. The command runs in a process of its own, and the most that it held is its alone."""
    page, code = folder / "page.html", "from softlabels_stages.__main__ import main; raise SystemExit(main())"
    begin = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603 (our own command)
        [sys.executable, "-c", code, "report", str(folder / "noise"), f"--out={page}"], stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # threads that wait for each other would count as work
    )  # fmt: skip
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, name
    seconds, spent = time.perf_counter() - begin, used.ru_utime + used.ru_stime
    drawn, processor = opened(page, rounds)
    size, memory = page.stat().st_size / 1e6, used.ru_maxrss / 2**20
    cells = f"{seconds:.1f} | {spent:.1f} | {memory:.2f} GiB | {size:.2f} MB | {drawn:.2f} s | {processor:.2f} s"
    return f"| {name} | {cells} |"


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
            tab.wait_for_selector("html[data-drawn]", state="attached", timeout=60_000)
            seconds = time.perf_counter() - begin
            measured = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
            found.append((seconds, measured["ProcessTime"]))
            tab.close()
        browser.close()
    first, second = (statistics.median(part) for part in zip(*found, strict=True))
    return first, second


if __name__ == "__main__":
    main()
