"""The port to a place: what the store asks of whatever its files lie in. `LocalFolder` is a folder on a disk; the tests have
one in memory, and an object store needs no more than this.

Names are relative and '/'-separated ("commits/00000.json"); "" is the folder itself. They come from our code, never from a
file, and nothing else is ever opened. Everything raises `StrangePath` where a name, or one in front of it, is a link or no
plain file, `DiskFull`, `OutOfResources` or `StorageError` where the place refuses, and `FileNotFoundError` where it says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, Self


class File(Protocol):
    """A file that is open for reading, until nobody holds it any more. Safe to use from several threads."""

    @property
    def size(self) -> int:
        """Bytes, of the very file that is read."""

    def read_into(self, start: int, out: memoryview) -> int:
        """Fill `out` with the bytes from `start` on; how many there were: fewer where the file ends."""


class Sink(Protocol):
    """A file that is being written."""

    def write(self, data: bytes | memoryview) -> object:
        """Append all of these bytes."""


class Presence(Protocol):
    """The mark of a live writer, gone with the process however it ends."""

    def alone(self) -> bool:
        """Try to become the only writer; others then cannot begin until `share`. False where others are alive, or the place
        cannot tell.
        """

    def share(self) -> None:
        """Be one live writer among others; first wait until nobody is `alone`. Raises `Stalled` where that does not end."""

    def close(self) -> None:
        """Stop being a live writer."""


class Files(Protocol):
    """Files to read. `str()` of it is what messages call it."""

    @property
    def near(self) -> bool:
        """Whether what is read there costs next to nothing."""

    @property
    def lists(self) -> bool:
        """Whether it can say what lies in it. Where not, a name is asked for, and there are none to list."""

    @property
    def name(self) -> str:
        """The last part of its path."""

    def at(self, name: str = "") -> object:
        """What messages call a name."""

    def within(self, name: str) -> Self:
        """The folder `name` in this one; it need not be there."""

    def above(self) -> Self:
        """The folder that holds this one."""

    def followed(self, name: str) -> Self:
        """What lies under `name` as a place of its own, which may be a link."""

    def overlaps(self, other: object) -> bool:
        """Whether one of the two is the other, or lies in it."""

    def exists(self, name: str = "") -> bool:
        """Whether something, and be it a link, stands under a name."""

    def is_folder(self, name: str = "") -> bool:
        """Whether a folder stands under a name."""

    def names(self, name: str = "") -> list[str]:
        """What stands in a folder, sorted, without what stands in folders of it; nothing where it is not there."""

    def folders(self, name: str = "") -> list[Self]:
        """The folders in a folder; links are none."""

    def list(self, name: str = "") -> Iterator[str]:
        """Everything below a folder that is no folder, by its name in this one; links too, which are not followed."""

    def size(self, name: str) -> int:
        """Bytes of a plain file. Raises `FileNotFoundError`."""

    def read(self, name: str, limit: int | None = None) -> bytes:
        """A plain file. Raises `FileNotFoundError`, and `StorageError` where it has more than `limit` bytes."""

    def file(self, name: str) -> File:
        """Open a plain file once, to read parts of it. Raises `FileNotFoundError`."""

    def ahead(self, parts: Mapping[str, Sequence[tuple[int, int]]]) -> None:
        """Which parts of files, from where to where, are read next: a place far away fetches neighbours in one request, and all
        at the same time; a disk has nothing to do. What is wrong is raised when they are read.
        """

    def most_files(self) -> int:
        """How many files of this place may be open at once."""


class Folder(Files, Protocol):
    """What a commit needs. A name appears with its whole content, or not at all."""

    @property
    def sees_writers(self) -> bool:
        """Whether `enter` and `busy` know of live writers. Where not, none is ever alone, and staged files may be removed under
        a live one.
        """

    def create(self, name: str, data: bytes, *, staged: str, durable: bool = True) -> bool:
        """Write a file unless its name is taken; True where it was free: of several writers one wins. `staged` is the name
        under which a place may prepare it. Not `durable`: a power cut may take it.
        """

    def put(self, name: str, data: bytes, *, staged: str | None = None, durable: bool = True) -> None:
        """Write a file, replacing what stood there. `durable` as above."""

    def filled(self, name: str) -> AbstractContextManager[Sink]:
        """A new file to be filled piece by piece, where nobody looks until it is placed: it is durable when the block ends."""

    def place(self, staged: Mapping[str, str]) -> None:
        """Give files (also links, themselves) their final names, by the names that they have; those that are not there, another
        writer has placed already. Durable once the final names are settled.
        """

    def settle(self, names: Iterable[str]) -> None:
        """Make durable what stands under these names, whoever wrote it."""

    def remove(self, name: str) -> None:
        """Remove a file, or a link itself, where it is there."""

    def clear(self, name: str) -> None:
        """Remove a file or a folder with all that is in it, on which nothing depends: as far as the place lets us."""

    def enter(self, lock: str) -> Presence:
        """Begin to be a live writer; `lock` is the name of a file that a place may keep for it."""

    def busy(self, lock: str) -> bool:
        """Whether a live writer is known to be in it."""

    def room(self) -> int | None:
        """Bytes that are free, where that means something."""

    def block(self) -> int:
        """Bytes that a file takes at least; sizes are rounded up to whole blocks."""


def is_file(files: Files) -> bool:
    """Whether something that is no folder stands at a place. A folder that another process makes meanwhile is none."""
    return files.exists() and not files.is_folder()
