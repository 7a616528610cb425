"""What the order of the rows costs in reading: by blocks of the transfer set, and by chunks of the store, as it was before.

Stores are cut by default, so that a chunk is as large as a block, twice, or 64 times as large; of each there is one whose rows
stand in another order than the transfer set's. Inputs are one byte a row, so that labels alone are timed.

    python -m benchmarks.order --output benchmarks/results/order.md
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.page import machine, publish
from softlabels.labels.encoding import DenseEncoding, TopkEncoding
from softlabels.labels.lost import Lost
from softlabels.objects import ObjectSpec
from softlabels.store import StoreWriter, open_store
from softlabels.store.new_spec import store_spec
from softlabels.store.spec import MemberSpec, TeacherSpec
from softlabels.stream import Loader
from softlabels.transfer import TransferRows

BATCH = 512
SECONDS = 3.0  # of CPU time, after which a loader is judged by the rows that it gave
STORES = {  # rows, classes, and of topk labels K
    "1,000 classes, dense": (100_000, 1_000, None),
    "10 classes, dense": (500_000, 10, None),
    "32,768 classes, 32 kept": (100_000, 32_768, 32),
}
BY_CHUNKS, BY_BLOCKS, OTHER_ROWS = "by chunks, as before", "by blocks", "by blocks, store in another row order"
Rates = dict[str, list[float]]  # rows a second of CPU time, round by round


def main() -> None:
    """Write the stores, time every loader in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--rounds", type=int, default=10, help="every loader runs once a round, every second one backwards"
    )
    parser.add_argument("--output", type=Path, help="also write the table here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = []
    with tempfile.TemporaryDirectory(prefix="softlabels-benchmark-") as folder:
        for name, (rows, classes, k) in STORES.items():
            loaders = loaders_of(Path(folder) / name, rows, classes, k)
            rates: Rates = {order: [] for order in loaders}
            for epoch in range(options.rounds):
                for order in list(loaders)[:: 1 - 2 * (epoch % 2)]:
                    rates[order].append(rate(loaders[order], epoch))
            lines += table(name, loaders, rates)
    publish(report(lines, options.rounds), options.output)


def loaders_of(folder: Path, rows: int, classes: int, k: int | None) -> dict[str, Loader]:
    """Of a store, dense or of the `k` largest alone, and of one whose rows stand in another order."""
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 256, (rows, 16), dtype=np.uint8)
    labels = np.full(rows, -1)
    data = TransferRows(
        name="noise", split="train", revision=None, source="", inputs=np.zeros((rows, 1), np.uint8), keys=keys, labels=labels,
        class_names=None, prepare=ObjectSpec("none"),
    )  # fmt: skip
    encoding = DenseEncoding() if k is None else TopkEncoding(k=k, tail="renormalised", nodes=0)
    teacher = TeacherSpec(name="noise", precision="float16", members=(MemberSpec(model="noise"),))
    loaders = []
    for name, order in (("own", np.arange(rows)), ("other", rng.permutation(rows))):
        spec = store_spec(encoding, teacher=teacher, name="noise", keys=keys[order], classes=classes)
        with StoreWriter(folder / name, spec) as writer:
            for shard in writer.pending:
                part = order[slice(*writer.rows_of(shard))]
                shapes = {each.name: each for each in spec.columns if each.name in spec.soft_columns}
                soft = {each: np.zeros((len(part), *of.shape), of.numpy_dtype) for each, of in shapes.items()}
                if k is not None:
                    soft["top_class"] = soft["top_class"] + np.arange(k, dtype=soft["top_class"].dtype)
                writer.write_columns(shard, keys=keys[part], labels=labels[part], columns=soft, fidelity=Lost())
            writer.seal(checked=True)
        loaders.append(Loader(data, open_store(folder / name), batch_size=BATCH, seed=0))
    own, other = loaders
    return {BY_CHUNKS: own.by_chunks(), BY_BLOCKS: own, OTHER_ROWS: other}


def rate(loader: Loader, epoch: int) -> float:
    """Rows a second of CPU time, that of the reading threads among it, until the epoch or `SECONDS` are over."""
    rows, start = 0, time.process_time()
    for batch in loader.epoch(epoch):
        rows += len(batch)
        if time.process_time() - start > SECONDS:
            break
    return rows / (time.process_time() - start)


def table(name: str, loaders: dict[str, Loader], rates: Rates) -> list[str]:
    """Its lines for one kind of labels."""
    own, lines = loaders[BY_BLOCKS], []
    cut = f"{name} | {own.rows_per_chunk:,} | {own.order['block']}"
    for order, loader in loaders.items():
        ratios = [each / before for each, before in zip(rates[order], rates[BY_CHUNKS], strict=True)]
        lines.append(
            f"| {cut} | {order} | {statistics.median(rates[order]) / 1e3:,.0f} | "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | {loader.times_read():,.1f} |"
        )
    return lines


def report(lines: list[str], rounds: int) -> str:
    """A Markdown page."""
    head = [
        "# What the order of the rows costs in reading",
        "",
        f"Stores cut by default, zarr, checked once, page cache warm; batches of {BATCH}. Rows a second of CPU time, that of "
        f"the reading threads among it: median of {rounds} rounds, every second one backwards; and the ratio to the order by "
        "chunks in the same round: median (least to most). Times read: how often an epoch reads a chunk, as the loader says.",
        "",
        machine("torch", "numpy", "zarr"),
        "",
        "| labels | rows a chunk | rows a block | order | krows/s | ratio | times read |",
        "| --- | ---: | ---: | --- | ---: | ---: | ---: |",
    ]
    return "\n".join([*head, *lines]) + "\n"


if __name__ == "__main__":
    main()
