"""Measurements of one peer, in an interpreter of its own: prints a line of JSON, by the module's ways of reading.

    python -m benchmarks.peers.run write,read MODULE SOURCE FOLDER [--workers=2]
    python -m benchmarks.peers.run stop       MODULE SOURCE FOLDER --place=PLACE
    python -m benchmarks.peers.run resume     MODULE SOURCE FOLDER --place=PLACE

`write` takes the columns of SOURCE into FOLDER. `read` gives two epochs, or up to five until --seconds of the processor have
gone; the first counts from the opening of the files. With --workers it reads by those ways alone that are a `DataLoader`.
`first` opens and gives a batch. `stop` gives an epoch, then 60% of it once more, and leaves the place that the peer keeps in
the folder PLACE; `resume` goes on from there, in another process, and says which rows were lost and repeated. Seconds of the
processor are those of all threads, and of worker processes, which have ended by then. The first batch of each way is compared
with SOURCE.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pickle
import resource
import time
from collections.abc import Sequence
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.peers.columns import Columns, read
from benchmarks.peers.reader import BATCH, CHUNK, Reader, Way

LEAST, MOST = 2, 5  # epochs
STOPPED = 0.6
Found = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("modes", help="one or several of write, read, first, stop, resume, by commas")
    parser.add_argument("module", help="of benchmarks.peers")
    parser.add_argument("source", type=Path, help="folder of the columns")
    parser.add_argument("folder", type=Path, help="of the peer's own format")
    parser.add_argument("--workers", type=int, default=0, help="processes that read")
    parser.add_argument("--seconds", type=float, default=2.0, help="of the processor, in which epochs begin")
    parser.add_argument("--place", type=Path, help="folder of what `stop` leaves for `resume`")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    module = importlib.import_module(f"benchmarks.peers.{options.module}")
    columns = read(options.source)
    ways: dict[str, Way] = {name: way for name, way in module.WAYS.items() if way.in_dataloader or not options.workers}
    found: dict[str, Found] = {}
    for mode in options.modes.split(","):
        if mode == "write":
            found[mode] = write(module, columns, options.folder)
        else:
            measure = {"read": timed, "first": first_batch, "stop": stop, "resume": resume}[mode]
            each = {name: measure(way, n, columns, options) for n, (name, way) in enumerate(ways.items())}
            found[mode] = {name: each[name] | {"shuffle": way.shuffle} for name, way in ways.items()}
    print(json.dumps({"found": found, "versions": {package: version(package) for package in module.PACKAGES}}))


def clock() -> NDArray[np.float64]:
    """Seconds by the wall, and of the processor."""
    mine, theirs = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return np.array([time.perf_counter(), mine.ru_utime + mine.ru_stime + theirs.ru_utime + theirs.ru_stime])


def own_clock() -> NDArray[np.float64]:
    """The same, of this thread alone: what others read meanwhile is their work."""
    return np.array([time.perf_counter(), time.thread_time()])


def since(began: NDArray[np.float64]) -> dict[str, float]:
    """What it took."""
    wall, cpu = clock() - began
    return {"wall_s": float(wall), "cpu_s": float(cpu)}


def peak(begin: bool = False) -> float:
    """Most memory that this process held since the last call with `begin`, in MB; mapped files are among it."""
    if begin:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1000


def write(module: Any, columns: Columns, folder: Path) -> Found:
    """Rows, bytes of the columns and of the files, and time."""
    folder.mkdir(parents=True)
    before, began = peak(begin=True), clock()
    module.write(folder, columns)
    took = since(began) | {"peak_mb": peak() - before}
    stored = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        "rows": len(columns["row"]),
        "bytes": sum(each.nbytes for each in columns.values()),
        "stored": stored,
        **took,
    }


def timed(way: Way, number: int, columns: Columns, options: argparse.Namespace) -> Found:
    """Epochs."""
    before, began = peak(begin=True), clock()
    reader = way.open(options.folder, BATCH, options.workers)
    epochs: list[dict[str, float]] = []
    first: dict[str, float] = {}
    while len(epochs) < LEAST or (len(epochs) < MOST and since(began)["cpu_s"] < options.seconds):
        start, rows = clock() if epochs else began, 0
        for batch in reader.epoch(len(epochs)):
            rows += len(batch["row"])
            if not first:
                first, paused = since(began), own_clock()
                check(batch, columns)
                start = start + (own_clock() - paused)
        epochs.append({"rows": rows, **since(start)})
    most = peak() - before
    rows_of_8 = [np.array(batch["row"].tolist()) for batch in islice(reader.epoch(MOST), 8)]
    mixed = float(np.median([len(np.unique(each // CHUNK)) for each in rows_of_8]))
    return {"first": first, "epochs": epochs, "peak_mb": most, "mixed": mixed}


def first_batch(way: Way, number: int, columns: Columns, options: argparse.Namespace) -> Found:
    """Of an epoch."""
    began = clock()
    next(iter(way.open(options.folder, BATCH, options.workers).epoch(0)))
    return since(began)


def stop(way: Way, number: int, columns: Columns, options: argparse.Namespace) -> Found:
    """A whole epoch, 60% of it by another reader, and the place."""
    options.place.mkdir(exist_ok=True)
    whole = given(way.open(options.folder, BATCH, 0), None, len(columns["row"]))
    reader = way.open(options.folder, BATCH, 0)
    part = given(reader, None, int(STOPPED * len(columns["row"])))
    state = reader.state()
    np.savez(options.place / f"{number}.npz", whole=whole, part=part)
    (options.place / str(number)).write_bytes(pickle.dumps(state))
    return {"keeps": state is not None}


def resume(way: Way, number: int, columns: Columns, options: argparse.Namespace) -> Found:
    """The rest of the epoch, or all of it where the peer keeps no place."""
    state = pickle.loads((options.place / str(number)).read_bytes())  # noqa: S301  `stop` wrote it a moment ago
    before, rows = np.load(options.place / f"{number}.npz"), len(columns["row"])
    began = clock()
    batches = iter(way.open(options.folder, BATCH, 0).epoch(0, state))
    given_first = next(batches)["row"]
    first = since(began)
    rest = np.concatenate([np.array(given_first.tolist()), *(np.array(batch["row"].tolist()) for batch in batches)])
    seen = np.bincount(np.concatenate([before["part"], rest]), minlength=rows)
    return {
        "keeps": state is not None,
        "first": first,
        "lost": int((seen == 0).sum()),
        "repeated": int(np.maximum(seen - 1, 0).sum()),
        "same_order": bool(np.array_equal(rest, before["whole"][len(before["part"]) :])),
    }


def given(reader: Reader, state: Any, most: int) -> NDArray[np.int64]:
    """Numbers of the rows of so many rows' batches."""
    rows: list[int] = []
    batches = iter(reader.epoch(0, state))
    while len(rows) < most and (batch := next(batches, None)) is not None:
        rows += batch["row"].tolist()
    return np.array(rows)


def check(batch: Any, columns: Columns) -> None:
    """Raises where a batch is not what was written."""
    rows = np.array(batch["row"].tolist())
    for name, values in columns.items():
        if torch.as_tensor(batch[name]).numpy().tobytes() != values[rows].tobytes():
            raise ValueError(f"the column {name} of a batch is not what was written")


if __name__ == "__main__":
    main()
