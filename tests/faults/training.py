"""Training runs that write down every step, for trials that kill them; `commands` serves them.

A request is a JSON object: `store`, `folder`, `workers` (0: the loader's threads; else so many worker processes of a
DataLoader), `die` (null, or ["step", n], ["flush", n], ["stop", n]: kill itself at its n-th step, before its n-th fsync or
rename, or stop as SIGTERM makes it) and `forgets` (random numbers are not put back).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from blake3 import blake3
from torch import Tensor, nn
from torch.utils.data import DataLoader

from softlabels.store import Store, open_store
from softlabels.store.columns import stored_name
from softlabels.stream import Batch, EmbeddedRows, Loader, SoftLabelDataset, watched
from softlabels.stream.batch import TargetBatch
from softlabels.stream.order import Order
from softlabels.student import checkpoint
from softlabels.student.config import TrainingConfig
from softlabels.student.heads import resolved
from softlabels.student.learner import Learner, Student
from softlabels.student.trainer import Trainer
from tests.store.samples import POSITIONS
from tests.student.runs import EVERYTHING, SWEEP, die_at

EPOCHS, BATCH, STEPS = 3, 20, 12  # of 80 rows
STEPS_FILE = "steps.txt"
NAMES = ("s0", "s1")


class Net(nn.Module):
    """A student with everything that carries state: buffers and random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 5)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs.float() / 255)


class Several(nn.Module):
    """The same for several targets of rows of positions."""

    def __init__(self, outputs: dict[str, int]) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3))
        self.heads = nn.ModuleDict({name: nn.Linear(16, POSITIONS * size) for name, size in outputs.items()})

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        hidden = self.body(inputs.float() / 255)
        return {name: head(hidden).unflatten(1, (POSITIONS, -1)) for name, head in self.heads.items()}


class WorkerBatches:
    """Batches of a `DataLoader` with worker processes, in an order of ours."""

    def __init__(self, rows: EmbeddedRows, store: Store, selection: np.ndarray, workers: int) -> None:
        self._data = SoftLabelDataset(rows, store, selection=selection)
        self._workers, self._targets = workers, store.targets
        self._order = Order(selection // store.rows_per_chunk, digest=store.digest, window=2, batch_size=BATCH)
        self.steps_per_epoch, self.order_digest = -(-len(selection) // BATCH), store.digest

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        order = self._order.epoch(epoch)
        numbers = np.concatenate([order.window(window) for window in range(order.windows)])
        batches = [numbers[at : at + BATCH].tolist() for at in range(start * BATCH, len(numbers), BATCH)]
        loader = DataLoader(
            self._data, batch_sampler=batches, num_workers=self._workers, multiprocessing_context="fork"
        )  # type: ignore[arg-type]  # any iterable of lists of numbers
        for found in watched(loader):
            targets = {
                name: TargetBatch(found[stored_name(name, "label")], self._data.soft_labels(found, name))
                for name in self._targets
            }
            yield Batch(found["input"], targets, found["row"].numpy(), found.get("mask"))


def trainer(request: dict[str, Any]) -> Trainer:
    """Two students side by side with everything on, over a store that holds its inputs."""
    store = open_store(request["store"])
    rows, numbers = EmbeddedRows(store), np.arange(store.rows)
    held_out = numbers % 6 == 5
    common: dict[str, Any] = {"epochs": EPOCHS, "batch_size": BATCH, "threads": 1, "device": "cpu"}
    kinds = {target.name: target.encoding.target for target in store.spec.targets}
    sizes = {target.name: target.label_space.classes for target in store.spec.targets}
    if store.positions is not None:
        common["positions"] = 3
    students = [
        Student.begin(
            name,
            resolved(TrainingConfig(**common | EVERYTHING | settings), kinds),
            Net if "" in kinds else lambda: Several(sizes),
        )
        for name, settings in zip(NAMES, SWEEP, strict=False)
    ]
    train: Any = Loader(rows, store, batch_size=BATCH, seed=3, selection=numbers[~held_out], block=16, window=2)
    if request["workers"]:
        train = WorkerBatches(rows, store, numbers[~held_out], request["workers"])
    validation = Loader(rows, store, batch_size=BATCH, seed=0, selection=numbers[held_out], shuffle=False)
    return Trainer(students, train, validation, Path(request["folder"]), {"store": store.digest})


def recorded(folder: Path, kill_at: int) -> Any:
    """`Learner.step` that writes down step, student, loss and rows, and kills its process at its `kill_at`-th call."""
    plain, calls = Learner.step, 0
    out = os.open(folder / STEPS_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def step(self: Learner, batch: Batch, moved: Batch, number: int) -> float:
        nonlocal calls
        calls += 1
        if calls == kill_at:
            os.killpg(os.getpid(), signal.SIGKILL)
        loss = plain(self, batch, moved, number)
        rows = blake3(batch.rows.tobytes() + batch.inputs.numpy().tobytes()).hexdigest()[:16]
        os.write(out, f"{number} {self.name} {loss.hex()} {rows}\n".encode())
        return loss

    return step


def forgetful(self: Learner, state: dict[str, Any]) -> None:
    """`Learner.load` without the random numbers."""
    _load(self, state | {"rng": self.rng})


_load = Learner.load


def run(request: dict[str, Any]) -> int:
    """Train, and die as the request says; the exit code."""
    kind, count = request["die"] or ("", 0)
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return bool(kind == "stop" and asked == count)

    if kind == "flush":
        die_at(count)
    if request["forgets"]:
        Learner.load = forgetful  # type: ignore[method-assign]
        mock.patch.object(checkpoint, "set_rng_state").start()
    Learner.step = recorded(Path(request["folder"]), count if kind == "step" else -1)  # type: ignore[method-assign]
    trainer(request).run(should_stop)
    return 0
