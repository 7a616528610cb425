"""Promise 2: a shard that is acknowledged survives a power cut, and nothing bad stands under a final name after it. An ext4 in
a file is shut down under a writer as by pulling the plug, mounted again, and read.
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from softlabels.system.local import write_atomically
from tests.faults.apart import apart, scratch
from tests.faults.campaign import NotHere, Outcome, Trial, repeated
from tests.faults.writers import SEALED, Acknowledge, Case, Child

SHUTDOWN = 0x8004587D  # the ioctl FS_IOC_SHUTDOWN of ext4 and xfs
LOG_FLUSHED, LOG_LOST = 1, 2  # whether what the journal holds in memory is written first
IMAGE_BYTES = 24 << 20


def cut_with_log_flushed(count: int, seed: int) -> Outcome:
    return repeated(count, seed, partial(_power_cut, LOG_FLUSHED, lambda: None))


def cut_with_log_lost(count: int, seed: int) -> Outcome:
    return repeated(count, seed, partial(_power_cut, LOG_LOST, lambda: None))


def unflushed_cut_with_log_flushed(seed: int) -> Outcome:
    return repeated(8, seed, partial(_power_cut, LOG_FLUSHED, without_flushes))


def unflushed_cut_with_log_lost(seed: int) -> Outcome:
    return repeated(8, seed, partial(_power_cut, LOG_LOST, without_flushes))


def _power_cut(flag: int, prepare: Callable[[], None], rng: np.random.Generator) -> None:
    """One store, cut off once or twice while it is written; nine times in ten after a shard was acknowledged."""
    with scratch() as folder:
        case, disk = Case.make(rng, Path(folder)), Disk(Path(folder))
        store = disk.path / "store"

        def work(acknowledge: Acknowledge) -> None:
            prepare()
            case.write(store, acknowledge)

        acknowledged = set[int]()
        try:
            for _ in range(int(rng.integers(1, 3))):
                disk.mount()
                pending = case.spec.shards - len(acknowledged - {SEALED})
                wanted = int(rng.integers(1, max(2, pending))) if rng.random() < 0.9 else 0
                child = Child(work).go()
                child.says(wanted)
                child.lasts(float(rng.uniform(0, case.seconds / case.spec.shards)))
                disk.cut(flag)
                acknowledged |= child.kill().acknowledged
                disk.unmount()
                disk.mount()
                case.require_kept(store, acknowledged)
                disk.unmount()
            disk.mount()
            case.finish(store)
        finally:
            disk.unmount()


def cut_while_replacing(count: int, seed: int) -> Outcome:
    return repeated(count, seed, partial(_cut_file, lambda: None))


def unflushed_cut_while_replacing(seed: int) -> Outcome:
    return repeated(5, seed, partial(_cut_file, without_flushes))


def _cut_file(prepare: Callable[[], None], rng: np.random.Generator) -> None:
    """A file that is written anew again and again, as checkpoints, weights and results are, and cut off at a random moment."""
    with scratch() as folder:
        disk, size = Disk(Path(folder)), int(rng.integers(1, 100_000))
        file = disk.path / "file"

        def work(acknowledge: Acknowledge) -> None:
            prepare()
            for number in range(1_000_000):
                write_atomically(file, f"{number:08}".encode() * size)
                acknowledge(number)

        try:
            disk.mount()
            child = Child(work).go()
            child.says(1)
            child.lasts(float(rng.uniform(0, 0.1)))
            disk.cut(int(rng.choice([LOG_FLUSHED, LOG_LOST])))
            last = max(child.kill().acknowledged, default=-1)
            disk.unmount()
            disk.mount()
            found = file.read_bytes() if file.exists() else b""
            number = int(found[:8]) if found[:8].isdigit() else -1
            whole = found == f"{number:08}".encode() * size or not file.exists()
            assert whole, f"{len(found)} bytes, not {8 * size} of one writing"
            assert number >= last, f"writing {number} is there, and {last} was acknowledged"
        finally:
            disk.unmount()


class Disk:
    """An ext4 file system in a file of `folder`, seen at `path` while it is mounted."""

    def __init__(self, folder: Path) -> None:
        self.image, self.path = folder / "image", folder / "disk"
        self.path.mkdir()
        self.image.touch()
        os.truncate(self.image, IMAGE_BYTES)
        made = subprocess.run(["mkfs.ext4", "-q", "-F", self.image], capture_output=True, text=True, check=False)
        if made.returncode:
            raise NotHere(f"no ext4 can be made: {made.stderr.strip()}")

    def mount(self) -> None:
        mounted = subprocess.run(["mount", "-o", "loop", self.image, self.path], capture_output=True, text=True)
        if mounted.returncode:
            raise NotHere(f"no ext4 can be mounted: {mounted.stderr.strip()}")

    def unmount(self) -> None:
        if self.path.is_mount():
            subprocess.run(["umount", self.path], check=True)

    def cut(self, flag: int) -> None:
        """Nothing more reaches the disk."""
        handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, SHUTDOWN, struct.pack("I", flag))
        finally:
            os.close(handle)


def without_flushes() -> None:
    """Take the defence away, in this process."""
    os.fsync = lambda handle: None


NO_FLUSH = "fsync does nothing"
TRIALS = (
    Trial(
        promise=2,
        what="ext4 shut down at a random moment, its journal flushed",
        count=100,
        quick=3,
        run=partial(apart, cut_with_log_flushed, mounts=True),
        control=partial(apart, unflushed_cut_with_log_flushed, mounts=True),
        control_what=NO_FLUSH,
        slow=True,
    ),
    Trial(
        promise=2,
        what="ext4 shut down at a random moment, its journal lost",
        count=100,
        quick=3,
        run=partial(apart, cut_with_log_lost, mounts=True),
        control=partial(apart, unflushed_cut_with_log_lost, mounts=True),
        control_what=NO_FLUSH,
        slow=True,
    ),
    Trial(
        promise=2,
        what="ext4 shut down under a file that is replaced again and again, as a checkpoint is",
        count=100,
        quick=3,
        run=partial(apart, cut_while_replacing, mounts=True),
        control=partial(apart, unflushed_cut_while_replacing, mounts=True),
        control_what=NO_FLUSH,
        slow=True,
    ),
)
