"""Preemption and processes that hang: a SIGTERM ends a command within its grace period and loses nothing; what is waited for
in vain is named.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.faults.campaign import Outcome, Trial, repeated
from tests.faults.recipes import MEMORY, NET, recipe
from tests.student.runs import Server, server

GRACE = 30.0  # seconds between a cluster's SIGTERM and its SIGKILL
PATIENCE = 1.0
RESUMABLE = 75
COMMANDS = {
    "teacher_logits": ("--config=recipe.yaml", "--store=new"),
    "train_student": ("--config=recipe.yaml", "--store=dense", "--out=new"),
    "encode": ("--from=dense", "--store=new", "--k=2", "--rank=2", "--device=cpu"),
}
TRAINING = {"epochs": 4, "batch_size": 16, "device": "cpu", "threads": 1, "seeds": [0], "validation": 0.2}


class Commands:
    """A folder with a recipe and a dense store, and what each command makes when it is left alone."""

    def __init__(self, folder: Path, server: Server, seed: int) -> None:
        self.folder, self.server = folder, server
        before = Path.cwd()
        os.chdir(folder)
        try:
            self.recipe = recipe(np.random.default_rng(seed)) | {"student": NET, "training": TRAINING}
        finally:
            os.chdir(before)
        layout = {"layout": self.recipe["labels"]["layout"], "rows_per_shard": 16, "rows_per_chunk": 16}
        self.encodings: dict[str, Any] = {"dense": layout, "sparse": layout | {"encoding": "topk", "k": 2, "rank": 2}}
        self.write_recipe("dense")
        self.made: dict[tuple[str, str], tuple[dict[str, bytes], int]] = {}
        words = ["--config=recipe.yaml", "--store=dense"]
        assert self.run("teacher_logits", words=words) == 0, self.said()

    def write_recipe(self, encoding: str) -> None:
        whole = self.recipe | {"labels": self.encodings[encoding]}
        (self.folder / "recipe.yaml").write_text(yaml.safe_dump(whole))

    def run(self, do: str, *, words: list[str] | None = None, at: tuple[int, ...] = (), deaf: bool = False) -> int:
        given = words or list(COMMANDS[do])
        return self.server.run(do=do, folder=str(self.folder), words=given, at=list(at), deaf=deaf)

    def said(self) -> str:
        return (self.folder / "said.txt").read_text()

    def preempt(self, rng: np.random.Generator, *, deaf: bool = False) -> None:
        """SIGTERM in the first third of a command, perhaps a second one before its end; then the same command to its end."""
        do, encoding = str(rng.choice([*COMMANDS])), str(rng.choice([*self.encodings]))
        self.write_recipe(encoding)
        if (do, encoding) not in self.made:
            assert self.run(do) == 0, self.said()
            self.made[do, encoding] = (self.result(), int((self.folder / "events.txt").read_text()))
        whole, events = self.made[do, encoding]
        first = int(rng.integers(1, events // 3))  # later on `encode` has only to seal its one shard
        at = (first, first + int(rng.integers(1, 5))) if rng.random() < 0.5 else (first,)
        try:
            status = self.run(do, at=at, deaf=deaf)
            took = time.monotonic() - float((self.folder / "sent.txt").read_text())
            assert status == RESUMABLE, f"{do} with SIGTERM at {at} of {events} events: exit status {status}"
            assert len(at) == 1 or "second SIGTERM" in self.said(), (
                f"{do}: no second SIGTERM at {at} of {events} events"
            )
            assert took < GRACE, f"{do}: {took:.0f} s from SIGTERM to the end"
            assert "run the same command again to resume" in self.said(), self.said()
            assert self.run(do) == 0, self.said()
        finally:
            found = self.result()
        assert found.keys() == whole.keys(), f"{do}: other files"
        assert found == whole, f"{do}: other bytes in {[name for name in found if found[name] != whole[name]]}"

    def result(self) -> dict[str, bytes]:
        """What a command made, and out of the way with it: the digests of a store, or the weights of a run."""
        new, found = self.folder / "new", {}
        for path in sorted(new.rglob("*")):
            if path.name == "manifest.json":
                found[str(path.relative_to(new))] = json.loads(path.read_bytes())["digest"].encode()
            if path.suffix == ".safetensors":
                found[str(path.relative_to(new))] = path.read_bytes()
        self.made_number = getattr(self, "made_number", 0) + 1
        if new.exists():
            new.rename(self.folder / f"made{self.made_number}")
        return found


@contextmanager
def served() -> Iterator[tuple[Path, Server]]:
    """A folder, and the server of commands."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder), server("tests.faults.commands")


def preempted(count: int, seed: int) -> Outcome:
    with served() as (folder, commands):
        return repeated(count, seed, Commands(folder, commands, seed).preempt)


def preempted_deaf(seed: int) -> Outcome:
    with served() as (folder, commands):
        attack = Commands(folder, commands, seed).preempt
        return repeated(2, seed, lambda rng: attack(rng, deaf=True))


def stuck(folder: Path, server: Server, do: str, rng: np.random.Generator, *, patience: float, limit: float) -> None:
    """A process is stopped that another waits for: in time it says so, and who it is."""
    work = Path(tempfile.mkdtemp(dir=folder))
    began = time.monotonic()
    pid = server.start(do=do, folder=str(work), seed=int(rng.integers(1 << 30)), patience=patience)

    def end() -> None:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)

    timer = threading.Timer(limit, end)
    timer.start()
    status = server.wait()
    timer.cancel()
    took = time.monotonic() - began
    end()  # what is still stopped
    said = (work / "said.txt").read_text()
    assert status == RESUMABLE, f"{do}: exit status {status} after {took:.0f} s: {said[-300:]}"
    who = HANGS.get(do) or f"process {(work / 'stopped.txt').read_text()} ("
    assert any(line.startswith("Stalled: ") and who in line for line in said.splitlines()), (
        f"{said} does not name {who}"
    )


def waiting(do: str) -> Trial:
    def run(count: int, seed: int) -> Outcome:
        with served() as (folder, commands):
            return repeated(
                count, seed, lambda rng: stuck(folder, commands, do, rng, patience=PATIENCE, limit=60 * PATIENCE)
            )

    def control(seed: int) -> Outcome:
        with served() as (folder, commands):
            return repeated(1, seed, lambda rng: stuck(folder, commands, do, rng, patience=1e6, limit=3 * PATIENCE))

    return Trial(12, WAITS[do], 10, 1, run, control, "no timeout")


WAITS = {
    "worker": "SIGSTOP of a worker process of a DataLoader",
    "preparing": "SIGSTOP of a process that prepares the rows another one needs",
    "sweeping": "SIGSTOP of a writer that sweeps a store which another one opens",
    "decoding": "SIGSTOP of a process from whose pipe the loader's thread reads",
    "writing": "the thread that writes shards hangs at a flush, under teacher-logits",
}
HANGS = {  # what is said where no process is stopped
    "decoding": "softlabels-prefetch in blocks (commands.py:",
    "writing": "softlabels-write_0 in ",
}
TRIALS = (
    Trial(
        11,
        "SIGTERM to teacher-logits, train-student and encode, and a second one to half of them",
        60,
        3,
        preempted,
        preempted_deaf,
        "signals not heard",
    ),
    *(waiting(do) for do in WAITS),
)
