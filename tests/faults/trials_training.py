"""The same student again: training that is killed, however often and wherever, ends as if it had not been, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults.campaign import Outcome, Trial, repeated
from tests.faults.recipes import MEMORY
from tests.store import samples
from tests.student.runs import Server, server

KINDS = ("zarr", "topk-arrow", "ragseveral-arrow")
STEPS = 24  # of both students together
FLUSHES = 20  # an unbroken run has a few more flushes and renames
ENDS = (0, 75, -signal.SIGKILL)


class Runs:
    """Runs over stores of either kind, and the unbroken one of each kind and number of workers."""

    def __init__(self, folder: Path, server: Server, seed: int) -> None:
        self.folder, self.server, self.number = folder, server, 0
        self.unbroken: dict[tuple[str, int], Path] = {}
        for kind in KINDS:
            data = samples.sample(np.random.default_rng(seed), 96, kind, classes=5)
            samples.write_store(folder / kind, data, samples.make_spec(data, kind))

    def request(self, kind: str, workers: int, run: Path, *, forgets: bool = False) -> dict[str, Any]:
        store = str(self.folder / kind)
        return {
            "do": "train", "store": store, "folder": str(run), "workers": workers, "die": None, "forgets": forgets,
        }  # fmt: skip

    def attack(self, rng: np.random.Generator, *, forgets: bool = False) -> None:
        """Kill or stop a run 1 to 5 times, at least once in fact, let it end, and compare it with the unbroken one."""
        kind, workers = str(rng.choice(KINDS)), int(rng.choice([0, 2]))
        if (kind, workers) not in self.unbroken:
            self.unbroken[kind, workers] = self.new_folder()
            took = time.monotonic()
            assert self.server.run(**self.request(kind, workers, self.unbroken[kind, workers])) == 0
            self.took = time.monotonic() - took
        interrupted, wanted = 0, int(rng.integers(1, 6))
        while not interrupted:
            run = self.new_folder()
            request = self.request(kind, workers, run, forgets=forgets)
            if forgets:  # once, after a checkpoint that is not the first
                die = ["step", int(rng.integers(STEPS // 2, STEPS))]
                interrupted = int(self.server.run(**request | {"die": die}) != 0)
            while not forgets and interrupted < wanted and self.interrupt(request, rng, STEPS - done(run)):
                interrupted += 1
        assert self.server.run(**request) == 0, (run / "said.txt").read_text()
        compare(run, self.unbroken[kind, workers])

    def interrupt(self, request: dict[str, Any], rng: np.random.Generator, left: int) -> bool:
        """End a run at one of the `left` steps, at a flush, at a moment, or by a stop; False where it ended before that."""
        if left == 0:
            return False
        how = str(rng.choice(["step", "flush", "stop", "moment"]))
        most = {"step": left, "flush": FLUSHES * left // STEPS, "stop": left // 2}.get(how, 1)
        at = 1 + int(rng.integers(max(most, 1)))
        pid = self.server.start(**request | {"die": None if how == "moment" else [how, at]})
        if how == "moment":
            time.sleep(rng.uniform(0, self.took * left / STEPS))
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        status = self.server.wait()
        assert status in ENDS, f"exit status {status} after {how} {at}"
        return bool(status)

    def new_folder(self) -> Path:
        self.number += 1
        return self.folder / f"run{self.number}"


def compare(run: Path, unbroken: Path) -> None:
    """Loss and rows of every step, however often it was done; weights, optimizer, random numbers and all else that is saved."""
    ours, theirs = steps(run), steps(unbroken)
    assert ours.keys() == theirs.keys(), "other steps"
    for step, found in ours.items():
        assert found == theirs[step], f"step {step}: {sorted(found)} in place of {sorted(theirs[step])}"
    one, other = state(run), state(unbroken)
    different = list(differences(one, other))
    assert not different, f"the checkpoints differ in {', '.join(different[:5])}"
    for file in sorted(path.relative_to(unbroken) for path in unbroken.rglob("*.safetensors")):
        assert (run / file).read_bytes() == (unbroken / file).read_bytes(), f"other {file}"


def done(run: Path) -> int:
    """How many of a run's steps have been done, once or more often."""
    return len(steps(run)) if (run / "steps.txt").exists() else 0


def steps(run: Path) -> dict[str, set[str]]:
    """What was written down of each step of each student: loss in hexadecimal and digest of the rows."""
    found: dict[str, set[str]] = {}
    for line in (run / "steps.txt").read_text().splitlines():
        number, student, rest = line.split(" ", 2)
        found.setdefault(f"{number} of {student}", set()).add(rest)
    return found


def state(run: Path) -> Any:
    """The last checkpoint, without the times that its log says."""
    import torch

    whole = torch.load(run / "checkpoint.pt", weights_only=True)
    for learner in whole["state"]["learners"]:
        lines = [json.loads(line) for line in learner["standing"]["lines"]]
        learner["standing"]["lines"] = [{name: line[name] for name in line if name != "times"} for line in lines]
    return whole


def differences(one: Any, other: Any, where: str = "") -> Iterator[str]:
    """The leaves in which two states differ in a bit."""
    import torch

    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for key in one:
            yield from differences(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from differences(a, b, f"{where}[{number}]")
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if one.dtype != other.dtype or not torch.equal(one.cpu(), other.cpu()):
            yield where
    elif one != other:
        yield where


@contextmanager
def runs(seed: int) -> Iterator[Runs]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Runs(Path(folder), server("tests.faults.commands"), seed)


def run(count: int, seed: int) -> Outcome:
    with runs(seed) as found:
        return repeated(count, seed, found.attack)


def control(seed: int) -> Outcome:
    with runs(seed) as found:
        return repeated(2, seed, lambda rng: found.attack(rng, forgets=True))


TRIALS = (
    Trial(
        10,
        "training killed or stopped 1 to 5 times, with threads and with worker processes",
        60,
        2,
        run,
        control,
        "random numbers not put back",
    ),
)
