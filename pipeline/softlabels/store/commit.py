"""The commit protocol of one shard: staged, recorded, placed.

1. Its files are written and flushed in `staging/<write id>/`, under numbers.
2. A commit record that names write id, sizes and digests gets the name `commits/<shard>.json`, which only one writer can
   give. From then on the shard is decided.
3. The recorded write's files are renamed to their final names, and the folders flushed. Only now the shard counts as done.

A death before 2 leaves rubbish in staging; a death between 2 and 3 leaves files that `finish_placement` puts in place.
Staging is swept only by a process that is alone: every writer holds a shared lock on `staging/lock`, the sweeper needs an
exclusive one.
"""

from __future__ import annotations

import fcntl
import os
import platform
import stat
import uuid
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import version

from softlabels import __version__
from softlabels.errors import DamagedShard, MissingShard, StorageError
from softlabels.store.spec import COMMITS, Commit, pretty_json, read_json
from softlabels.system.durable import system_errors
from softlabels.system.local import LocalFolder
from softlabels.system.patience import wait_for_lock

STAGING = "staging"
SET_ASIDE = "set_aside"
LOCK = f"{STAGING}/lock"


class WriterLock:
    """The mark of a live writer: a shared lock on the staging folder, gone with the process however it ends."""

    def __init__(self, store: LocalFolder) -> None:
        self._store, self._path = store, store.at(LOCK)
        self._handle = self._open()

    def _open(self) -> int:
        while True:
            self._store.make(STAGING)
            with system_errors("lock", self._path), suppress(FileNotFoundError):  # a sealer has just removed the folder
                return self._store.open(LOCK, os.O_RDWR | os.O_CREAT)

    def _lock(self, how: int) -> None:
        """Lock the file that stands under the name, not one that a sealer has removed while we waited for it."""
        while True:
            with system_errors("lock", self._path):
                wait_for_lock(self._handle, how, self._path) if how == fcntl.LOCK_SH else fcntl.flock(self._handle, how)
            standing = self._store.status(LOCK)
            if standing is not None and os.path.samestat(os.fstat(self._handle), standing):
                return
            os.close(self._handle)
            self._handle = self._open()

    def alone(self) -> bool:
        """Try to become the only writer; others then cannot start until `share`. Where others are alive, a lock held
        before is given up.
        """
        try:
            self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB)
        except StorageError as error:
            if isinstance(error.__cause__, BlockingIOError):
                return False
            raise
        return True

    def share(self) -> None:
        """Wait until nobody is sweeping, then be one live writer among others. Raises `Stalled` where a sweeper hangs."""
        self._lock(fcntl.LOCK_SH)

    def close(self) -> None:
        """Stop being a live writer."""
        os.close(self._handle)


def record_name(shard: int) -> str:
    """The name of a shard's commit record in its store."""
    return f"{COMMITS}/{shard:05}.json"


def recorded_shards(store: LocalFolder) -> set[int]:
    """The shards that have a commit record."""
    names = (name.removesuffix(".json") for name in store.names(COMMITS) if name.endswith(".json"))
    return {int(name) for name in names if name.isascii() and name.isdigit()}


def is_bound(store: LocalFolder) -> bool:
    """Whether somebody's work depends on the store's plan: shards are recorded, or were until `repair` set them aside."""
    return bool(recorded_shards(store)) or store.exists(SET_ASIDE)


def stage(store: LocalFolder, files: dict[str, bytes]) -> str:
    """Write a shard's files under a new write id, flushed, and return the id."""
    write_id = uuid.uuid4().hex
    folder = f"{STAGING}/{write_id}"
    try:
        store.make(folder)
        for number, name in enumerate(sorted(files)):
            store.write(f"{folder}/{number}", files[name])
        store.sync(folder)
    except BaseException:
        discard(store, write_id)
        raise
    return write_id


def commit(store: LocalFolder, record: Commit) -> bool:
    """Record a staged write as the shard's content, unless another write already is; then put the recorded one in place.
    True when this write won.
    """
    shard, write_id = record.payload.shard, record.write_id
    staged = f"{STAGING}/{write_id}/record"
    try:
        store.write(staged, pretty_json(record))
    except BaseException:
        discard(store, write_id)
        raise
    # An error from here on leaves the staged files: whether the record got its name is for the next run to see.
    won = store.create(staged, record_name(shard))
    if not won:
        discard(store, write_id)
        record = read_json(store, record_name(shard), Commit)
    place(store, record)
    return won


def place(store: LocalFolder, record: Commit) -> None:
    """Give a recorded write's files their final names, where that has not been done; then drop its staging folder.

    Raises:
        MissingShard: a file is neither in staging nor in place. DamagedShard: it is no plain file, or has another size than was
            recorded.
    """
    folder, moved = f"{STAGING}/{record.write_id}", set()
    for number, name in enumerate(sorted(record.payload.files)):
        staged = store.status(f"{folder}/{number}")
        if staged is not None and stat.S_ISREG(staged.st_mode):
            parent = name.rpartition("/")[0]
            store.make(parent)
            store.rename(f"{folder}/{number}", name)  # where another process was quicker, it is there
            moved.add(parent)
        _require_size(store, record.payload.shard, name, record.payload.files[name].size)
    for parent in moved:
        store.sync(parent)
    if store.exists(folder):
        discard(store, record.write_id)


def _require_size(store: LocalFolder, shard: int, name: str, recorded: int) -> None:
    path, remedy = store.at(name), "run `softlabels repair`, then the same command again"
    found = store.status(name)
    if found is None:
        raise MissingShard(f"shard {shard} is recorded, but its file {path} is gone", remedy=remedy)
    if not stat.S_ISREG(found.st_mode):
        raise DamagedShard(f"shard {shard} is damaged: {path} is a link or no file", remedy=remedy)
    if found.st_size != recorded:
        raise DamagedShard(
            f"shard {shard} is damaged: {path} has {found.st_size} bytes, not the recorded {recorded}", remedy=remedy
        )


def flush_placed(store: LocalFolder, records: Iterable[Commit]) -> None:
    """Make records and placed files durable, whoever recorded and placed them: it may have died before it flushed them."""
    for folder in {COMMITS, *(name.rpartition("/")[0] for record in records for name in record.payload.files)}:
        store.sync(folder)


def discard(store: LocalFolder, write_id: str) -> None:
    """Remove a write's staging folder; nothing depends on it any more."""
    store.clear(f"{STAGING}/{write_id}")


def sweep(store: LocalFolder, recorded: Iterable[str]) -> None:
    """Remove staged writes that nobody will commit. Only for a writer that is `alone`, after placement is finished."""
    for name in set(store.names(STAGING)) - {*recorded, "lock"}:
        store.clear(f"{STAGING}/{name}")


def replace_by_way_of_staging(store: LocalFolder, name: str, data: bytes) -> None:
    """Write a file of the store atomically and durably, replacing what stood there. Whoever opens the store next sweeps what a
    kill leaves in staging.
    """
    store.make(name.rpartition("/")[0])
    store.put(name, data, staged=f"{STAGING}/{uuid.uuid4().hex}.file")


def environment_here() -> dict[str, str]:
    """What may change a store's bytes though the specification is the same."""
    return {
        "softlabels": __version__, "numpy": version("numpy"), "pyarrow": version("pyarrow"),
        "python": platform.python_version(), "machine": platform.machine(), "system": platform.system(),
    }  # fmt: skip
