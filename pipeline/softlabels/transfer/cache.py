"""Prepared rows on disk: raw `.npy` files, written once, mapped ever after, and never used when half written or damaged.

One folder an identity (a digest of everything that the arrays depend on). It is written under another name, flushed and
renamed, so a kill leaves no half cache; `meta.json` holds size and blake3 of each file, checked at every opening, and a
folder that fails is made again. A lock keeps two processes from doing the same work. Not a store: nobody is given it, and it
may be deleted at any time. Users of one group may share a cache: files have the modes that a user's umask lets through, and who
may write to it decides what rows are (docs/data.md). Neighbours: `rows` says what is written, `cache_entries` lists, deletes.
"""

from __future__ import annotations

import fcntl
import io
import json
import logging
import os
import stat
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError  # of the header of a .npy file, which numpy reads as Python
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from softlabels.errors import ConfigError, DiskFull, StorageError, StrangePath, TransferSetError
from softlabels.system.durable import system_errors
from softlabels.system.local import LocalFolder
from softlabels.system.patience import wait_for_lock

Array = npt.NDArray[np.generic]
FileRecord = dict[str, int | str]  # name, bytes, blake3
META = "meta.json"
_BROKEN = (OSError, ValueError, KeyError, TypeError, EOFError, RecursionError, OverflowError, TokenError, SyntaxError)
_log = logging.getLogger(__name__)


def default_cache() -> Path:
    """`$SOFTLABELS_CACHE`, or `~/.cache/softlabels/prepared`. Raises ConfigError where nobody's home is known."""
    named = os.environ.get("SOFTLABELS_CACHE")
    try:
        return Path(named).expanduser() if named else Path.home() / ".cache" / "softlabels" / "prepared"
    except RuntimeError as error:
        raise ConfigError(
            f"there is no folder for prepared rows: {error}", remedy="set SOFTLABELS_CACHE to a folder, or HOME"
        ) from None


@dataclass(frozen=True, eq=False)
class Entry:
    """One folder of the cache.

    Attributes:
        arrays: by file stem, memory-mapped read-only.
        facts: what `fill` handed on of them.
    """

    arrays: dict[str, Array]
    facts: dict[str, Any]


def cached(
    root: Path,
    identity: Mapping[str, object],
    fill: Callable[[Path], tuple[list[FileRecord], dict[str, Any]]],
    *,
    about: Mapping[str, object],
    is_current: Callable[[dict[str, Array]], bool],
    fits: Callable[[Entry], bool] = lambda entry: True,
) -> Entry:
    """The arrays of `identity`.

    Args:
        root: the cache.
        identity: JSON values, everything that the arrays are known to depend on.
        fill: `fill(folder)` writes the arrays where they are missing, damaged or stale; it returns their records, and facts.
        about: JSON values for `softlabels cache`, and for finding the other splits of a transfer set.
        is_current: asked at every opening; False: the arrays depend on something else, which has changed.
        fits: whether an entry has the arrays and facts that `fill` gives; False: somebody else wrote it.

    Raises:
        StrangePath: another user's entry, where anybody may put one.
        DiskFull, StorageError: the cache cannot be written. Stalled: a process that prepares these rows hangs.
    """
    cache, name = LocalFolder(root), entry_name(identity)
    entry = cache.within(name)
    try:
        cache.make()
        _refuse_planted(cache, name)
        with lock(cache, f"{name}.lock", lambda: _written(cache, name)):
            sound = _sound(entry, identity, fits)
            if sound and not is_current(_arrays(entry)):
                _log.warning("the prepare function gives other rows than those in %s; preparing them again", entry)
                sound = False
            if not sound:
                for leftover in cache.names():
                    if leftover == name or leftover.startswith(f"{name}.part-"):
                        cache.clear(leftover)
                _write(cache, name, {"identity": identity, "about": about}, fill)
            _mark_used(entry)
            # in the lock: beyond it another process may replace or delete the folder, and what is mapped stays
            return _opened(entry)
    except (DiskFull, StorageError) as error:
        remedy = (
            "make room, set SOFTLABELS_CACHE to a folder of your own, or let the cache's owner share it with your "
            "group (docs/data.md), then run the same command again"
        )
        raise type(error)(error.what, remedy=remedy) from error


def _refuse_planted(cache: LocalFolder, name: str) -> None:
    """Raise `StrangePath` where anybody may write to the cache, and this entry is neither ours nor of the cache's owner."""
    above, entry = cache.status(), cache.status(name)
    if above is None or entry is None or not above.st_mode & stat.S_IWOTH:
        return
    if entry.st_uid not in (os.geteuid(), above.st_uid, 0):
        raise StrangePath(
            f"{cache.at(name)} belongs to another user, and anybody may write to {cache}",
            remedy="set SOFTLABELS_CACHE to a folder of your own, or let only those write to it whom you trust (chmod o-w)",
        )


def _mark_used(entry: LocalFolder) -> None:
    handle = entry.open(META)
    try:
        with suppress(OSError):  # of a read-only cache nobody sees when it was used
            os.utime(handle)
    finally:
        os.close(handle)


