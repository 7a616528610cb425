"""A folder in memory that a test handles as it does a path."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from softlabels.system.memory import MemoryFolder


class MemoryPath(MemoryFolder):
    """`MemoryFolder` with what tests ask of a `Path`."""

    def __truediv__(self, name: str) -> MemoryPath:
        return self.within(name)

    def within(self, name: str) -> MemoryPath:
        return MemoryPath(self._key(name), self._shared)

    followed = within

    def above(self) -> MemoryPath:
        return MemoryPath(self.inside.rpartition("/")[0], self._shared)

    parent = property(above)

    def read_bytes(self) -> bytes:
        return self.read("")

    def write_bytes(self, data: bytes) -> None:
        self.put("", data)

    def read_text(self) -> str:
        return self.read_bytes().decode()

    def write_text(self, text: str) -> None:
        self.write_bytes(text.encode())

    def unlink(self) -> None:
        assert self.is_file()
        self.remove("")

    def mkdir(self) -> None:
        """A folder is there once a file is in it."""

    def rename(self, target: MemoryPath) -> None:
        for name in [*self.list(), *([""] if self.is_file() else [])]:
            target.put(name, self.read(name))
            self.remove(name)

    def is_file(self) -> bool:
        return self.inside in self._shared.files

    def is_dir(self) -> bool:
        return self.is_folder()

    def iterdir(self) -> Iterator[MemoryPath]:
        return (self / name for name in self.names())

    def rglob(self, pattern: str) -> Iterator[MemoryPath]:
        return (self / name for name in self.list() if fnmatchcase(name.rpartition("/")[2], pattern))

    def glob(self, pattern: str) -> Iterator[MemoryPath]:
        return (self / name for name in self.list() if PurePosixPath(name).match(pattern))

    def relative_to(self, other: MemoryPath) -> PurePosixPath:
        return (
            PurePosixPath(self.inside).relative_to(other.inside or ".") if other.inside else PurePosixPath(self.inside)
        )
