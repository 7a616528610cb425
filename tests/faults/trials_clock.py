"""Promise 13: nothing is decided by the clock. While one writer is stopped with a shard staged, another one comes whose clock
(as Python's `time` tells it) is moved by a day or a year, or that finds all file times moved; the first goes on, and the store
is the same.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from softlabels.store import shard_writer, writer
from softlabels.store.paths import STAGING
from softlabels.store.records import Commit
from softlabels.system import presence
from softlabels.system.local import LocalFolder
from tests.faults.apart import apart, scratch
from tests.faults.campaign import Outcome, Trial, repeated
from tests.faults.writers import Acknowledge, Case, Child

DAY, YEAR, HOUR = 86_400, 31_556_952, 3600
STAGED = 10_000


def clock_moved(count: int, seed: int) -> Outcome:
    return repeated(count, seed, partial(_moved, "clock", (1, -1), lambda: None))


def clock_moved_and_believed(seed: int) -> Outcome:
    return repeated(5, seed, partial(_moved, "clock", (1,), sweep_by_age))


def files_moved(count: int, seed: int) -> Outcome:
    return repeated(count, seed, partial(_moved, "files", (1, -1), lambda: None))


def files_moved_and_believed(seed: int) -> Outcome:
    return repeated(5, seed, partial(_moved, "files", (-1,), sweep_by_age))


def unmoved_and_believed(seed: int) -> Outcome:
    """What both controls rest on: where nothing is moved, sweeping by age harms nobody."""
    return repeated(3, seed, partial(_moved, "", (1,), sweep_by_age))


def _moved(what: str, ways: tuple[int, ...], prepare: Callable[[], None], rng: np.random.Generator) -> None:
    seconds = int(rng.choice([DAY, YEAR])) * int(rng.choice(ways))
    with scratch() as folder:
        case, path = Case.make(rng, Path(folder)), Path(folder) / "store"
        shard = int(rng.integers(case.spec.shards))
        first = Child(partial(_stopped_before, shard, case, path)).go()
        while STAGED not in first.acknowledged:
            assert first.lasts(0.02), first.end().error
        if what == "files":
            _move_files(path, seconds)

        def late(acknowledge: Acknowledge) -> None:
            if what == "clock":
                _move_clock(seconds)
            prepare()
            case.write(path, acknowledge, list(range(int(rng.integers(case.spec.shards)))))

        second = Child(late).go().end()
        os.kill(first.pid, signal.SIGCONT)
        ended = first.end()
        assert ended.code == 0, f"the writer that was stopped: {ended.error}"
        assert second.code in (0, 2), f"the one that came meanwhile: {second.error}"  # 2: shards are still missing
        case.require_kept(path, (ended.acknowledged | second.acknowledged) - {STAGED})
        case.finish(path)


def _stopped_before(shard: int, case: Case, path: Path, acknowledge: Acknowledge) -> None:
    """Write the store, stopping between the staging of a shard and its record."""
    record = shard_writer.commit  # type: ignore[attr-defined]

    def stopping(store: Path, staged: Commit) -> bool:
        if staged.payload.shard == shard:
            acknowledge(STAGED)
            os.kill(os.getpid(), signal.SIGSTOP)
        return bool(record(store, staged))

    shard_writer.commit = stopping  # type: ignore[attr-defined]
    case.write(path, acknowledge)


def _move_files(path: Path, seconds: int) -> None:
    for file in [path, *path.rglob("*")]:
        os.utime(file, (file.stat().st_atime + seconds, file.stat().st_mtime + seconds))


def _move_clock(seconds: int) -> None:
    """In this process, for all Python code."""
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() + seconds
    time.time_ns = lambda: now_ns() + seconds * 1_000_000_000


def sweep_by_age() -> None:
    """Take the defence away, in this process: what was staged an hour ago is swept, whoever lives."""

    def sweep(store: LocalFolder) -> None:
        for entry in store.at(STAGING).iterdir():
            if entry.is_dir() and time.time() - entry.stat().st_mtime > HOUR:
                shutil.rmtree(entry)

    presence.Lock.alone = lambda self: True  # type: ignore[method-assign]
    writer.sweep = sweep  # type: ignore[attr-defined]


BY_AGE = "staged writes are swept by their age"
TRIALS = (
    Trial(
        promise=13,
        what="the clock of one of two writers of a store moved by a day or a year, ahead or back",
        count=40,
        quick=2,
        run=partial(apart, clock_moved),
        control=partial(apart, clock_moved_and_believed),
        control_what=BY_AGE,
        slow=True,
    ),
    Trial(
        promise=13,
        what="the times of all files moved by a day or a year, ahead or back, between two writers of one store",
        count=40,
        quick=2,
        run=partial(apart, files_moved),
        control=partial(apart, files_moved_and_believed),
        control_what=BY_AGE,
        slow=True,
    ),
)