def entry_name(identity: Mapping[str, object]) -> str:
    """The name of an entry's folder."""
    return blake3(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


def _opened(entry: LocalFolder) -> Entry:
    return Entry(_arrays(entry), json.loads(entry.read(META))["facts"])


def _arrays(entry: LocalFolder) -> dict[str, Array]:
    files = (entry.at(file) for file in entry.names() if file.endswith(".npy"))
    return {file.stem: np.load(file, mmap_mode="r", allow_pickle=False) for file in files}


@contextmanager
def lock(cache: LocalFolder, name: str, progress: Callable[[], object]) -> Iterator[None]:
    """Hold the lock file; the system lets go of it when the process dies. Raises `Stalled` where another process holds it and
    `progress()` does not change.
    """
    path = cache.at(name)
    with system_errors("lock", path):
        handle = cache.open(name, os.O_RDWR | os.O_CREAT, 0o666)  # less what the umask takes: a group may share it
    try:
        with system_errors("lock", path):
            wait_for_lock(handle, fcntl.LOCK_EX, path, progress=progress)
        yield
    finally:
        os.close(handle)


def _written(cache: LocalFolder, name: str) -> int:
    """Bytes that whoever prepares these rows has written so far."""
    parts = [part for part in cache.folders() if part.name.startswith(f"{name}.part-")]
    found = [part.status(file) for part in parts for file in part.names()]
    return sum(status.st_size for status in found if status is not None)


def _sound(folder: LocalFolder, identity: Mapping[str, object], fits: Callable[[Entry], bool]) -> bool:
    """Whether the folder, and no link, holds what was written for this identity, byte for byte."""
    if folder.status() is None:
        return False
    try:
        meta = json.loads(folder.read(META))
        names = {str(record["name"]) for record in meta["files"]} | {META}
        is_whole = meta["identity"] == identity and isinstance(meta["facts"], dict) and names == set(folder.names())
        # Whoever wrote meta.json may have written the arrays too.
        if is_whole and all(_matches(folder, record) for record in meta["files"]) and fits(_opened(folder)):
            return True
    except (*_BROKEN, StrangePath, StorageError):
        pass
    _log.warning("the prepared rows in %s are damaged; preparing them again", folder)
    return False


def _matches(folder: LocalFolder, record: FileRecord) -> bool:
    name = str(record["name"])
    handle = folder.open(name)  # no link
    try:
        same_size = os.fstat(handle).st_size == record["bytes"]
    finally:
        os.close(handle)
    return same_size and blake3().update_mmap(folder.at(name)).hexdigest() == record["blake3"]


def _write(
    cache: LocalFolder,
    name: str,
    meta: Mapping[str, object],
    fill: Callable[[Path], tuple[list[FileRecord], dict[str, Any]]],
) -> None:
    """Fill a folder under another name, flush it, and give it its name."""
    part = cache.within(f"{name}.part-{uuid.uuid4().hex}")
    part.make()
    try:
        files, facts = fill(part.at())
        part.write(META, json.dumps({**meta, "files": files, "facts": facts}, indent=1).encode())
        part.sync()
        cache.rename(part.name, name)
        cache.sync()
    finally:
        cache.clear(part.name)


class NpyFile:
    """A `.npy` file written block by block along its first axis, whose length is known beforehand.

    Written through a file handle and not through a map, because a full disk kills a process that writes into a map.
    """

    def __init__(self, path: Path, *, rows: int) -> None:
        self.path = path
        self._rows, self._written = rows, 0
        self._kind: tuple[np.dtype[np.generic], tuple[int, ...]] | None = None
        self._hasher, self._size = blake3(), 0
        with system_errors("create", path):
            self._file = path.open("wb", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, block: Array) -> None:
        """Add rows (B, ...).

        Raises:
            TransferSetError: dtype or row shape differ from those of the blocks before.
        """
        kind = (block.dtype, block.shape[1:])
        if self._kind is None:
            self._kind = kind
            header = io.BytesIO()
            shape = (self._rows, *block.shape[1:])
            description = np.lib.format.dtype_to_descr(block.dtype)
            np.lib.format.write_array_header_2_0(header, {"descr": description, "fortran_order": False, "shape": shape})
            self._write(header.getvalue())
        elif kind != self._kind:
            raise TransferSetError(
                f"rows have different shapes: {self._kind[0]}{list(self._kind[1])} up to row {self._written}, "
                f"then {block.dtype}{list(block.shape[1:])}",
                remedy="set prepare to a function that gives every row the same dtype and shape",
            )
        self._write(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
        self._written += len(block)

    def _write(self, data: bytes | memoryview) -> None:
        left = memoryview(data)
        with system_errors("write", self.path):
            while len(left):
                left = left[self._file.write(left) :]
        self._hasher.update(data)
        self._size += len(data)

    def finish(self) -> FileRecord:
        """Flush to the disk; name, size and digest of the file."""
        with system_errors("flush", self.path):
            os.fsync(self._file.fileno())
        return {"name": self.path.name, "bytes": self._size, "blake3": self._hasher.hexdigest()}
