"""How many rows of soft labels the Loader gives in a second of CPU time, beside random rows of a plain memmap.

CPU time of all threads, so that a busy machine tells the same as an idle one; every way runs an epoch in each round, and what
counts is the ratio to the memmap of the same round. `--before` is a folder of another version of this repository, whose loader
takes turns with this one's, on the same stores.

    python -m benchmarks.loader_cpu --before ../before --output benchmarks/results/loader_cpu.md
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.noise import write
from benchmarks.page import machine, publish

ROOT = Path(__file__).parent.parent
MEMMAP = "numpy memmap, random rows"
WAYS = {  # layout and check of a loader
    "Loader, zarr, second epoch on": ("zarr", "first"),
    "Loader, arrow, second epoch on": ("arrow", "first"),
    "Loader, zarr, first epoch": ("zarr", "always"),
    "Loader, arrow, first epoch": ("arrow", "always"),
}
ASKED = """
import sys, time
from pathlib import Path
import numpy as np, torch
from softlabels.objects import ObjectSpec
from softlabels.store import open_store
from softlabels.stream import Loader
from softlabels.transfer import TransferRows

torch.set_num_threads(1)
folder = Path(sys.argv[1])
keys, labels = np.load(folder / "keys.npy"), np.load(folder / "labels.npy")
memmap = np.load(folder / "logits.npy", mmap_mode="r")
rows = TransferRows(name="noise", split="train", revision=None, source="", inputs=np.zeros((len(keys), 1), np.uint8),
                    keys=keys, labels=labels, class_names=None, prepare=ObjectSpec("none"))
loaders = {}

def batches(layout, check, epoch):
    if layout == "memmap":
        order = np.random.default_rng(epoch).permutation(len(keys))
        return (torch.from_numpy(memmap[order[at:at + 512]]) for at in range(0, len(keys), 512))
    if (layout, check) not in loaders:
        store = open_store(folder / layout, check=check)
        loaders[layout, check] = Loader(rows, store, batch_size=512, seed=0)
    return loaders[layout, check].epoch(epoch)

for epoch, line in enumerate(sys.stdin):
    begun = time.process_time()
    count = sum(len(batch) for batch in batches(*line.split(), epoch))
    print(count / (time.process_time() - begun), flush=True)
"""


def main() -> None:
    """Write the stores, let all ways take turns, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=1_000)
    parser.add_argument(
        "--rounds", type=int, default=12, help="every way runs once a round; one before them is not counted"
    )
    parser.add_argument("--before", type=Path, help="a folder of the version to compare with")
    parser.add_argument("--output", type=Path, help="also write the table here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="softlabels-benchmark-") as folder:
        rows = write(Path(folder), options.rows, options.classes)
        np.save(Path(folder) / "keys.npy", rows.keys)
        np.save(Path(folder) / "labels.npy", rows.labels)
        versions = ({} if options.before is None else {"before": options.before}) | {"now": ROOT}
        asked = {name: Asked(version, Path(folder)) for name, version in versions.items()}
        rates: dict[tuple[str, str], list[float]] = {}
        for number in range(options.rounds + 1):
            for version, name, way in [("now", MEMMAP, ("memmap", "-"))] + [
                (version, name, way) for name, way in WAYS.items() for version in versions
            ]:
                rate = asked[version].rate(*way)
                if number:
                    rates.setdefault((name, version), []).append(rate)
    publish(report(rates, options), options.output)


class Asked:
    """A process of one version, which runs an epoch whenever it is asked."""

    def __init__(self, version: Path, folder: Path) -> None:
        path = os.pathsep.join(str(version.resolve() / source) for source in ("pipeline", "stages"))
        self._process = subprocess.Popen(  # noqa: S603  # our own command
            [sys.executable, "-c", ASKED, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": path},
        )  # fmt: skip

    def rate(self, layout: str, check: str) -> float:
        """Rows a second of CPU time."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{layout} {check}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())


def report(rates: dict[tuple[str, str], list[float]], options: argparse.Namespace) -> str:
    """A Markdown page."""
    plain = rates[MEMMAP, "now"]
    lines = [
        "# How many rows of soft labels the Loader gives in a second of CPU time",
        "",
        f"{options.rows:,} x {options.classes:,} float16, chunks of 512 rows, batches of 512, page cache warm; "
        f"{options.rounds} rounds, in each of which every way runs one epoch. In a first epoch every chunk's digest and values",
        "are checked. The ratio is to the memmap of the same round: median (least to most).",
        "",
        machine("torch", "numpy", "blake3"),
        "",
        "| how | version | best, krows/CPU s | median, krows/CPU s | ratio to the memmap |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for (name, version), found in rates.items():
        ratios = [each / other for each, other in zip(found, plain, strict=True)]
        lines.append(
            f"| {name} | {version} | {max(found) / 1e3:,.0f} | {statistics.median(found) / 1e3:,.0f} | "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
