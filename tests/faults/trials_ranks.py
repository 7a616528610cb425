"""Promise 17: processes that train together and of which one is killed at a random step or moment end typed and without a hang,
and the same command goes on to the weights, metrics and checkpoint of a run that was never killed, bit for bit.
"""

from __future__ import annotations

import signal
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults.campaign import Outcome, Trial, repeated
from tests.faults.recipes import MEMORY
from tests.faults.trials_training import differences, state
from tests.student.runs import server

STEPS = 20  # of two epochs, the last of which a checkpoint lies between
WORLDS = (2, 3)
REQUEST: dict[str, Any] = {"what": "all", "changes": {"epochs": 2}, "stop": None, "kill": None, "other": None, "at": 0}


class Attack:
    """Kills a rank of a run, and compares what the restarted run ends with."""

    def __init__(self, folder: Path, *, forgets: bool) -> None:
        self.folder, self.forgets, self.number = folder, forgets, 0
        self.unbroken: dict[int, Path] = {}
        self.server = server("tests.student.rank_runs")

    def __call__(self, rng: np.random.Generator) -> None:
        world = int(rng.choice(WORLDS))
        if world not in self.unbroken:
            self.unbroken[world] = self._new_folder()
            assert self._run(world, self.unbroken[world]) == 0
        rank, folder = int(rng.integers(world)), self._new_folder()
        if self.forgets or rng.random() < 0.5:
            step = int(rng.integers(STEPS // 2 if self.forgets else 0, STEPS))
            status = self._run(world, folder, kill=[rank, step])
        else:
            status = self._run(world, folder, moment=[rank, rng.uniform(0, 0.8)])
        assert status in (0, 75, 128 + signal.SIGKILL), f"exit status {status}"
        assert self._run(world, folder, forgets=self.forgets) == 0
        found = [*differences(state(folder), state(self.unbroken[world]))]
        assert not found, f"{world} processes, rank {rank} was killed: the checkpoints differ in {', '.join(found[:5])}"
        weights = (folder / "weights.safetensors").read_bytes()
        assert weights == (self.unbroken[world] / "weights.safetensors").read_bytes(), "other weights"

    def _run(self, world: int, folder: Path, **request: Any) -> int:
        return self.server.run(**REQUEST | {"world": world, "folder": str(folder)} | request)

    def _new_folder(self) -> Path:
        self.number += 1
        return self.folder / str(self.number) / "run"


def run(count: int, seed: int) -> Outcome:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        return repeated(count, seed, Attack(Path(folder), forgets=False))


def control(seed: int) -> Outcome:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        return repeated(2, seed, Attack(Path(folder), forgets=True))


TRIALS = (
    Trial(
        promise=17,
        what="two or three processes that train together, one of them killed",
        count=50,
        quick=5,
        run=run,
        control=control,
        control_what="ranks do not draw on from where they were",
        slow=True,
    ),
)
