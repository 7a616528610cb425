"""A folder of ours (a store, a run, a cache), to read: everything below its root, by name; no link below the root is ever
followed.

Whoever hands us a folder may have put a link in it. So every name is opened one step after the other from a handle of the root,
each step refusing a link, and what is found is looked at through its handle: nothing is checked by name first and used by name
later. The root itself may be a link, and lies where the user says. Names are relative and '/'-separated; they come from our
code, never from a file.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import ClassVar, Self

from softlabels.errors import StorageError, StrangePath, refused
from softlabels.system.durable import system_errors
from softlabels.system.handles import LocalFile
from softlabels.system.paths import local_path

_SNAPSHOT = re.compile(r"/datasets--([\w.-]+--[\w.-]+)/snapshots/", re.ASCII)  # of huggingface_hub's cache
_STEP = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe must not hold us up


class LocalFiles:
    """A folder below `root`, which is `root` itself where `inside` is "". `str()` of it is its path. The port
    `softlabels.system.files.Files`, and what only a disk has.

    Every method raises `StrangePath` where a name in front of the last one is a link, and `StorageError` or `DiskFull` where
    the system refuses. Made of an address, which is no path, it raises `ConfigError`.
    """

    near: ClassVar[bool] = True
    lists: ClassVar[bool] = True

    def __init__(self, root: str | PathLike[str], inside: str = "") -> None:
        self.root, self.inside = Path(local_path(root)), inside

    def __str__(self) -> str:
        return str(self.at())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LocalFiles) and (self.root, self.inside) == (other.root, other.inside)

    def __hash__(self) -> int:
        return hash((self.root, self.inside))

    @property
    def name(self) -> str:
        """The last part of its path, be that relative."""
        return self.at().absolute().name

    def at(self, name: str = "") -> Path:
        """The path of a name, for messages and for programs that take nothing else."""
        return self.root / self.inside / name

    def within(self, name: str) -> Self:
        """The folder `name` in this one, with the same root; it need not be there."""
        return type(self)(self.root, f"{self.inside}/{name}".lstrip("/"))

    def above(self) -> Self:
        if self.inside:
            return type(self)(self.root, self.inside.rpartition("/")[0])
        unnamed = self.root == Path() or self.root.name == ".."  # its path ends in no name that could be left out
        return type(self)(self.root / ".." if unnamed else self.root.parent)

    def followed(self, name: str) -> Self:
        return type(self)(self.at(name))

    def overlaps(self, other: object) -> bool:
        if not isinstance(other, LocalFiles):
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

    def folders(self, name: str = "") -> list[Self]:
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

    def ahead(self, parts: Mapping[str, Sequence[tuple[int, int]]]) -> None:
        pass

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
            raise type(self)(self.root)._linked(name)

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
        remedy = "put the file or folder itself there, or delete the link"
        if cached := _SNAPSHOT.search(str(self.at(name))):  # a tree of links to what lies beside it
            team, _, own = cached[1].partition("--")
            remedy = f"the Hub's cache holds links; `softlabels pull hf://datasets/{team}/{own} STORE` makes a store of files"
        return StrangePath(f"{self.at(name)} is a link, and links below {self.root} are not followed", remedy=remedy)

    def _not_plain(self, name: str) -> StrangePath:
        return StrangePath(
            f"{self.at(name)} is not a plain file with one name (it is a folder, pipe, device or hard link)",
            remedy="find out who put it there, and delete it",
        )
