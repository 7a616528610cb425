"""Who is at work in a folder on a disk: every writer holds a shared lock on a file in it, and who needs it alone an exclusive
one.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from softlabels.errors import StorageError
from softlabels.system.durable import system_errors
from softlabels.system.patience import wait_for_lock


class OnDisk(Protocol):
    """What a lock needs of a `LocalFolder`."""

    def at(self, name: str) -> Path: ...
    def make(self, name: str) -> None: ...
    def open(self, name: str, flags: int) -> int: ...
    def status(self, name: str) -> os.stat_result | None: ...


_OWN: set[Lock] = set()  # of this process alone


class Lock:
    """See `softlabels.system.files.Presence`. The lock's folder may be removed by a writer that is alone."""

    def __init__(self, folder: OnDisk, name: str) -> None:
        self._folder, self._name, self._path = folder, name, folder.at(name)
        self._handle = self._open()

    def _open(self) -> int:
        while True:
            self._folder.make(self._name.rpartition("/")[0])
            with system_errors("lock", self._path), suppress(FileNotFoundError):  # the folder has just been removed
                return self._folder.open(self._name, os.O_RDWR | os.O_CREAT)

    def _lock(self, how: int) -> None:
        """Lock the file that stands under the name, not one that was removed while we waited for it."""
        while True:
            with system_errors("lock", self._path):
                wait_for_lock(self._handle, how, self._path) if how == fcntl.LOCK_SH else fcntl.flock(self._handle, how)
            standing = self._folder.status(self._name)
            if standing is not None and os.path.samestat(os.fstat(self._handle), standing):
                return
            gone, self._handle = self._handle, self._open()  # where none can be opened, `close` still has one to close
            os.close(gone)

    def alone(self) -> bool:
        """Where others are alive, a lock held before is given up."""
        try:
            self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB)
        except StorageError as error:
            if isinstance(error.__cause__, BlockingIOError):
                return False
            raise
        return True

    def share(self) -> None:
        """Wait until nobody is alone, then be one among others."""
        self._lock(fcntl.LOCK_SH)

    @contextmanager
    def own(self) -> Iterator[None]:
        """While the block runs, processes that are forked from this one let go of the lock, so that it ends with this one: a
        worker of a `DataLoader` lives on for seconds when who started it is killed.
        """
        _OWN.add(self)
        try:
            yield
        finally:
            _OWN.discard(self)

    def close(self) -> None:
        """The lock goes with its handle."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def _let_go() -> None:
    while _OWN:
        _OWN.pop().close()


os.register_at_fork(after_in_child=_let_go)


def is_locked(folder: OnDisk, name: str) -> bool:
    """Whether somebody holds the lock."""
    with system_errors("lock", folder.at(name)), suppress(FileNotFoundError):
        handle = folder.open(name, os.O_RDWR)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
    return False
