"""The port to a place that whole stores are carried to and from, beside `Files`; and a folder of a disk as one."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

from softlabels.system.files import Files
from softlabels.system.local import LocalFolder

PART = 1 << 23  # bytes that are held at once of a file


class Depot(Files, Protocol):
    """Files to read, and what carrying needs beside. A name appears with its whole content, or not at all. `prepares`: where
    `staged` says, which then is no part of what it holds.
    """

    @property
    def prepares(self) -> bool: ...

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Everything below, by its name in this one, with its bytes. Raises `StorageError` where the listing does not end."""

    def opened(self, name: str) -> tuple[int, Iterator[bytes]]:
        """The bytes of a file and, piece by piece, its content, which may be another one. Raises `FileNotFoundError`."""

    def create(self, name: str, data: bytes, *, staged: str) -> bool:
        """As `Folder.create`."""

    def put(self, name: str, data: bytes, *, staged: str | None = None) -> None:
        """As `Folder.put`."""

    def room(self) -> int | None:
        """As `Folder.room`."""

    def fill(self, name: str, pieces: Iterable[bytes], size: int, *, staged: str) -> None:
        """Write a file of `size` bytes, replacing what stood there. What `pieces` raises is passed on, and nothing is written.
        `staged`: a folder in which a place may prepare it.
        """


@dataclass(frozen=True)
class Version:
    """Which content a name has: its size, and what tells it from others of that size ("" where a server says nothing)."""

    size: int
    tag: str = ""


class Remote(Depot, Protocol):
    """A depot that knows whole names alone, those that begin with `inside`: folders are what names begin with."""

    inside: str

    @property
    def near(self) -> bool:
        return False

    @property
    def lists(self) -> bool: ...

    def top(self) -> Self:
        """All of it."""

    def stat(self, name: str) -> Version:
        """Which content a file has now. Raises `FileNotFoundError`."""

    def fetch(self, name: str, start: int, length: int, known: Version | None) -> tuple[memoryview, Version]:
        """Some bytes of a file, in one request, and which content they are of; fewer where it ends. Where a version is `known`,
        another one may be refused. Raises `FileNotFoundError`, `Replaced`.
        """

    def entries(self, name: str) -> dict[str, bool]:
        """What stands in a folder, without what stands in folders of it; whether it is a folder."""

    def __str__(self) -> str:
        return str(self.at())

    @property
    def name(self) -> str:
        return self.inside.rpartition("/")[2]

    def names(self, name: str = "") -> list[str]:
        lead = len(name) + bool(name)
        return sorted({found[lead:].partition("/")[0] for found in self.list(name)})

    def folders(self, name: str = "") -> list[Self]:
        lead = f"{name}/" if name else ""
        below = {found[len(lead) :].partition("/")[::2] for found in self.list(name)}
        return [self.within(lead + first) for first in sorted({first for first, rest in below if rest})]

    def is_folder(self, name: str = "") -> bool:
        return any(True for _ in self.list(name))

    def ahead(self, parts: Mapping[str, Sequence[tuple[int, int]]]) -> None:
        return  # `softlabels.system.far` fetches parts together

    def most_files(self) -> int:
        return 64

    def room(self) -> None:
        return None

    def put(self, name: str, data: bytes, *, staged: str | None = None) -> None:
        self.fill(name, [data], len(data), staged="")

    def key(self, name: str) -> str:
        """A name in all of it."""
        return "/".join(filter(None, (self.inside, name)))


@dataclass(frozen=True)
class Parts:
    """See `softlabels.system.files.File`: `part(start, length)` is a request."""

    part: Callable[[int, int], bytes]
    size: int

    def read_into(self, start: int, out: memoryview) -> int:
        length = min(len(out), self.size - start)
        data = self.part(start, length) if length > 0 else b""
        out[: len(data)] = data
        return len(data)


class LocalDepot(LocalFolder):
    """See `Depot`."""

    prepares: ClassVar[bool] = True

    def sizes(self) -> Iterator[tuple[str, int]]:
        for name in self.list():
            yield name, self.size(name)

    def opened(self, name: str) -> tuple[int, Iterator[bytes]]:
        file = self.file(name)

        def pieces() -> Iterator[bytes]:
            part, at = memoryview(bytearray(PART)), 0
            while got := file.read_into(at, part):
                yield bytes(part[:got])
                at += got

        return file.size, pieces()

    def fill(self, name: str, pieces: Iterable[bytes], size: int, *, staged: str) -> None:
        written = f"{staged}/{uuid.uuid4().hex}.file"
        try:
            with self.filled(written) as out:
                for piece in pieces:
                    out.write(piece)
            self.place({written: name})
            self.settle([name])
        finally:
            self.clear(written)
