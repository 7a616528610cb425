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
import shutil
import uuid
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from softlabels import __version__
from softlabels.errors import DamagedShard, MissingShard, StorageError
from softlabels.store.durable import (
    clear_away,
    create_only,
    make_folder,
    replace_file,
    sync_folder,
    system_errors,
    write_file,
)
from softlabels.store.patience import close_lock, wait_for_lock
from softlabels.store.spec import COMMITS, Commit, pretty_json, read_json

STAGING = "staging"
SET_ASIDE = "set_aside"


class WriterLock:
    """The mark of a live writer: a shared lock on the staging folder, gone with the process however it ends."""

    def __init__(self, store: Path) -> None:
        self._path = store / STAGING / "lock"
        self._handle = self._open()

    def _open(self) -> int:
        while True:
            make_folder(self._path.parent)
            with system_errors("lock", self._path), suppress(FileNotFoundError):  # a sealer has just removed the folder
                return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def _lock(self, how: int) -> None:
        """Lock the file that stands under the name, not one that a sealer has removed while we waited for it."""
        while True:
            with system_errors("lock", self._path):
                wait_for_lock(self._handle, how, self._path) if how == fcntl.LOCK_SH else fcntl.flock(self._handle, how)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._handle), self._path.stat()):
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
        close_lock(self._handle)


def record_path(store: Path, shard: int) -> Path:
    """Where the commit record of a shard stands."""
    return store / COMMITS / f"{shard:05}.json"


def is_bound(store: Path) -> bool:
    """Whether somebody's work depends on the store's plan: shards are recorded, or were until `repair` set them aside."""
    return any((store / COMMITS).glob("*.json")) or (store / SET_ASIDE).is_dir()


def stage(store: Path, files: dict[str, bytes]) -> str:
    """Write a shard's files under a new write id, flushed, and return the id."""
    write_id = uuid.uuid4().hex
    folder = store / STAGING / write_id
    try:
        make_folder(folder)
        for number, path in enumerate(sorted(files)):
            write_file(folder / str(number), files[path])
        sync_folder(folder)
    except BaseException:
        discard(store, write_id)
        raise
    return write_id


def commit(store: Path, record: Commit) -> bool:
    """Record a staged write as the shard's content, unless another write already is; then put the recorded one in place.
    True when this write won.
    """
    shard, write_id = record.payload.shard, record.write_id
    staged = store / STAGING / write_id / "record"
    try:
        write_file(staged, pretty_json(record))
    except BaseException:
        discard(store, write_id)
        raise
    # An error from here on leaves the staged files: whether the record got its name is for the next run to see.
    won = create_only(staged, record_path(store, shard))
    if not won:
        discard(store, write_id)
        record = read_json(record_path(store, shard), Commit)
    place(store, record)
    return won


def place(store: Path, record: Commit) -> None:
    """Give a recorded write's files their final names, where that has not been done; then drop its staging folder.

    Raises:
        MissingShard: a file is neither in staging nor in place. DamagedShard: it has another size than was recorded.
    """
    folder = store / STAGING / record.write_id
    moved = set()
    for number, path in enumerate(sorted(record.payload.files)):
        final = store / path
        staged = folder / str(number)
        if staged.exists():
            make_folder(final.parent)
            with system_errors("place", final), suppress(FileNotFoundError):  # another process was quicker
                staged.rename(final)
            moved.add(final.parent)
        _require_size(record.payload.shard, final, record.payload.files[path].size)
    for parent in moved:
        sync_folder(parent)
    if folder.exists():
        discard(store, record.write_id)


def _require_size(shard: int, path: Path, recorded: int) -> None:
    remedy = "run `softlabels repair`, then the same command again"
    try:
        size = path.lstat().st_size
    except FileNotFoundError:
        raise MissingShard(f"shard {shard} is recorded, but its file {path} is gone", remedy=remedy) from None
    if size != recorded:
        raise DamagedShard(
            f"shard {shard} is damaged: {path} has {size} bytes, not the recorded {recorded}", remedy=remedy
        )


def flush_placed(store: Path, records: Iterable[Commit]) -> None:
    """Make records and placed files durable, whoever recorded and placed them: it may have died before it flushed them."""
    for folder in {store / COMMITS, *((store / path).parent for record in records for path in record.payload.files)}:
        sync_folder(folder)


def discard(store: Path, write_id: str) -> None:
    """Remove a write's staging folder; nothing depends on it any more."""
    clear_away(store / STAGING / write_id)


def sweep(store: Path, recorded: Iterable[str]) -> None:
    """Remove staged writes that nobody will commit. Only for a writer that is `alone`, after placement is finished."""
    keep = {*recorded, "lock"}
    for entry in (store / STAGING).iterdir():
        if entry.name not in keep:
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)


def replace_by_way_of_staging(store: Path, name: str, data: bytes) -> None:
    """Write a file of the store atomically and durably, replacing what stood there."""
    staged = store / STAGING / f"{uuid.uuid4().hex}.file"
    try:
        write_file(staged, data)
        make_folder((store / name).parent)
        replace_file(staged, store / name)
    finally:
        clear_away(staged)  # whoever opens the store next sweeps what is left


def environment_here() -> dict[str, str]:
    """What may change a store's bytes though the specification is the same."""
    return {
        "softlabels": __version__, "numpy": version("numpy"), "pyarrow": version("pyarrow"),
        "python": platform.python_version(), "machine": platform.machine(), "system": platform.system(),
    }  # fmt: skip
