"""Several processes that share every batch: each reads its part and they exchange rows, beside each reads all and cuts it.

Processes of one machine, that exchange through torch.distributed's gloo. In every round one process reads an epoch alone, then
all of them either way, so ratios are taken within a round. Bytes are counted where files are read, labels alone: inputs of the
dense store are one byte a row, those of the store of tokens its tokens. CPU time is that of all processes together.

    python -m benchmarks.parts --output benchmarks/results/parts.md
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from benchmarks.page import machine, publish
from softlabels.labels.encoding import DenseEncoding, TopkEncoding
from softlabels.labels.lost import Lost
from softlabels.objects import ObjectSpec
from softlabels.store import StoreWriter, open_store
from softlabels.store.new_spec import store_spec
from softlabels.stream import Loader, Part
from softlabels.stream.parts import Buffer
from softlabels.system.handles import LocalFile
from softlabels.transfer import TransferRows
from softlabels.transfer.sequences import SequenceInfo

BATCH, WORLDS = 512, (1, 2, 4)
POSITIONS, VOCABULARY, KEPT = 128, 32_768, 32
ALONE, EVERYTHING, PARTS = "one process", "each reads everything", "each reads a part"
Measures = dict[
    str, list[tuple[float, float, int]]
]  # seconds, CPU seconds of all, most bytes of a process; round by round


def main(argv: Sequence[str] | None = None) -> None:
    """Write the stores, run every world on each, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=100_000, help="of the dense store; that of tokens has a tenth")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, help="also write the table here")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    lines = []
    with tempfile.TemporaryDirectory(prefix="softlabels-benchmark-") as folder:
        for kind, rows in (("dense", options.rows), ("tokens", options.rows // 10)):
            write(Path(folder) / kind, kind, rows)
            for world in WORLDS:
                out = Path(folder) / f"{kind}-{world}.pt"
                mp.spawn(_process, (world, str(Path(folder) / kind), options.rounds, str(out)), nprocs=world)  # type: ignore[attr-defined,no-untyped-call]
                lines += table(kind, world, rows, torch.load(out))
    publish(report(lines, options), options.output)


def data_of(kind: str, rows: int) -> TransferRows:
    """The rows of a store, the same in every process."""
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 256, (rows, 16), dtype=np.uint8)
    given: dict[str, Any] = {"inputs": np.zeros((rows, 1), np.uint8), "labels": np.full(rows, -1)}
    if kind == "tokens":
        tokens = rng.integers(0, VOCABULARY, (rows, POSITIONS + 1), dtype=np.int32)
        given["inputs"] = np.stack([tokens, np.ones_like(tokens)], axis=1)
        given["sequence"] = SequenceInfo(POSITIONS + 1, VOCABULARY, "ab" * 32)
    return TransferRows(
        name="noise", split="train", revision=None, source="", keys=keys, class_names=None, prepare=ObjectSpec("none"), **given
    )  # fmt: skip


def write(folder: Path, kind: str, rows: int) -> None:
    """A store cut by default: of 1,000 classes, or of rows of tokens of whose classes some are kept."""
    data, rng = data_of(kind, rows), np.random.default_rng(1)
    encoding = DenseEncoding() if kind == "dense" else TopkEncoding(k=KEPT, tail="renormalised", nodes=0)
    of_tokens: dict[str, Any] = {"positions": POSITIONS, "vocabulary": "ab" * 32} if kind == "tokens" else {}
    classes = VOCABULARY if of_tokens else 1_000
    spec = store_spec(encoding, teacher="noise", name="noise", keys=data.keys, classes=classes, **of_tokens)
    with StoreWriter(folder, spec) as writer:
        for shard in writer.pending:
            part = slice(*writer.rows_of(shard))
            count = part.stop - part.start
            kinds = {each.name: each for each in spec.columns if each.name in spec.soft_columns}
            soft = {name: np.zeros((count, *each.shape), each.numpy_dtype) for name, each in kinds.items()}
            if kind == "dense":
                soft["logits"][:] = -rng.random(soft["logits"].shape, np.float32)
                soft["logits"][:, :, 0] = 0
            else:
                soft["top_class"] += np.arange(KEPT, dtype=soft["top_class"].dtype)
            where = np.ones((count, POSITIONS), np.uint8) if of_tokens else None
            document = None if where is None else where.astype(np.uint16)
            writer.write_columns(
                shard, keys=data.keys[part], labels=data.labels[part], columns=soft, mask=where,
                document=document, fidelity=Lost(),
            )  # fmt: skip
        writer.seal(checked=True)


def _process(rank: int, world: int, folder: str, rounds: int, out: str) -> None:
    """What each process does, the first one also alone."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out}.met", rank=rank, world_size=world)
    group: Any = dist.new_group()
    store = open_store(folder)
    data = data_of(Path(folder).name, store.rows)
    whole = Loader(data, store, batch_size=BATCH, seed=0)
    part = Part(rank, world, lambda messages: exchanged(messages, rank, group))
    own = Loader(data, store, batch_size=BATCH, seed=0, part=part)
    counted = _count_bytes()
    ways: dict[str, Callable[[int], Iterator[Any]]] = {
        ALONE: lambda epoch: whole.epoch(epoch) if rank == 0 else iter(()),
        EVERYTHING: lambda epoch: (batch[part.rows(len(batch))] for batch in whole.epoch(epoch)),
        PARTS: own.epoch,
    }
    found: Measures = {way: [] for way in ways}
    for epoch in range(rounds + 1):
        for way, read in ways.items():
            counted[0] = 0
            dist.barrier()
            start, cpu = time.perf_counter(), time.process_time()
            for _ in read(epoch):
                pass
            spent = torch.tensor([time.process_time() - cpu])
            dist.barrier()
            seconds, most = time.perf_counter() - start, torch.tensor([counted[0]])
            dist.all_reduce(spent)
            dist.all_reduce(most, dist.ReduceOp.MAX)
            if epoch:  # in the first round chunks are checked
                found[way].append((seconds, float(spent), int(most)))
    if rank == 0:
        torch.save(found, out)
    dist.destroy_process_group()


def exchanged(messages: Sequence[Buffer], rank: int, group: Any) -> list[Buffer]:
    """One message of each process for one to each."""
    sent = [b"" if target == rank else message for target, message in enumerate(messages)]
    sizes = torch.tensor([len(each) for each in sent])
    theirs = torch.empty_like(sizes)
    dist.all_to_all_single(theirs, sizes, group=group)
    given = torch.frombuffer(bytearray().join(sent) or bytearray(1), dtype=torch.uint8)[: int(sizes.sum())]
    found = torch.empty(int(theirs.sum()), dtype=torch.uint8)
    dist.all_to_all_single(found, given, theirs.tolist(), sizes.tolist(), group=group)
    return [each.numpy().data for each in torch.split(found, theirs.tolist())]


def _count_bytes() -> list[int]:
    """A number that grows with what this process reads of files."""
    counted, read = [0], LocalFile.read_into

    def read_into(self: LocalFile, start: int, out: memoryview) -> int:
        counted[0] += len(out)
        return read(self, start, out)

    LocalFile.read_into = read_into  # type: ignore[method-assign]
    return counted


def table(kind: str, world: int, rows: int, found: Measures) -> list[str]:
    """Its lines for one store and world."""
    lines = []
    for way in (ALONE,) if world == 1 else (ALONE, EVERYTHING, PARTS):
        seconds, cpu, most = (statistics.median(column) for column in zip(*found[way], strict=True))
        ratios = [
            [each[at] / before[at] for each, before in zip(found[way], found[ALONE], strict=True)] for at in (0, 1, 2)
        ]
        wall, spent, bytes_read = (f"{statistics.median(each):.2f}" for each in ratios)
        lines.append(
            f"| {kind} | {world} | {way} | {most / 1e6:,.0f} | {bytes_read} | {seconds / rows * 1e6:,.2f} | {wall} "
            f"({min(ratios[0]):.2f} to {max(ratios[0]):.2f}) | {cpu / rows * 1e6:,.2f} | {spent} ({min(ratios[1]):.2f} to "
            f"{max(ratios[1]):.2f}) |"
        )
    return lines


def report(lines: list[str], options: argparse.Namespace) -> str:
    """A Markdown page."""
    head = [
        "# Several processes that share every batch: what they read, and what the exchange of rows costs",
        "",
        f"dense: {options.rows:,} rows of 1,000 classes in float16. tokens: {options.rows // 10:,} rows of {POSITIONS} "
        f"positions, {KEPT} of {VOCABULARY:,} classes kept. Zarr, cut by default, batches of {BATCH}, page cache warm, checked "
        f"before. Medians of {options.rounds} rounds; ratios to one process in the same round: median (least to most). Bytes: "
        "of the process that reads most. CPU: of all processes together. Processes share the cores of one machine, so a ratio "
        "of wall times above 1 is what its cores are short of; on several machines each has its own.",
        "",
        machine("torch", "numpy", "zarr"),
        "",
        "| store | processes | how | MB read | ratio | ms per 1,000 rows | ratio | CPU ms per 1,000 rows | ratio |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    return "\n".join([*head, *lines]) + "\n"


if __name__ == "__main__":
    main()
