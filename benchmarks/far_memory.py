"""How much memory a pass of the loader takes at an address, beside the same store on a disk: the peak of its process.

Each pass runs in a process of its own, with a window of 16 chunks of a megabyte; what it held before the store was opened is
taken off. A page cache is nobody's memory and not counted.

    python -m benchmarks.far_memory --output benchmarks/results/far_memory.md
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import tempfile
from multiprocessing.queues import Queue
from pathlib import Path

import torch

from benchmarks.far_reading import WINDOW, reached
from benchmarks.noise import BATCH, write
from benchmarks.page import machine, publish
from benchmarks.slow_network import relay
from softlabels.jobs.share import push
from softlabels.store import open_store
from softlabels.stream import Loader
from softlabels.system.urls import depot_of
from softlabels.transfer import TransferRows
from tests.jobs.seaweed import running


def main() -> None:
    """Write the stores, read each in a process of its own, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", type=int, default=131_072)
    parser.add_argument("--classes", type=int, default=1_000)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = []
    with tempfile.TemporaryDirectory(prefix="softlabels-benchmark-") as folder, running(Path(folder)) as server:
        os.environ.update(server.environment)
        depot_of("s3://bench").put("here", b"so that the bucket is there")
        rows = write(Path(folder), options.rows, options.classes)
        with relay(server.endpoint, 0.02) as network, reached(network.endpoint):
            for layout in ("zarr", "arrow"):
                push(Path(folder) / layout, f"s3://bench/{layout}")
                for name, store in (("on the disk", f"{folder}/{layout}"), ("on S3, 20 ms", f"s3://bench/{layout}")):
                    lines.append(f"| {name}, {layout} | {peak(store, rows) / 1e6:,.0f} |")
    publish(page(lines, options), options.output)


def peak(store: str, rows: TransferRows) -> int:
    """Bytes that a pass adds to the largest size of its process."""
    context = multiprocessing.get_context("spawn")
    found: Queue[int] = context.Queue()
    process = context.Process(target=_pass, args=(store, rows, found))
    process.start()
    process.join()
    return found.get(timeout=10)


def _pass(store: str, rows: TransferRows, found: Queue[int]) -> None:
    torch.set_num_threads(1)
    before = largest()
    for _ in Loader(rows, open_store(store), batch_size=BATCH, seed=0, window=WINDOW).epoch(0):
        pass
    found.put(largest() - before)


def largest() -> int:
    """The largest size that this process had, in bytes. What `getrusage` says of it begins with that of its parent."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def page(lines: list[str], options: argparse.Namespace) -> str:
    """The results with what they were taken on."""
    size = options.rows * options.classes * 2 / 1e6
    return "\n".join(
        [
            "# Memory of a pass over a store where it lies\n",
            f"One shuffled pass over {options.rows:,} rows of {options.classes:,} classes ({size:,.0f} MB) in windows of",
            f"{WINDOW} chunks of 1 MB, each in a process of its own: what it adds to the process's largest size.\n",
            "| store | MB |",
            "|---|---|",
            *lines,
            "",
            machine("torch", "obstore", "numpy"),
            "",
        ]
    )


if __name__ == "__main__":
    main()
