"""Where the store's tests lie: a folder on the disk, or one in memory that they handle as they do a path."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from types import SimpleNamespace

from tests.system.memory import MemoryFolder


class MemoryPath(MemoryFolder):
    """`MemoryFolder` with what tests ask of a `Path`. What nothing but a disk can do is not there."""

    def __str__(self) -> str:
        return f"memory:/{self.inside}"

    def __truediv__(self, name: str) -> MemoryPath:
        return self.within(name)

    def at(self, name: str = "") -> MemoryPath:
        """So that `Store.path` is one."""
        return self / name

    def with_name(self, name: str) -> MemoryPath:
        return self.above() / name

    @property
    def parent(self) -> MemoryPath:
        return self.above()

    @property
    def parts(self) -> tuple[str, ...]:
        return PurePosixPath(self.inside).parts

    def read_bytes(self) -> bytes:
        return self.read("")

    def write_bytes(self, data: bytes) -> None:
        self.put("", bytes(data))

    def read_text(self) -> str:
        return self.read_bytes().decode()

    def write_text(self, text: str) -> None:
        self.write_bytes(text.encode())

    def unlink(self) -> None:
        assert self.is_file()
        self.remove("")

    def mkdir(self, **_: bool) -> None:
        """A folder is there once a file is in it."""

    def rename(self, target: MemoryPath) -> None:
        for name in [*self.list(), *([""] if self.is_file() else [])]:
            target.put(name, self.read(name))
            self.remove(name)

    def is_file(self) -> bool:
        return self.inside in self._shared.files

    def is_dir(self) -> bool:
        return self.is_folder()

    def is_symlink(self) -> bool:
        return False

    def stat(self) -> SimpleNamespace:
        """Size, and a number that another content has not."""
        data = self.read_bytes()
        return SimpleNamespace(st_size=len(data), st_ino=id(data))

    def iterdir(self) -> Iterator[MemoryPath]:
        return (self / name for name in self.names())

    def rglob(self, pattern: str) -> Iterator[MemoryPath]:
        """Files only."""
        return (self / name for name in self.list() if fnmatchcase(name.rpartition("/")[2], pattern))

    def glob(self, pattern: str) -> Iterator[MemoryPath]:
        return (self / name for name in self.list() if PurePosixPath(name).match(pattern))

    def relative_to(self, other: MemoryPath) -> PurePosixPath:
        return PurePosixPath("/", self.inside).relative_to(PurePosixPath("/", other.inside))


AnyPath = Path | MemoryPath


def in_memory(path: AnyPath) -> bool:
    return isinstance(path, MemoryPath)


def copy(source: AnyPath, target: AnyPath) -> AnyPath:
    """Copy a folder, between a disk and memory too; the copy."""
    if isinstance(source, Path) and isinstance(target, Path):
        return shutil.copytree(source, target)
    for file in [file for file in source.rglob("*") if file.is_file()]:
        to = target / str(file.relative_to(source))
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(file.read_bytes())
    return target


@contextmanager
def on_disk(path: AnyPath) -> Iterator[Path]:
    """The folder for readers that know nothing but disks: itself, or a copy while the block runs."""
    if isinstance(path, Path):
        yield path
        return
    with TemporaryDirectory() as name:
        yield Path(copy(path, Path(name) / "copy"))


def remove_folder(path: AnyPath) -> None:
    """Remove a folder with all that is in it, where it is there."""
    if isinstance(path, Path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.clear("")


def lock_left(path: AnyPath) -> dict[str, bytes]:
    """What a live writer leaves in `staging`: on a disk, the file that it locked."""
    return {} if in_memory(path) else {"lock": b""}
