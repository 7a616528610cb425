"""How many rows of soft labels other people's training loops get through torch's `DataLoader`, for a second of processor time.

What we give them, beside our own loader, and a data set over a plain .npy file of the same logits (no store, no check), without
workers and with two. Random rows behind a cache that holds a third of the labels, row by row, are what one had before. Time is
that of this process and its workers, from the first batch asked to the last, with their start; ours checks each chunk once, in
the first epoch, which is not counted.

    python -m benchmarks.loops --rows 100000 --classes 1000 --output benchmarks/results/loops.md
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Sized
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from benchmarks.noise import BATCH, write
from benchmarks.page import machine, publish
from softlabels.store import open_store
from softlabels.stream import Loader, SoftLabelBatches, SoftLabelDataset

SECONDS = 6.0  # a way that is not through with its epoch by then is judged by the rows that it gave
Ways = dict[str, Callable[[], Iterable[Any]]]


class Plain(Dataset[dict[str, Tensor]]):
    """Rows of an array that is mapped from a file, as one writes it in five lines."""

    def __init__(self, path: Path) -> None:
        self.logits = np.load(path, mmap_mode="r")

    def __len__(self) -> int:
        return len(self.logits)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"row": torch.tensor(index), "logits": torch.from_numpy(self.logits[index].copy())}


def main() -> None:
    """Write the store, time every way in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3, help="every way runs once a round")
    parser.add_argument("--cache", type=int, default=1 << 26, help="bytes of chunks that a data set keeps")
    parser.add_argument("--output", type=Path, help="also write the table here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="softlabels-benchmark-") as folder:
        ways = all_ways(Path(folder), options.rows, options.classes, options.cache)
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, way in ways.items():
                found[name].append(rates(way()))
    publish(report(found, options), options.output)


def all_ways(folder: Path, rows: int, classes: int, cache: int) -> Ways:
    """Each begins a pass."""
    transfer = write(folder, rows, classes)
    loader = Loader(transfer, open_store(folder / "zarr"), batch_size=BATCH, seed=0)
    batches = SoftLabelBatches(loader)
    data = SoftLabelDataset(transfer, open_store(folder / "zarr"), cache_bytes=cache)
    plain = Plain(folder / "logits.npy")
    for first in (loader.epoch(0), DataLoader(data, BATCH, sampler=data.windows(seed=0))):
        deque(first, maxlen=0)

    def fed(workers: int) -> Ways:
        many = f"{workers} workers"
        return {
            f"SoftLabelBatches, {many}": lambda: DataLoader(batches, None, num_workers=workers),
            f"SoftLabelDataset, windows, {many}": lambda: DataLoader(
                data, BATCH, sampler=data.windows(seed=0), num_workers=workers
            ),
            f"plain .npy, random rows, {many}": lambda: DataLoader(plain, BATCH, shuffle=True, num_workers=workers),
        }

    return {
        "Loader": lambda: loader.epoch(1),
        **fed(0),
        "SoftLabelDataset, random rows, 0 workers": lambda: DataLoader(data, BATCH, shuffle=True),
        "the same, taken apart and stacked again": lambda: DataLoader(data, BATCH, shuffle=True, collate_fn=row_by_row),
        **fed(2),
    }


def row_by_row(rows: Iterable[dict[str, Tensor]]) -> Any:
    """As the default collate function does with data sets that know nothing of it."""
    return default_collate([dict(row) for row in rows])


def rates(batches: Iterable[Any]) -> tuple[float, float]:
    """Rows for a second of processor time, and for one of the clock."""
    rows, start, spent = 0, time.perf_counter(), processor_time()
    iterator = iter(batches)
    for batch in iterator:
        rows += count(batch)
        if time.perf_counter() - start > SECONDS:
            break
    wall = time.perf_counter() - start
    del iterator  # workers count once they have ended
    return rows / (processor_time() - spent), rows / wall


def count(batch: Sized | dict[str, Tensor]) -> int:
    """Rows of a batch."""
    return len(batch["row"]) if isinstance(batch, dict) else len(batch)


def processor_time() -> float:
    """Of this process, and of those that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def report(found: dict[str, list[tuple[float, float]]], options: argparse.Namespace) -> str:
    """A Markdown page."""
    lines = [
        "# How many rows of soft labels other training loops get through torch's `DataLoader`",
        "",
        f"{options.rows:,} x {options.classes:,} float16, chunks and batches of {BATCH} rows, a cache of "
        f"{options.cache >> 20} MiB, page cache warm; best of {options.rounds} rounds, in each of which every way runs once. "
        "Processor time is that of the process and its workers; by the clock other work of the machine counts too.",
        "",
        machine("torch", "numpy", "zarr", "blake3"),
        "",
        "| how | krows a CPU-second, best | median | krows a second, best |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, rounds in found.items():
        cpu, wall = zip(*rounds, strict=True)
        best, median, clock = (f"{each / 1e3:,.1f}" for each in (max(cpu), statistics.median(cpu), max(wall)))
        lines.append(f"| {name} | {best} | {median} | {clock} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
