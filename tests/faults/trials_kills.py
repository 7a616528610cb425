"""Promise 1: a writer that is killed loses nothing that it acknowledged, and the next one makes the same store. By SIGKILL at
random moments, through the command line too, and at every system call that changes something.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from softlabels.store import shard_writer
from softlabels.store.commit import create, discard
from softlabels.store.json_files import pretty_json
from softlabels.store.paths import record_name, staged
from softlabels.store.records import Commit
from softlabels.system.local import LocalFolder
from tests.faults.apart import apart, scratch
from tests.faults.campaign import Outcome, Trial, repeated
from tests.faults.sweep import sweep
from tests.faults.writers import Acknowledge, Case, Child, Ended, visible

NAIVE = "record first, then the files under their final names"


def killed_writers(count: int, seed: int) -> Outcome:
    return repeated(count, seed, partial(_killed, lambda: None))


def killed_naive_writers(seed: int) -> Outcome:
    return repeated(30, seed, partial(_killed, without_protocol))


def _killed(prepare: Callable[[], None], rng: np.random.Generator) -> None:
    """One store, whose writers are killed one to four times at random moments."""
    with scratch() as folder:
        case = Case.make(rng, Path(folder))
        path, acknowledged, kills, wanted = Path(folder) / "store", set[int](), 0, int(rng.integers(1, 5))
        usual = case.seconds

        def work(acknowledge: Acknowledge) -> None:
            prepare()
            case.write(path, acknowledge)

        for attempt in range(40):
            before = visible(path)
            child, began = Child(work).go(), time.monotonic()
            alive = child.lasts(float(rng.uniform(0, usual * 1.1)))
            ended = child.kill() if alive else child.end()
            acknowledged |= ended.acknowledged
            assert ended.code in (0, -9), ended.error
            case.require_kept(path, acknowledged, before)
            kills += ended.code != 0
            if kills >= wanted or (ended.code == 0 and kills):
                break
            if ended.code == 0:  # it was quicker than the kill: begin anew
                path, acknowledged = path.with_name(f"store{attempt}"), set()
                usual = min(usual, time.monotonic() - began)
        assert kills, "the writer was never killed"
        case.finish(path)


def naive(pause: float, store: LocalFolder, record: Commit) -> bool:
    """What a writer without the protocol would do: the record, then the files under their final names."""
    names = sorted(record.payload.files)
    files = {name: store.read(staged(record.write_id, number)) for number, name in enumerate(names)}
    discard(store, record.write_id)
    record = msgspec.structs.replace(record, write_id=uuid.uuid4().hex)  # nothing is staged under this one
    create(store, record_name(record.payload.shard), pretty_json(record))
    for name, data in files.items():
        store.make(name.rpartition("/")[0])
        for part in range(0, len(data), 512):  # a slow disk
            time.sleep(pause)
            store.append(name, data[part : part + 512])
    return True


def without_protocol(pause: float = 0.0005) -> None:
    """Take the defence away, in this process; writing 512 bytes takes `pause` seconds."""
    shard_writer.commit = partial(naive, pause)  # type: ignore[attr-defined]


def killed_at_each_call(count: int, seed: int) -> Outcome:
    return sweep(count, seed, calls=".*", fault="signal=SIGKILL", judge=_dead)


def naive_killed_at_each_call(seed: int) -> Outcome:
    return sweep(12, seed, calls="write|openat", fault="signal=SIGKILL", judge=_dead, prepare=without_protocol)


def _dead(case: Case, path: Path, ended: Ended) -> None:
    assert ended.code == -9, f"exit code {ended.code}: {ended.error}"
    case.require_kept(path, ended.acknowledged)


TRIALS = (
    Trial(
        promise=1,
        what="SIGKILL at random moments, one to four times a store",
        count=300,
        quick=3,
        run=partial(apart, killed_writers),
        control=partial(apart, killed_naive_writers),
        control_what=NAIVE,
    ),
    Trial(
        promise=1,
        what="SIGKILL at every system call that writes, flushes, names, removes, locks or opens a file",
        count=1000,  # all of them
        quick=5,
        run=partial(apart, killed_at_each_call),
        control=partial(apart, naive_killed_at_each_call),
        control_what=NAIVE,
        slow=True,
    ),
)
