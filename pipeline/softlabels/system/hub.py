"""A dataset repository of the Hugging Face Hub, or a folder in it, as a place for whole stores.

At its root the page (README.md), its preview and .gitattributes are the repository's own, and no part of what it holds.
"""

from __future__ import annotations

import errno
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Self

from softlabels.errors import StorageError
from softlabels.system.depots import PART, Parts, Remote, Version
from softlabels.system.repository import PAGE, Repository

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

PREVIEW = "preview"


@dataclass(frozen=True)
class Hub(Remote):
    """See `softlabels.system.depots.Depot`: the paths below `inside` of a repository. What is being sent is listed, and is
    read only once it is published.
    """

    repository: Repository = field(repr=False)
    inside: str = ""
    prepares: bool = False
    lists: ClassVar[bool] = True

    def at(self, name: str = "") -> str:
        return self.repository.at(self.key(name))

    def within(self, name: str) -> Self:
        return type(self)(self.repository, self.key(name))

    followed = within

    def above(self) -> Self:
        return type(self)(self.repository, self.inside.rpartition("/")[0])

    def top(self) -> Self:
        return type(self)(self.repository)

    def overlaps(self, other: object) -> bool:
        return False  # no other kind of place lies in it, and from one repository to another nothing is carried

    def sizes(self) -> Iterator[tuple[str, int]]:
        tree, sent = self.repository.tree, self.repository.sent
        yield from ((name, (sent.get(path) or tree[path]).size) for name in self.list() for path in (self.key(name),))

    def list(self, name: str = "") -> Iterator[str]:
        lead, inside, paths = f"{self.key(name)}/".lstrip("/"), len(self.key("x")) - 1, self.repository.paths
        for at in range(bisect_left(paths, lead), len(paths)):
            if not paths[at].startswith(lead):
                return
            if paths[at] in self.repository.sent or not _is_of_page(paths[at]):
                yield paths[at][inside:]

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
        size, path = self.size(name), self.key(name)
        return size, (self.repository.part(path, start, min(PART, size - start)) for start in range(0, size, PART))

    def file(self, name: str) -> Parts:
        return Parts(partial(self.repository.part, self.key(name)), self.size(name))

    def stat(self, name: str) -> Version:
        path = self.key(name)
        found = None if _is_of_page(path) else self.repository.info(path)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "there is no such file", self.at(name))
        return Version(found.size)

    def fetch(self, name: str, start: int, length: int, known: Version | None) -> tuple[memoryview, Version]:
        path = self.key(name)
        if _is_of_page(path):
            raise FileNotFoundError(errno.ENOENT, "there is no such file", self.at(name))
        data, size = self.repository.fetch(path, start, length)  # of one commit, which nobody changes
        return memoryview(data), Version(size) if size else known or self.stat(name)

    def entries(self, name: str) -> dict[str, bool]:
        lead, found = f"{self.key(name)}/".lstrip("/"), self.repository.entries(self.key(name))
        return {
            path[len(lead) :]: folder for path, folder in found.items() if not _is_of_page(path) and path != PREVIEW
        }

    def create(self, name: str, data: bytes, *, staged: str = "") -> bool:
        if self._stored(name) is not None or self.key(name) in self.repository.sent:
            return False
        self.put(name, data)
        return True

    def fill(self, name: str, pieces: Iterable[bytes], size: int, *, staged: str = "") -> None:
        self.repository.fill(self.key(name), pieces, size)

    def _stored(self, name: str) -> RepoFile | None:
        path = self.key(name)
        return None if _is_of_page(path) else self.repository.tree.get(path)


def _is_of_page(path: str) -> bool:
    return path in (PAGE, ".gitattributes") or path.startswith(f"{PREVIEW}/")
