"""A folder of ours (a store, a run, a cache): everything below its root, by name; no link below the root is ever followed.

Whoever hands us a folder may have put a link in it. So every name is opened one step after the other from a handle of the root,
each step refusing a link, and what is found is looked at through its handle: nothing is checked by name first and used by name
later. The root itself may be a link, and lies where the user says.

What is written survives kills and power cuts: contents are flushed before a name appears, and the folder that holds the name
after it. Names are relative and '/'-separated; they come from our code, never from a file.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path

from softlabels.errors import RunExists, StorageError, StrangePath, refused
from softlabels.system.durable import make_folder, system_errors
from softlabels.system.handles import LocalFile, LocalSink
from softlabels.system.presence import Lock, is_locked

_STEP = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe must not hold us up


def local_folder(place: str | PathLike[str] | LocalFolder) -> LocalFolder:
    """A path that the user names, as the root of what is below it; a folder as it is."""
    return place if isinstance(place, LocalFolder) else LocalFolder(place)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that the user names, by way of a temporary name beside it, replacing what stood there."""
    LocalFolder(path.parent).put(path.name, data)


class LocalFolder:
    """A folder below `root`, which is `root` itself where `inside` is "". `str()` of it is its path. The port
    `softlabels.system.files.Folder`, and what only a disk has.

    Every method raises `StrangePath` where a name in front of the last one is a link, and `StorageError` or `DiskFull` where
    the system refuses.

    ::

        run = LocalFolder("runs/mine")
        run.make()
        run.put("run.json", b"{}")
        run.within("distilled-seed0").make()
    """

    def __init__(self, root: str | PathLike[str], inside: str = "") -> None:
        self.root, self.inside = Path(root), inside

    def __str__(self) -> str:
        return str(self.at())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LocalFolder) and (self.root, self.inside) == (other.root, other.inside)

    def __hash__(self) -> int:
        return hash((self.root, self.inside))

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.at().name

    def at(self, name: str = "") -> Path:
        """The path of a name, for messages and for programs that take nothing else."""
        return self.root / self.inside / name

    def within(self, name: str) -> LocalFolder:
        """The folder `name` in this one, with the same root; it need not be there."""
        return LocalFolder(self.root, f"{self.inside}/{name}".lstrip("/"))

    def above(self) -> LocalFolder:
        return LocalFolder(self.root, self.inside.rpartition("/")[0]) if self.inside else LocalFolder(self.root.parent)

    def followed(self, name: str) -> LocalFolder:
        return LocalFolder(self.at(name))

    def overlaps(self, other: object) -> bool:
        if not isinstance(other, LocalFolder):
            return False
        here, there = self.at().resolve(), other.at().resolve()
        return here.is_relative_to(there) or there.is_relative_to(here)

    # What is there

    def status(self, name: str = "") -> os.stat_result | None:
        """What stands under a name, a link being a link; None where nothing does."""
        with system_errors("look at", self.at(name)), suppress(FileNotFoundError):
            if not (name or self.inside):
                return self.root.stat()
            with self._parent(name) as (parent, last):
                return os.stat(last, dir_fd=parent, follow_symlinks=False)
        return None

    def exists(self, name: str = "") -> bool:
        """Whether something, and be it a link, stands under a name."""
        return self.status(name) is not None

    def is_folder(self, name: str = "") -> bool:
        """Whether a folder stands under a name. Raises `StrangePath` where a link does."""
        found = self.status(name)
        if found is not None and stat.S_ISLNK(found.st_mode):
            raise self._linked(name)
        return found is not None and stat.S_ISDIR(found.st_mode)

    def names(self, name: str = "") -> list[str]:
        """The names in a folder, sorted; none where it is not there."""
        with system_errors("list", self.at(name)), suppress(FileNotFoundError):
            handle = self._folder_handle(name)
            try:
                return sorted(os.listdir(handle))  # noqa: PTH208  # a handle is no path
            finally:
                os.close(handle)
        return []

    def folders(self, name: str = "") -> list[LocalFolder]:
        """The folders in a folder; links are none."""
        inner = f"{name}/" if name else ""
        found = ((entry, self.status(inner + entry)) for entry in self.names(name))
        return [self.within(inner + entry) for entry, kind in found if kind is not None and stat.S_ISDIR(kind.st_mode)]

    def list(self, name: str = "") -> Iterator[str]:
        inner = f"{name}/" if name else ""
        for entry in self.names(name):
            found = self.status(inner + entry)
            if found is not None and stat.S_ISDIR(found.st_mode):
                yield from self.list(inner + entry)
            else:
                yield inner + entry

    def size(self, name: str) -> int:
        found = self.status(name)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.at(name)))
        if not stat.S_ISREG(found.st_mode):
            raise self._linked(name) if stat.S_ISLNK(found.st_mode) else self._not_plain(name)
        return found.st_size

    # Reading

    def file(self, name: str) -> LocalFile:
        try:
            return LocalFile(self.open(name), self.at(name))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise refused(
                f"cannot open {self.at(name)}: {error.strerror}", error, else_="check the disk and permissions"
            ) from error

    def most_files(self) -> int:
        return max(1, min(128, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8))

    def open(self, name: str, flags: int = os.O_RDONLY, mode: int = 0o644) -> int:
        """A handle of a plain file. `FileNotFoundError` where there is none; other `OSError`s pass too.

        Raises:
            StrangePath: it is a link, a folder, a pipe or a device; or it is to be written and has a second name elsewhere.
        """
        try:
            with self._parent(name) as (parent, last):
                handle = os.open(last, flags | _FILE, mode, dir_fd=parent)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise self._linked(name) from error
            if error.errno == errno.ENXIO:  # a pipe that nobody reads, a socket
                raise self._not_plain(name) from error
            error.filename = str(self.at(name))  # not its last part
            raise
        found = os.fstat(handle)
        writes = flags & (os.O_WRONLY | os.O_RDWR)
        if not stat.S_ISREG(found.st_mode) or (writes and found.st_nlink > 1):
            os.close(handle)
            raise self._not_plain(name)
        return handle

    def read(self, name: str, limit: int | None = None) -> bytes:
        """The bytes of a plain file. `FileNotFoundError` where there is none; `StorageError` where it has more than `limit`."""
        try:
            with os.fdopen(self.open(name), "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if limit is not None and size > limit:
                    raise StorageError(f"{self.at(name)} is larger than {limit} bytes", remedy="find out what it is")
                return file.read(size)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise refused(
                f"cannot read {self.at(name)}: {error.strerror}", error, else_="check the path and permissions"
            ) from error

    # Writing

    def make(self, name: str = "") -> None:
        """Create a folder and those above it, each made durable in its own parent."""
        if not (name or self.inside):
            make_folder(self.root)
            return
        if self.is_folder(name):
            return
        above, _, last = f"{self.inside}/{name}".strip("/").rpartition("/")
        parent = LocalFolder(self.root, above)
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
                    f"another process is at work in {self}", remedy="wait until it has ended, or give another folder"
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

    # Steps

    @contextmanager
    def _parent(self, name: str) -> Iterator[tuple[int, str]]:
        """A handle of the folder that holds a name, and the last part of it ("." for the root)."""
        parts = [part for part in f"{self.inside}/{name}".split("/") if part]
        handle = os.open(self.root, _STEP & ~os.O_NOFOLLOW)
        try:
            for number, part in enumerate(parts[:-1], 1):
                try:
                    inner = os.open(part, _STEP, dir_fd=handle)
                except OSError as error:
                    if error.errno in (errno.ENOTDIR, errno.ELOOP):
                        self._refuse_link(handle, part, "/".join(parts[:number]))
                    raise
                os.close(handle)
                handle = inner
            yield handle, parts[-1] if parts else "."
        finally:
            os.close(handle)

    def _refuse_link(self, handle: int, part: str, name: str) -> None:
        if stat.S_ISLNK(os.stat(part, dir_fd=handle, follow_symlinks=False).st_mode):
            raise LocalFolder(self.root)._linked(name)

    def _folder_handle(self, name: str) -> int:
        """A handle that lists and flushes a folder."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        with self._parent(name) as (parent, last):
            if last == ".":
                return os.open(self.root, flags)
            try:
                return os.open(last, flags | os.O_NOFOLLOW, dir_fd=parent)
            except OSError as error:
                if error.errno in (errno.ENOTDIR, errno.ELOOP):
                    self._refuse_link(parent, last, f"{self.inside}/{name}".strip("/"))
                raise

    def _linked(self, name: str) -> StrangePath:
        return StrangePath(
            f"{self.at(name)} is a link, and nothing below {self.root} is reached through one",
            remedy="put the file or folder itself there, or delete the link",
        )

    def _not_plain(self, name: str) -> StrangePath:
        return StrangePath(
            f"{self.at(name)} is no plain file with one name (a folder, pipe, device, or a hard link)",
            remedy="find out who put it there, and delete it",
        )
