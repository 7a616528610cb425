"""Writing files so that they survive kills and power cuts: contents are flushed before a name appears, and the folder that
holds the name after it. A flush that failed is never tried again on the same file; the error goes up.

System errors become errors of ours at this border: no room is `DiskFull`, a flush that hangs `Stalled`, everything else
`StorageError`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from softlabels.errors import RunExists, refused
from softlabels.store.patience import close_lock, closing, flush, hung

_PIECE = 1 << 26  # bytes, flushed one after the other: a flush of more could take longer than it is waited for


@contextmanager
def system_errors(action: str, path: Path) -> Iterator[None]:
    """Turn an `OSError` inside the block into `DiskFull` or `StorageError` naming `action` and `path`."""
    try:
        yield
    except OSError as error:
        raise refused(f"cannot {action} {path}: {error.strerror or error}", error) from error


def write_file(path: Path, data: bytes | memoryview) -> None:
    """Write a new file and flush it. The name may exist only inside a staging folder: it is not atomic."""
    with system_errors("write", path), closing(path.open("wb", buffering=0)) as file:
        view = memoryview(data)
        while True:
            view = view[file.write(view[:_PIECE]) :]
            flush(file.fileno(), path)
            if not len(view):
                break


def sync_folder(path: Path) -> None:
    """Flush a folder's list of names."""
    with system_errors("flush", path):
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            flush(handle, path)
        finally:
            os.close(handle)


def clear_away(path: Path) -> None:
    """Remove a file or folder that nothing depends on, as far as the system lets us: an error would hide what went wrong."""
    if hung():
        return
    with suppress(OSError):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Create a folder and its parents, each made durable in its own parent."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with system_errors("create", path):
        path.mkdir(exist_ok=True)
    sync_folder(path.parent)


def create_only(staged: Path, final: Path) -> bool:
    """Give the flushed file `staged` the name `final` unless that name is taken; True when it was free. Atomic: the name
    appears with its whole content, and of several processes one wins.
    """
    with system_errors("create", final):
        try:
            os.link(staged, final)
        except FileExistsError:
            return False
    sync_folder(final.parent)
    return True


def replace_file(staged: Path, final: Path) -> None:
    """Give the flushed file `staged` the name `final`, replacing what stood there; atomic and durable."""
    with system_errors("create", final):
        staged.replace(final)
    sync_folder(final.parent)


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder while the block runs. Raises `RunExists` where one is in it."""
    path = folder / ".lock"
    with system_errors("lock", path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunExists(
                f"another process is at work in {folder}", remedy="wait until it has ended, or give another folder"
            ) from None
        yield
    finally:
        close_lock(handle)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file by way of a temporary name beside it, replacing what stood there."""
    staged = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        write_file(staged, data)
        replace_file(staged, path)
    finally:
        clear_away(staged)
