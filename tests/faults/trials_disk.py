"""Promises 3 and 4: a disk that is full or fails. What is acknowledged stays, nothing partial shows under a final name, the
exit code says which it was, and with room again the same command makes the same store.
"""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

from softlabels.system.handles import LocalSink
from tests.faults.apart import apart, scratch
from tests.faults.campaign import Outcome, Trial, repeated
from tests.faults.sweep import Judge, sweep
from tests.faults.writers import Acknowledge, Case, Child, Ended

FULL, FAILED = 75, 74
WRITING = "p?write(64|v)?|f(data)?sync|link(at)?|rename(at2?)?|mkdir(at)?"


def small_disks(count: int, seed: int) -> Outcome:
    return repeated(count, seed, partial(_on_a_small_disk, lambda: None))


def small_disks_unheeded(seed: int) -> Outcome:
    return repeated(6, seed, partial(_on_a_small_disk, take_short_writes))


def _on_a_small_disk(prepare: Callable[[], None], rng: np.random.Generator) -> None:
    with scratch() as folder:
        case = Case.make(rng, Path(folder))
        disk = Path(folder) / "disk"
        disk.mkdir()
        size = int(rng.integers(8 << 10, case.size - 4095))  # a tmpfs has whole pages: at least one less than it takes
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", disk], check=True)
        try:
            ended = _write(case, disk / "store", prepare)
            _refused(FULL, case, disk / "store", ended)
            subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
            case.finish(disk / "store")
        finally:
            subprocess.run(["umount", disk], check=True)


def size_limits(count: int, seed: int) -> Outcome:
    return repeated(count, seed, partial(_under_a_size_limit, lambda: None))


def size_limits_unheeded(seed: int) -> Outcome:
    return repeated(6, seed, partial(_under_a_size_limit, take_short_writes))


def _under_a_size_limit(prepare: Callable[[], None], rng: np.random.Generator) -> None:
    with scratch() as folder:
        case, path = Case.make(rng, Path(folder)), Path(folder) / "store"
        size = int(rng.integers(0, case.largest))

        def limited() -> None:
            prepare()
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        _refused(FULL, case, path, _write(case, path, limited))
        case.finish(path)


def _write(case: Case, path: Path, prepare: Callable[[], None]) -> Ended:
    def work(acknowledge: Acknowledge) -> None:
        prepare()
        case.write(path, acknowledge)

    return Child(work).go().end()


def _refused(code: int, case: Case, path: Path, ended: Ended) -> None:
    """The writer said that it could not go on, and left nothing bad."""
    assert ended.code == code, f"exit code {ended.code}, not {code}: {ended.error}"
    case.require_kept(path, ended.acknowledged)


REFUSED: dict[int, Judge] = {code: partial(_refused, code) for code in (FULL, FAILED)}


def no_room_at_each_call(count: int, seed: int) -> Outcome:
    return sweep(count, seed, calls=WRITING, fault="error=ENOSPC", judge=REFUSED[FULL])


def no_room_unheeded(seed: int) -> Outcome:
    return sweep(8, seed, calls="p?write(64|v)?", fault="error=ENOSPC", judge=REFUSED[FULL], prepare=take_short_writes)


def errors_at_each_call(count: int, seed: int) -> Outcome:
    return sweep(count, seed, calls=WRITING, fault="error=EIO", judge=REFUSED[FAILED])


def errors_unheeded(seed: int) -> Outcome:
    return sweep(8, seed, calls="f(data)?sync", fault="error=EIO", judge=REFUSED[FAILED], prepare=ignore_flushes)


def take_short_writes() -> None:
    """Take the defence away, in this process: what does not fit is left out, and nobody asks."""

    def careless(self: LocalSink, data: bytes | memoryview) -> None:
        with suppress(OSError):
            os.write(self._handle, data)

    LocalSink.write = careless  # type: ignore[method-assign]


def ignore_flushes() -> None:
    """Take the defence away, in this process: a flush that fails is taken for one that did not."""
    flush = os.fsync

    def careless(handle: int) -> None:
        with suppress(OSError):
            flush(handle)

    os.fsync = careless


UNHEEDED = "what was written is not asked for"
TRIALS = (
    Trial(
        promise=3,
        what="a tmpfs of a random size that cannot hold the store",
        count=60,
        quick=3,
        run=partial(apart, small_disks, mounts=True),
        control=partial(apart, small_disks_unheeded, mounts=True),
        control_what=UNHEEDED,
        slow=True,
    ),
    Trial(
        promise=3,
        what="a random limit on the size of a file",
        count=60,
        quick=3,
        run=partial(apart, size_limits),
        control=partial(apart, size_limits_unheeded),
        control_what=UNHEEDED,
        slow=True,
    ),
    Trial(
        promise=3,
        what="ENOSPC at every write, fsync, link, rename and mkdir",
        count=1000,  # all of them
        quick=4,
        run=partial(apart, no_room_at_each_call),
        control=partial(apart, no_room_unheeded),
        control_what=UNHEEDED,
        slow=True,
    ),
    Trial(
        promise=4,
        what="EIO at every write, fsync, link, rename and mkdir",
        count=1000,  # all of them
        quick=4,
        run=partial(apart, errors_at_each_call),
        control=partial(apart, errors_unheeded),
        control_what="an fsync that fails is ignored",
        slow=True,
    ),
)
