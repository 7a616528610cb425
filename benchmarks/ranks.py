"""Students on many processes: how much faster 1, 2 and 4 of them train, where they divide the rows of each batch, and where
they divide the students.

Each process has one thread and calls `Trainer.run`; the clock runs from the moment that all are ready until the last one is
done, without their start. Small students are a sweep of eight with 2,410 weights each, the large one is alone and has 1.9
million. More processes than cores can gain nothing: what 4 of them cost on two cores is what travels and waits.

    python -m benchmarks.ranks --output benchmarks/results/ranks.md
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from benchmarks.page import machine, publish
from softlabels.labels.soft import SoftLabels
from softlabels.models.mlp import MLP
from softlabels.stream.batch import Batch, TargetBatch
from softlabels.stream.parts import Part
from softlabels.student.config import TrainingConfig
from softlabels.student.distributed import ranks_here
from softlabels.student.learner import Student
from softlabels.student.trainer import Trainer

WORLDS = (1, 2, 4)
CASES: dict[str, dict[str, Any]] = {
    "8 small students": {"students": 8, "inputs": 64, "hidden": [32], "rows": 4096, "batch": 128},
    "1 large student": {"students": 1, "inputs": 784, "hidden": [1024, 1024], "rows": 4096, "batch": 512},
}


class Rows:
    """Rows in memory, in their order; a part of each batch."""

    order_digest = "as they stand"

    def __init__(self, batch: Batch, size: int, part: Part) -> None:
        self._batch, self._size, self._part = batch, size, part
        self.steps_per_epoch = len(batch) // size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from `start` on."""
        for number in range(start, self.steps_per_epoch):
            yield self._batch[number * self._size : (number + 1) * self._size][self._part.rows(self._size)]


def main(argv: Sequence[str] | None = None) -> None:
    """Time every way in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3, help="every way runs once a round")
    parser.add_argument("--output", type=Path, help="also write the table here")
    options = parser.parse_args(argv)
    ways = [
        (case, divide, world)
        for case, each in CASES.items()
        for divide in ("batches", "students")
        for world in WORLDS
        if world <= each["students"] or (divide == "batches")
        if world > 1 or divide == "batches"
    ]
    found: dict[tuple[str, str, int], list[float]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way in ways:
            with tempfile.TemporaryDirectory(prefix="softlabels-benchmark-") as folder:
                found[way].append(timed(*way, options.epochs, Path(folder, "run")))
    publish(report(found, options), options.output)


def timed(case: str, divide: str, world: int, epochs: int, folder: Path) -> float:
    """Seconds of one run."""
    store = dist.TCPStore(  # type: ignore[attr-defined]  # torch hands it on
        "127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=60)
    )
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "WORLD_SIZE": str(world),
        "TORCHELASTIC_USE_AGENT_STORE": "True", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(world + 1)
    processes = []
    for rank in range(world):
        os.environ["RANK"] = os.environ["LOCAL_RANK"] = str(rank)
        processes.append(context.Process(target=work, args=(case, divide, epochs, folder, ready)))
        processes[-1].start()
    ready.wait()
    began = time.perf_counter()
    ready.wait()
    seconds = time.perf_counter() - began
    for process in processes:
        process.join()
    assert all(process.exitcode == 0 for process in processes)
    return seconds


def work(case: str, divide: str, epochs: int, folder: Path, ready: Barrier) -> None:
    """One process."""
    given, by_students = CASES[case], divide == "students"
    rng = np.random.default_rng(0)
    z = torch.tensor(rng.normal(0, 2, (given["rows"], 1, 10)))
    shift = z.amax(dim=-1)
    soft = SoftLabels.dense((z - shift[..., None]).half(), shift.float(), torch.ones(1))
    inputs = torch.tensor(rng.normal(size=(given["rows"], given["inputs"])), dtype=torch.float32)
    labels = torch.tensor(rng.integers(0, 10, given["rows"]))
    batch = Batch(inputs, {"": TargetBatch(labels, soft)}, np.arange(given["rows"]))
    config = TrainingConfig(epochs=epochs, batch_size=given["batch"], threads=1, device="cpu", checkpoint_every=epochs)
    with ranks_here() as ranks:
        part = Part() if by_students else ranks.part
        students = [
            Student.begin(f"s{number}", config, lambda: MLP(inputs=given["inputs"], hidden=given["hidden"], classes=10))
            for number in range(given["students"])
        ]
        rows = Rows(batch, given["batch"], part)
        trainer = Trainer(students, rows, None, folder, {}, ranks=ranks, by_students=by_students)
        ranks.sum([0])
        ready.wait()
        trainer.run()
        ready.wait()


def report(found: dict[tuple[str, str, int], list[float]], options: argparse.Namespace) -> str:
    """The page."""
    lines = [
        "# Students on many processes", "",
        f"`python -m benchmarks.ranks`: {options.epochs} epochs of 4,096 rows, rounds: {options.rounds} (medians, the smallest "
        f"and largest in brackets), one thread a process, {os.cpu_count()} cores, load {os.getloadavg()[1]:.0f}. Processes "
        "divide the rows of each batch (gradients by gloo), or the students.", "",
        "| students | divided | processes | seconds | faster than one |", "| --- | --- | ---: | ---: | ---: |",
    ]  # fmt: skip
    for (case, divide, world), seconds in found.items():
        ratio = statistics.median(found[case, "batches", 1]) / statistics.median(seconds)
        spread = f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
        lines.append(f"| {case} | {divide if world > 1 else ''} | {world} | {spread} | {ratio:.2f} x |")
    return "\n".join([*lines, "", machine("softlabels", "torch", "numpy"), ""])


if __name__ == "__main__":
    main()
