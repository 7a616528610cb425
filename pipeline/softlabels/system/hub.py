"""A dataset repository of the Hugging Face Hub, or a folder in it, as a place for whole stores.

At its root the page (README.md), its preview and .gitattributes are the repository's own, and no part of what it holds.
"""

from __future__ import annotations

import errno
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from softlabels.errors import StorageError
from softlabels.system.depots import PART
from softlabels.system.repository import PAGE, Repository

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

PREVIEW = "preview"


@dataclass(frozen=True)
class Hub:
    """See `softlabels.system.depots.Depot`: the paths below `inside` of a repository. What is being sent is listed, and is
    read only once it is published.
    """

    repository: Repository = field(repr=False)
    inside: str = ""
    prepares: bool = False

    def __str__(self) -> str:
        return self.at()

    @property
    def name(self) -> str:
        return self.inside.rpartition("/")[2]

    def at(self, name: str = "") -> str:
        return self.repository.at(self._path(name))

    def within(self, name: str) -> Self:
        return type(self)(self.repository, self._path(name))

    followed = within

    def above(self) -> Self:
        return type(self)(self.repository, self.inside.rpartition("/")[0])

    def overlaps(self, other: object) -> bool:
        return False  # no other kind of place lies in it, and from one repository to another nothing is carried

    def sizes(self) -> Iterator[tuple[str, int]]:
        tree, sent = self.repository.tree, self.repository.sent
        yield from ((name, (sent.get(path) or tree[path]).size) for name in self.list() for path in (self._path(name),))

    def names(self, name: str = "") -> list[str]:
        lead = len(name) + bool(name)
        return sorted({found[lead:].partition("/")[0] for found in self.list(name)})

    def folders(self, name: str = "") -> list[Self]:
        lead = f"{name}/".lstrip("/")
        below = {found.removeprefix(lead).partition("/")[::2] for found in self.list(name)}
        return [self.within(lead + first) for first in sorted({first for first, rest in below if rest})]

    def list(self, name: str = "") -> Iterator[str]:
        lead, inside, paths = f"{self._path(name)}/".lstrip("/"), len(self._path("x")) - 1, self.repository.paths
        for at in range(bisect_left(paths, lead), len(paths)):
            if not paths[at].startswith(lead):
                return
            if paths[at] in self.repository.sent or not _is_of_page(paths[at]):
                yield paths[at][inside:]

    def is_folder(self, name: str = "") -> bool:
        return any(True for _ in self.list(name))

    def exists(self, name: str = "") -> bool:
        return self._stored(name) is not None or self.is_folder(name)

    def size(self, name: str) -> int:
        found = self._stored(name)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "there is no such file", self.at(name))
        return int(found.size)

    def read(self, name: str, limit: int | None = None) -> bytes:
        size, pieces = self.opened(name)
        if limit is not None and size > limit:
            raise StorageError(f"{self.at(name)} is larger than {limit} bytes", remedy="find out what it is")
        return b"".join(pieces)

    def opened(self, name: str) -> tuple[int, Iterator[bytes]]:
        size, path = self.size(name), self._path(name)
        return size, (self.repository.part(path, start, min(PART, size - start)) for start in range(0, size, PART))

    def file(self, name: str) -> _File:
        return _File(self.repository, self._path(name), self.size(name))

    def most_files(self) -> int:
        return 64

    def room(self) -> None:
        return None

    def create(self, name: str, data: bytes, *, staged: str = "") -> bool:
        if self._stored(name) is not None or self._path(name) in self.repository.sent:
            return False
        self.put(name, data)
        return True

    def put(self, name: str, data: bytes, *, staged: str | None = None) -> None:
        self.fill(name, [data], len(data))

    def fill(self, name: str, pieces: Iterable[bytes], size: int, *, staged: str = "") -> None:
        self.repository.fill(self._path(name), pieces, size)

    def _path(self, name: str) -> str:
        return "/".join(filter(None, (self.inside, name)))

    def _stored(self, name: str) -> RepoFile | None:
        path = self._path(name)
        return None if _is_of_page(path) else self.repository.tree.get(path)


@dataclass(frozen=True)
class _File:
    """See `softlabels.system.files.File`: a part of it is a request."""

    repository: Repository
    path: str
    size: int

    def read_into(self, start: int, out: memoryview) -> int:
        length = min(len(out), self.size - start)
        data = self.repository.part(self.path, start, length) if length > 0 else b""
        out[: len(data)] = data
        return len(data)


def _is_of_page(path: str) -> bool:
    return path in (PAGE, ".gitattributes") or path.startswith(f"{PREVIEW}/")
