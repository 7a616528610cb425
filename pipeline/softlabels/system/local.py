"""A folder of ours, to write: as `local_files` reads it, so that no link below its root is ever followed.

What is written survives kills and power cuts: contents are flushed before a name appears, and the folder that holds the name
after it.
"""

from __future__ import annotations

import os
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import ClassVar

from softlabels.errors import RunExists, StrangePath
from softlabels.system.durable import make_folder, system_errors
from softlabels.system.handles import LocalSink
from softlabels.system.local_files import LocalFiles
from softlabels.system.presence import Lock, is_locked


def local_folder(place: str | PathLike[str] | LocalFolder) -> LocalFolder:
    """A path that the user names, as the root of what is below it; a folder as it is."""
    return place if isinstance(place, LocalFolder) else LocalFolder(place)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that the user names, by way of a temporary name beside it, replacing what stood there."""
    LocalFolder(path.parent).put(path.name, data)


class LocalFolder(LocalFiles):
    """See `LocalFiles`; the port `softlabels.system.files.Folder`, and what only a disk has.

    ::

        run = LocalFolder("runs/mine")
        run.make()
        run.put("run.json", b"{}")
        run.within("distilled-seed0").make()
    """

    sees_writers: ClassVar[bool] = True

    def make(self, name: str = "") -> None:
        """Create a folder and those above it, each made durable in its own parent."""
        if not (name or self.inside):
            make_folder(self.root)
            return
        if self.is_folder(name):
            return
        above, _, last = f"{self.inside}/{name}".strip("/").rpartition("/")
        parent = type(self)(self.root, above)
        parent.make()
        with system_errors("create", self.at(name)), parent._parent(last) as (handle, _), suppress(FileExistsError):
            os.mkdir(last, dir_fd=handle)  # another process may be quicker, or a file stand there
        with system_errors("create", self.at(name)):
            os.close(self._folder_handle(name))
        parent.sync()

    @contextmanager
    def filled(self, name: str, *, durable: bool = True) -> Iterator[LocalSink]:
        """A new file to be filled, flushed when the block ends. Not atomic: the name may exist only where nobody looks."""
        self.make(name.rpartition("/")[0])
        with system_errors("write", self.at(name)):
            handle = self.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            try:
                yield LocalSink(handle, self.at(name))
                if durable:
                    os.fsync(handle)
            finally:
                os.close(handle)

    def write(self, name: str, data: bytes | memoryview, *, durable: bool = True) -> None:
        """The same in one piece."""
        with self.filled(name, durable=durable) as out:
            out.write(data)

    def append(self, name: str, data: bytes) -> None:
        """Append to a plain file, without a flush; it is created where it is not there."""
        with system_errors("write", self.at(name)):
            handle = self.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            with os.fdopen(handle, "ab") as file:
                file.write(data)

    def create(self, name: str, data: bytes, *, staged: str, durable: bool = True) -> bool:
        """Write a file, by way of `staged`, unless its name is taken; True when it was free. Of several processes one wins."""
        self.make(name.rpartition("/")[0])
        try:
            self.write(staged, data, durable=durable)
            won = self._link(staged, name)
            if durable:
                self.settle([name])
        finally:
            self.clear(staged)
        return won

    def _link(self, staged: str, name: str) -> bool:
        with system_errors("create", self.at(name)), self._parent(staged) as source, self._parent(name) as target:
            try:
                os.link(source[1], target[1], src_dir_fd=source[0], dst_dir_fd=target[0], follow_symlinks=False)
            except FileExistsError:
                return False
        return True

    @contextmanager
    def only_process(self) -> Iterator[None]:
        """Keep other processes out of the folder while the block runs. Raises `RunExists` where one is in it."""
        lock = self.enter(".lock")
        try:
            if not lock.alone():
                raise RunExists(
                    f"another process is working in {self}", remedy="wait until it has ended, or give another folder"
                )
            with lock.own():
                yield
        finally:
            lock.close()

    def put(self, name: str, data: bytes, *, staged: str | None = None, durable: bool = True) -> None:
        """Write a file atomically by way of the temporary name `staged`, by default one beside it."""
        folder, _, last = name.rpartition("/")
        staged = staged or f"{folder}/.{last}.{uuid.uuid4().hex}".lstrip("/")
        self.make(folder)
        try:
            self.write(staged, data, durable=durable)
            self.place({staged: name})
            if durable:
                self.settle([name])
        finally:
            self.clear(staged)

    def place(self, staged: Mapping[str, str]) -> None:
        """Rename files, links themselves too; those that are not there are where they should be."""
        for name, target in staged.items():
            self.make(target.rpartition("/")[0])
            self.rename(name, target)

    def settle(self, names: Iterable[str]) -> None:
        """Flush the lists of names of the folders that hold these."""
        for folder in dict.fromkeys(name.rpartition("/")[0] for name in names):
            self.sync(folder)

    def rename(self, name: str, target: str) -> bool:
        """Rename a file, folder or link itself; False where it is not there. Durable once both folders are flushed."""
        with system_errors("rename", self.at(name)), suppress(FileNotFoundError):
            with self._parent(name) as source, self._parent(target) as found:
                os.rename(source[1], found[1], src_dir_fd=source[0], dst_dir_fd=found[0])
            return True
        return False

    def sync(self, name: str = "") -> None:
        """Flush a folder's list of names."""
        with system_errors("flush", self.at(name)):
            handle = self._folder_handle(name)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def remove(self, name: str) -> None:
        """Remove a file, or a link itself, where it is there."""
        with system_errors("remove", self.at(name)), suppress(FileNotFoundError), self._parent(name) as (parent, last):
            os.unlink(last, dir_fd=parent)

    def clear(self, name: str) -> None:
        """Remove a file, a link itself, or a folder with all that is in it, on which nothing depends: as far as the system lets
        us, since an error would hide what went wrong.
        """
        with suppress(OSError, StrangePath), self._parent(name) as (parent, last):
            if stat.S_ISDIR(os.stat(last, dir_fd=parent, follow_symlinks=False).st_mode):
                shutil.rmtree(last, ignore_errors=True, dir_fd=parent)  # follows no link, from handle to handle
            else:
                os.unlink(last, dir_fd=parent)

    def enter(self, lock: str) -> Lock:
        return Lock(self, lock)

    def busy(self, lock: str) -> bool:
        return is_locked(self, lock)

    def room(self) -> int:
        """Bytes that are free."""
        with system_errors("look at", self.at()):
            return shutil.disk_usage(self.at()).free

    def block(self) -> int:
        """Bytes that a file takes at least; network file systems call what they transfer at once so, up to 4 MiB."""
        with system_errors("look at", self.at()):
            return min(os.statvfs(self.at()).f_frsize, 4096)
