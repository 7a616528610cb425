"""Small training runs for the tests of the trainer: in this process, or in children that may be killed at any moment.

`serve` forks a child for each request on its standard input, so that killing a run does not cost an import of torch each time.
A request is a JSON object; the answer is the child's pid; after one more line of input, its exit status. Run as a module it
serves the runs below: `folder`, `epochs`, `die_at` (kill itself before its n-th fsync or rename; null: never).
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from softlabels.labels.soft import SoftLabels
from softlabels.objects import ObjectSpec
from softlabels.stream.batch import Batch
from softlabels.student.config import TrainingConfig
from softlabels.student.learner import Student
from softlabels.student.trainer import Trainer, TrainingResult
from tests.student import batches

REPOSITORY = Path(__file__).parents[2]
ROWS, INPUTS, CLASSES, MEMBERS = 150, 12, 5, 2
COSINE = ObjectSpec("torch.optim.lr_scheduler.CosineAnnealingLR", {"T_max": "total_steps"})


class MemoryBatches:
    """Rows in memory, shuffled by seed and epoch: what the trainer needs of a loader."""

    def __init__(self, batch: Batch, batch_size: int, *, seed: int | None = 0) -> None:
        self.batch, self.batch_size, self.seed = batch, batch_size, seed
        self.steps_per_epoch = -(-len(batch) // batch_size)
        self.order_digest = f"{len(batch)} rows, {batch_size} a batch, seed {seed}"

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        order = np.arange(len(self.batch))
        if self.seed is not None:
            order = np.random.default_rng([self.seed, epoch]).permutation(order)
        for at in range(start * self.batch_size, len(order), self.batch_size):
            yield take(self.batch, order[at : at + self.batch_size])


def take(batch: Batch, rows: np.ndarray) -> Batch:
    index = torch.from_numpy(rows)
    soft = None if batch.soft is None else batch.soft[index]
    return batches.plain(batch.inputs[index], batch.labels[index], soft, batch.rows[rows])


def examples(seed: int = 0, rows: int = ROWS, unlabelled: int = 4) -> Batch:
    """Noisy rows of five classes, every `unlabelled`-th without a label, and a teacher that is right about most."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, rows)
    centres = np.random.default_rng(99).normal(0, 1, (CLASSES, INPUTS))
    inputs = (centres[labels] + rng.normal(0, 1.5, (rows, INPUTS))).astype(np.float32)
    z = rng.normal(0, 1, (rows, MEMBERS, CLASSES))
    z[np.arange(rows), :, labels] += 3
    labels[::unlabelled] = -1
    shift = z.max(axis=-1)
    soft = SoftLabels.dense(
        torch.tensor(z - shift[..., None]).half(), torch.tensor(shift).float(), torch.full((MEMBERS,), 1 / MEMBERS)
    )
    return batches.plain(torch.tensor(inputs), torch.tensor(labels), soft, np.arange(rows))


def net() -> nn.Module:
    """A student with everything that carries state: buffers and random numbers."""
    return nn.Sequential(nn.Linear(INPUTS, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, CLASSES))


def trainer(folder: Path, *, model: nn.Module | None = None, **changes: Any) -> Trainer:
    """A trainer on the examples; `changes` are fields of the config, or `train`, `validation`, `identity`."""
    loaders = {name: changes.pop(name) for name in ("train", "validation", "identity") if name in changes}
    settings: dict[str, Any] = {"epochs": 4, "batch_size": 32, "threads": 1, "scheduler": COSINE, "device": "cpu"}
    config = TrainingConfig(**settings | changes)
    return Trainer(
        [Student.begin("", config, net if model is None else lambda: model)],
        loaders.get("train", MemoryBatches(examples(), config.batch_size)),
        loaders.get("validation", MemoryBatches(examples(seed=1, rows=60), 25, seed=None)),
        folder,
        loaders.get("identity", {"store": "abc"}),
    )


SWEEP = (
    {"temperature": 1.0},
    {"temperature": "cosine:8:2", "alpha": "linear:1:0.5", "seed": 1},
    {"loss": "js", "seed": 1},
    {"hard_weight": 1.0, "soft_weight": 0.0},
)
EVERYTHING = {"ema": 0.9, "precision": "bfloat16", "micro_batch": 12, "clip_norm": 1.0, "max_norm": 2.0}


def sweep(folder: Path, *, chosen: Sequence[int] = range(len(SWEEP)), **changes: Any) -> Trainer:
    """The students of SWEEP that are chosen, side by side, each with everything on; `changes` are fields of every config."""
    settings: dict[str, Any] = {"epochs": 4, "batch_size": 32, "threads": 1, "scheduler": COSINE, "device": "cpu"}
    labelled = np.arange(ROWS) % 3 > 0
    students = [
        Student.begin(f"s{n}", TrainingConfig(**settings | EVERYTHING | changes | SWEEP[n]), net, labelled=labelled)
        for n in chosen
    ]
    train, held_out = MemoryBatches(examples(), 32), MemoryBatches(examples(seed=1, rows=60), 25, seed=None)
    return Trainer(students, train, held_out, folder, {"store": "abc"})


def run(folder: Path, should_stop: Callable[[], bool] = lambda: False, **changes: Any) -> TrainingResult:
    [result] = trainer(folder, **changes).run(should_stop)
    return result


def die_at(count: int) -> None:
    """Make this process kill itself before its `count`-th call of fsync or rename."""
    left = count

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return wrapper

    os.fsync, os.rename = counted(os.fsync), counted(os.rename)  # type: ignore[assignment]


def child(request: dict[str, Any]) -> int:
    try:
        if request["die_at"] is not None:
            die_at(request["die_at"])
        trainer(Path(request["folder"]), epochs=request["epochs"]).run()
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


class Server:
    """A process that serves runs of a module which calls `serve`."""

    def __init__(self, module: str) -> None:
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env=os.environ | threads | {"PYTHONPATH": str(REPOSITORY)},
        )

    def start(self, **request: Any) -> int:
        """The pid of a run that has begun."""
        return self._ask(json.dumps(request))

    def wait(self) -> int:
        """Its exit status."""
        return self._ask("")

    def run(self, **request: Any) -> int:
        """The exit status of a run to its end."""
        self.start(**request)
        return self.wait()

    def close(self) -> None:
        """End the server."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()

    def _ask(self, line: str) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@functools.cache
def server(module: str) -> Server:
    """The one server of a module in this process; it ends with it."""
    made = Server(module)
    atexit.register(made.close)
    return made


def serve(child: Callable[[dict[str, Any]], int]) -> None:
    import_module("torch._dynamo")  # a second that torch.optim would take at the first step of each child
    gc.freeze()  # what is there stays: no child goes through it for garbage, and so copies it
    while line := sys.stdin.readline():
        pid = os.fork()
        if pid == 0:
            os._exit(child(json.loads(line)))
        print(pid, flush=True)
        sys.stdin.readline()  # until asked, the child stays a zombie, so that its pid names nothing else
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    serve(child)
