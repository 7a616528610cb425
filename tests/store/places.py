"""Where the store's tests lie: a folder on the disk, or one in memory that they handle as they do a path."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

from tests.system.memory import MemoryFolder


class FolderPath:
    """What tests ask of a `Path`, of a folder that is no path of a disk. What nothing but a disk can do is not there."""

    inside: str

    def __truediv__(self, name: str) -> Any:
        return self.within(name)  # type: ignore[attr-defined]

    def with_name(self, name: str) -> Any:
        return self.parent / name

    @property
    def parent(self) -> Any:
        return self.above()  # type: ignore[attr-defined]

    @property
    def parts(self) -> tuple[str, ...]:
        return PurePosixPath(self.inside).parts

    def read_bytes(self) -> bytes:
        return self.read("")  # type: ignore[attr-defined,no-any-return]

    def write_bytes(self, data: bytes) -> None:
        self.put("", bytes(data))  # type: ignore[attr-defined]

    def read_text(self) -> str:
        return self.read_bytes().decode()

    def write_text(self, text: str) -> None:
        self.write_bytes(text.encode())

    def unlink(self) -> None:
        assert self.is_file()
        self.remove("")  # type: ignore[attr-defined]

    def mkdir(self, **_: bool) -> None:
        """A folder is there once a file is in it."""

    def rename(self, target: Any) -> None:
        for name in [*self.list(), *([""] if self.is_file() else [])]:  # type: ignore[attr-defined]
            target.put(name, self.read(name))  # type: ignore[attr-defined]
            self.remove(name)  # type: ignore[attr-defined]

    def is_file(self) -> bool:
        return self.exists() and not self.is_folder()  # type: ignore[attr-defined,no-any-return]

    def is_dir(self) -> bool:
        return self.is_folder()  # type: ignore[attr-defined,no-any-return]

    def is_symlink(self) -> bool:
        return False

    def iterdir(self) -> Iterator[Any]:
        return (self / name for name in self.names())  # type: ignore[attr-defined]

    def rglob(self, pattern: str) -> Iterator[Any]:
        """Files only."""
        return (self / name for name in self.list() if fnmatchcase(name.rpartition("/")[2], pattern))  # type: ignore[attr-defined]

    def glob(self, pattern: str) -> Iterator[Any]:
        return (self / name for name in self.list() if PurePosixPath(name).match(pattern))  # type: ignore[attr-defined]

    def relative_to(self, other: FolderPath) -> PurePosixPath:
        return PurePosixPath("/", self.inside).relative_to(PurePosixPath("/", other.inside))


class MemoryPath(FolderPath, MemoryFolder):
    """`MemoryFolder` as a path."""

    def __str__(self) -> str:
        return f"memory:/{self.inside}"

    def at(self, name: str = "") -> Any:
        """So that `Store.path` is one."""
        return self / name

    def is_file(self) -> bool:
        return self.inside in self._shared.files

    def stat(self) -> SimpleNamespace:
        """Size, and a number that another content has not."""
        data = self.read_bytes()
        return SimpleNamespace(st_size=len(data), st_ino=id(data))


AnyPath = Path | FolderPath


def in_memory(path: AnyPath) -> bool:
    return isinstance(path, FolderPath)


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
        path.clear("")  # type: ignore[attr-defined]


def lock_left(path: AnyPath) -> dict[str, bytes]:
    """What a live writer leaves in `staging`: on a disk, the file that it locked."""
    return {} if in_memory(path) else {"lock": b""}
