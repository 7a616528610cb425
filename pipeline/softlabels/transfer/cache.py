"""Prepared rows on disk: raw `.npy` files, written once, mapped ever after, and never used when half written or damaged.

One folder an identity (a digest of everything that the arrays depend on). It is written under another name, flushed and
renamed, so a kill leaves no half cache; `meta.json` holds size and blake3 of each file, checked at every opening, and a
folder that fails is made again. A lock keeps two processes from doing the same work. Not a store: nobody is given it, and it
may be deleted at any time. Neighbour: `rows` says what is written.
"""

from __future__ import annotations

import fcntl
import io
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from softlabels.errors import ConfigError, DiskFull, StorageError, TransferSetError
from softlabels.store.durable import clear_away, make_folder, sync_folder, system_errors, write_file
from softlabels.store.patience import closing, flush, hung, wait_for_lock

Array = npt.NDArray[np.generic]
FileRecord = dict[str, int | str]  # name, bytes, blake3
_log = logging.getLogger(__name__)


def default_cache() -> Path:
    """`$SOFTLABELS_CACHE`, or `~/.cache/softlabels/prepared`. Raises ConfigError where nobody's home is known."""
    named = os.environ.get("SOFTLABELS_CACHE")
    try:
        return Path(named).expanduser() if named else Path.home() / ".cache" / "softlabels" / "prepared"
    except RuntimeError as error:
        raise ConfigError(
            f"there is no place for prepared rows: {error}", remedy="set SOFTLABELS_CACHE to a folder, or HOME"
        ) from None


def cached(root: Path, identity: Mapping[str, object], fill: Callable[[Path], list[FileRecord]]) -> dict[str, Array]:
    """The arrays of `identity` by file stem, memory-mapped read-only; `fill(folder)` writes them where they are missing or
    damaged, and returns their records.

    Raises:
        DiskFull, StorageError: the cache cannot be written. Stalled: a process that prepares these rows hangs.
    """
    name = blake3(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
    folder = root / name
    try:
        make_folder(root)
        with _lock(root / f"{name}.lock", lambda: _written(root, name)):
            if not _sound(folder, identity):
                for leftover in [folder, *root.glob(f"{name}.part-*")]:
                    shutil.rmtree(leftover, ignore_errors=True)
                _write(folder, identity, fill)
    except (DiskFull, StorageError) as error:
        remedy = "make room or mend it, or set SOFTLABELS_CACHE to another folder, then run the same command again"
        raise type(error)(error.what, remedy=remedy) from error
    return {file.stem: np.load(file, mmap_mode="r", allow_pickle=False) for file in folder.glob("*.npy")}


@contextmanager
def _lock(path: Path, life: Callable[[], object]) -> Iterator[None]:
    """Hold the lock file; the system lets go of it when the process dies. Raises `Stalled` where another process holds it and
    `life()` does not change.
    """
    with system_errors("lock", path):
        file = path.open("wb")
    with closing(file):
        with system_errors("lock", path):
            wait_for_lock(file.fileno(), fcntl.LOCK_EX, path, life=life)
        yield


def _written(root: Path, name: str) -> int:
    """Bytes that whoever prepares these rows has written so far."""
    with suppress(FileNotFoundError):  # renamed meanwhile
        return sum(file.stat().st_size for part in root.glob(f"{name}.part-*") for file in part.iterdir())
    return -1


def _sound(folder: Path, identity: Mapping[str, object]) -> bool:
    """Whether the folder holds what was written for this identity, byte for byte."""
    if not folder.exists():
        return False
    try:
        meta = json.loads((folder / "meta.json").read_text())
        if meta["identity"] == identity and all(_matches(folder, record) for record in meta["files"]):
            return True
    except (OSError, ValueError, KeyError, TypeError):
        pass
    _log.warning("the prepared rows in %s are damaged; preparing them again", folder)
    return False


def _matches(folder: Path, record: FileRecord) -> bool:
    file = folder / str(record["name"])
    if file.stat().st_size != record["bytes"]:
        return False
    return blake3().update_mmap(file).hexdigest() == record["blake3"]


def _write(folder: Path, identity: Mapping[str, object], fill: Callable[[Path], list[FileRecord]]) -> None:
    """Fill a folder under another name, flush it, and give it its name."""
    with system_errors("create a folder in", folder.parent):
        part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.part-", dir=folder.parent))
    try:
        meta = {"identity": identity, "files": fill(part)}
        write_file(part / "meta.json", json.dumps(meta, indent=1).encode())
        sync_folder(part)
        with system_errors("rename", part):
            part.rename(folder)
        sync_folder(folder.parent)
    finally:
        clear_away(part)


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
        if not hung():  # closing it would hang too
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
            flush(self._file.fileno(), self.path)
        return {"name": self.path.name, "bytes": self._size, "blake3": self._hasher.hexdigest()}
