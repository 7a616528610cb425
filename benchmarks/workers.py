"""Workers on one store: how much faster 1, 2 and 4 of them are, and what claims cost.

Each worker is a process with one thread that calls `label` on the same store. The clock runs from the moment that all are ready
until the last one has returned, so that it holds the plan, the checks of the teacher, waiting and the seal. The first teacher
computes on this machine's cores, of which workers can use no more than there are. The second one only waits for each batch: it
simulates a device or a server a worker, which no core of this machine limits. The cost of claims is the time that a worker
spends in them, of the time that its shards take; it is measured with one worker, in the same run.

    python -m benchmarks.workers --output benchmarks/results/workers.md    about ten minutes of two cores that nobody else uses

docs/scaling.md quotes the first table, and what claims cost.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import wraps
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.page import machine, publish
from softlabels import Ensemble, LabelsConfig, label
from softlabels.models.mlp import MLP
from softlabels.objects import ObjectSpec
from softlabels.store.claims import Claims
from softlabels.transfer import TransferRows

INPUTS, BATCH = 784, 256
COUNTS = (1, 2, 4)


class Waits(nn.Module):
    """A layer that takes its time without a core, for batches of the pass."""

    def __init__(self, classes: int, seconds: float) -> None:
        super().__init__()
        self.layer, self.seconds = nn.Linear(INPUTS, classes), seconds

    def forward(self, x: Tensor) -> Tensor:
        """(B, INPUTS) to (B, classes)."""
        time.sleep(self.seconds * (len(x) == BATCH))
        logits: Tensor = self.layer(x)
        return logits


def main(argv: Sequence[str] | None = None) -> None:
    """Time every number of workers in turn, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--batches", type=int, default=8, help="of a shard, of 256 rows each")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--hidden", type=int, default=2048, help="width of the teacher that computes")
    parser.add_argument("--seconds", type=float, default=0.5, help="that the other teacher waits for a batch")
    parser.add_argument("--rounds", type=int, default=3, help="every way runs once a round")
    parser.add_argument("--output", type=Path, help="also write the tables here")
    options = parser.parse_args(argv)
    found: dict[tuple[str, int], list[float]] = {(kind, n): [] for kind in ("computes", "waits") for n in COUNTS}
    costs: dict[str, list[tuple[float, int, float]]] = {"computes": [], "waits": []}
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="softlabels-benchmark-") as folder, context.Manager() as manager:
        for number in range(options.rounds):
            for kind, workers in found:
                spent, ready = manager.list(), context.Barrier(workers + 1)
                store = Path(folder, f"{kind}-{workers}-{number}")
                processes = [
                    context.Process(target=work, args=(store, kind, options, ready, spent)) for _ in range(workers)
                ]
                for process in processes:
                    process.start()
                ready.wait()
                began = time.perf_counter()
                for process in processes:
                    process.join()
                assert all(process.exitcode == 0 for process in processes)
                seconds = time.perf_counter() - began
                found[kind, workers].append(seconds)
                if workers == 1:
                    costs[kind].append((spent[0], options.shards, seconds))
    publish(report(found, costs, options), options.output)


def work(store: Path, kind: str, options: argparse.Namespace, ready: Barrier, spent: list[float]) -> None:
    """A worker: label, and tell how many seconds went into claims."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng, count = np.random.default_rng(0), options.shards * options.batches * BATCH
    classes = options.classes
    rows = TransferRows(
        name="noise", split="train", revision=None, source="", inputs=rng.normal(size=(count, INPUTS)).astype(np.float32),
        keys=rng.integers(0, 256, (count, 16), dtype=np.uint8), labels=np.full(count, -1), class_names=None,
        prepare=ObjectSpec("none"),
    )  # fmt: skip
    model = MLP(inputs=INPUTS, hidden=[options.hidden] * 3, classes=classes)
    teacher = Ensemble.of(
        [model if kind == "computes" else Waits(classes, options.seconds)], name="noise", device="cpu", batch_size=BATCH
    )
    labels = LabelsConfig(rows_per_shard=options.batches * BATCH, rows_per_chunk=BATCH)
    seconds = [0.0]
    for name in ("_next", "beat", "release", "take", "others"):
        setattr(Claims, name, timed(getattr(Claims, name), seconds))
    ready.wait()
    label(rows, teacher, labels, store)
    spent.append(seconds[0])


def timed(call: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """The function, adding up the time that it takes; time in another one of them counts once."""

    @wraps(call)
    def wrapper(*arguments: Any, **options: Any) -> Any:
        before, began = seconds[0], time.perf_counter()
        try:
            return call(*arguments, **options)
        finally:
            seconds[0] = before + time.perf_counter() - began

    return wrapper


def report(
    found: dict[tuple[str, int], list[float]],
    costs: dict[str, list[tuple[float, int, float]]],
    options: argparse.Namespace,
) -> str:
    """The page."""
    rows = options.shards * options.batches * BATCH
    lines = [
        "# Workers on one store", "",
        f"`python -m benchmarks.workers`: {options.shards} shards of {options.batches * BATCH:,} rows ({rows:,} rows of "
        f"{options.classes:,} classes), rounds: {options.rounds} (medians, the smallest and largest in brackets). One teacher "
        f"computes on this machine's cores; the other one waits {options.seconds:g} s for each batch, which simulates a device "
        "or a server of its own for each worker.", "",
        "| teacher | workers | seconds | faster than one |", "| --- | ---: | ---: | ---: |",
    ]  # fmt: skip
    for (kind, workers), seconds in found.items():
        ratio = statistics.median(found[kind, 1]) / statistics.median(seconds)
        spread = f"{statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})"
        lines.append(f"| {kind} | {workers} | {spread} | {ratio:.2f} x |")
    lines += ["", "| teacher | claims, ms a shard | a shard, s | share |", "| --- | ---: | ---: | ---: |"]
    for kind, each in costs.items():
        spent, shards, seconds = (statistics.median(values) for values in zip(*each, strict=True))
        lines.append(
            f"| {kind} | {1000 * spent / shards:.2f} | {seconds / shards:.2f} | {100 * spent / seconds:.3f}% |"
        )
    return "\n".join([*lines, "", machine("softlabels", "torch", "numpy"), ""])


if __name__ == "__main__":
    main()
