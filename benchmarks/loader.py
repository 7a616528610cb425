"""How many rows of soft labels a shuffled loader gives in a second.

Ours beside the ways in which one would read the same labels without it: a NumPy memmap (the ceiling: no store, no
check), zarr-python and Hugging Face `datasets` on the very same store, and hard labels only. Every reader ends with torch
tensors of a batch in random order; inputs are one byte a row, so that labels alone are timed. Peers read the logits
only, our loader all of a store's columns but the key.

    python -m benchmarks.loader --rows 100000 --classes 1000 --output benchmarks/results/loader.md
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import numpy as np
import torch
import zarr
from torch.utils.data import DataLoader

from benchmarks.page import machine, publish
from softlabels.objects import ObjectSpec
from softlabels.store import StoreWriter, open_store
from softlabels.store.new_spec import store_spec
from softlabels.store.reader import Check
from softlabels.store.spec import MemberSpec, TeacherSpec
from softlabels.stream import Loader, SoftLabelDataset
from softlabels.transfer import TransferRows

BATCH = 512
CHUNK = 512
SHARD = 32 * CHUNK
SECONDS = 3.0  # a reader that is not through with its epoch by then is judged by the rows that it gave

Reader = Callable[[int], Iterator[int]]  # epoch -> number of rows of each batch


def main() -> None:
    """Write the stores, time every reader in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=5, help="every reader runs once a round")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--output", type=Path, help="also write the table here")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory(prefix="softlabels-benchmark-") as folder:
        rows = write(Path(folder), options.rows, options.classes)
        readers = {**ours(Path(folder), rows), **others(Path(folder), options.rows)}
        rates: dict[str, list[float]] = {name: [] for name in readers}
        for epoch in range(options.rounds):
            for name, reader in readers.items():
                rates[name].append(rate(reader(epoch)))
    text = report(rates, options)
    publish(text, options.output)


def write(folder: Path, rows: int, classes: int) -> TransferRows:
    """One store in each layout and the same logits as a plain .npy file."""
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 256, (rows, 16), dtype=np.uint8)
    labels = rng.integers(0, classes, rows)
    logits = rng.standard_normal((rows, 1, classes), np.float32).astype(np.float16)
    np.save(folder / "logits.npy", logits)
    for layout in ("zarr", "arrow"):
        spec = store_spec(
            teacher=TeacherSpec(name="noise", precision="float16", members=(MemberSpec(model="noise"),)),
            name="noise", keys=keys, classes=classes, layout=layout, rows_per_shard=SHARD, rows_per_chunk=CHUNK,
        )  # fmt: skip
        with StoreWriter(folder / layout, spec) as writer:
            for shard in writer.pending:
                part = slice(*writer.rows_of(shard))
                writer.write_logits(shard, keys=keys[part], labels=labels[part], logits=logits[part])
            writer.seal()
    nothing = np.zeros((rows, 1), np.uint8)
    return TransferRows(
        name="noise", split="train", revision=None, source="", inputs=nothing, keys=keys, labels=labels, class_names=None,
        prepare=ObjectSpec("none"),
    )  # fmt: skip


def ours(folder: Path, rows: TransferRows) -> dict[str, Reader]:
    """Our loader on both layouts, checking every chunk or none."""

    def loader(layout: str, check: Check) -> Reader:
        loader = Loader(rows, open_store(folder / layout, check=check), batch_size=BATCH, seed=0)
        return lambda epoch: (len(batch) for batch in loader.epoch(epoch))

    hard = Loader(rows, None, batch_size=BATCH, seed=0)
    dataset = SoftLabelDataset(rows, open_store(folder / "zarr"))
    return {
        "Loader, zarr, every chunk checked": loader("zarr", "always"),
        "Loader, zarr, checked once": loader("zarr", "first"),
        "Loader, zarr, unchecked": loader("zarr", "never"),
        "Loader, arrow, every chunk checked": loader("arrow", "always"),
        "Loader, arrow, checked once": loader("arrow", "first"),
        "Loader, hard labels only": lambda epoch: (len(batch) for batch in hard.epoch(epoch)),
        "SoftLabelDataset in DataLoader, 0 workers": lambda epoch: (
            len(batch["row"]) for batch in DataLoader(dataset, BATCH, shuffle=True)
        ),
    }


def others(folder: Path, rows: int) -> dict[str, Reader]:
    """The same labels without us. Each turns what it reads into a torch tensor, as a training loop would."""
    memmap = np.load(folder / "logits.npy", mmap_mode="r")
    array = zarr.open_array(folder / "zarr" / "logits", mode="r")
    arrow = datasets.load_from_disk(str(folder / "arrow")).select_columns("logits")

    def batches(epoch: int) -> Iterator[np.ndarray]:
        order = np.random.default_rng(epoch).permutation(rows)
        return (order[start : start + BATCH] for start in range(0, rows, BATCH))

    def chunks(size: int) -> Reader:
        def read(epoch: int) -> Iterator[int]:
            for chunk in np.random.default_rng(epoch).permutation(-(-rows // size)):
                yield len(torch.from_numpy(array[chunk * size : (chunk + 1) * size]))

        return read

    def by_arrow(epoch: int) -> Iterator[int]:
        table = arrow.with_format("arrow")
        for batch in batches(epoch):
            values = table[batch]["logits"].combine_chunks().flatten().flatten().to_numpy()
            yield len(torch.from_numpy(values.reshape(len(batch), 1, -1).copy()))

    def streamed(epoch: int) -> Iterator[int]:
        stream = (
            arrow.to_iterable_dataset(num_shards=4).shuffle(seed=epoch, buffer_size=16 * CHUNK).with_format("torch")
        )
        return (len(batch["logits"]) for batch in stream.iter(BATCH))

    return {
        "numpy memmap, random rows": lambda epoch: (len(torch.from_numpy(memmap[i])) for i in batches(epoch)),
        f"zarr-python, random chunks of {CHUNK} rows": chunks(CHUNK),
        f"zarr-python, random shards of {SHARD} rows": chunks(SHARD),
        "zarr-python, oindex of random rows": lambda epoch: (
            len(torch.from_numpy(array.oindex[np.sort(i)])) for i in batches(epoch)
        ),
        "datasets, map-style, arrow format": by_arrow,
        "datasets, map-style, torch format": lambda epoch: (
            len(batch["logits"]) for batch in map(arrow.with_format("torch").__getitem__, batches(epoch))
        ),
        "datasets, streaming, shuffle buffer": streamed,
    }


def rate(batches: Iterator[int]) -> float:
    """Rows a second, until the epoch or `SECONDS` are over."""
    rows, start = 0, time.perf_counter()
    for count in batches:
        rows += count
        if time.perf_counter() - start > SECONDS:
            break
    return rows / (time.perf_counter() - start)


def report(rates: dict[str, list[float]], options: argparse.Namespace) -> str:
    """A Markdown page."""
    lines = [
        "# How many rows of soft labels a shuffled loader gives in a second",
        "",
        f"{options.rows:,} x {options.classes:,} float16, chunks of {CHUNK} rows, batches of {BATCH}, page cache warm; "
        f"best and median of {options.rounds} rounds, in each of which every reader runs once.",
        "",
        machine("torch", "numpy", "zarr", "datasets", "pyarrow", "blake3"),
        "",
        "| how | best, krows/s | median, krows/s |",
        "| --- | ---: | ---: |",
    ]
    lines += [f"| {n} | {max(r) / 1e3:,.1f} | {statistics.median(r) / 1e3:,.1f} |" for n, r in rates.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
