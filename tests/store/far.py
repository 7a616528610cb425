"""A folder in memory that readers reach as a place far away: by whole names, versions and parts of files; or, each time it is
opened, as objects on a real S3 server.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import obstore

from softlabels.system import places
from softlabels.system.bucket import Bucket
from softlabels.system.depots import Remote, Version
from softlabels.system.far import FarFiles
from softlabels.system.files import Files
from softlabels.system.urls import remote_of
from tests.store.places import MemoryPath


class FarPath(MemoryPath):
    """Written as the folder that it is, and read as `files_of` says."""


class S3Path(FarPath):
    """The same on S3."""


class FarMemory(Remote):
    lists: ClassVar[bool] = True
    prepares: ClassVar[bool] = False

    def __init__(self, folder: FarPath) -> None:
        self.folder, self.inside = folder, folder.inside

    def at(self, name: str = "") -> Any:
        return self.folder.at(name)

    def within(self, name: str) -> Self:
        return type(self)(self.folder.within(name))

    followed = within

    def above(self) -> Self:
        return type(self)(self.folder.above())

    def top(self) -> Self:
        return type(self)(type(self.folder)("", self.folder._shared))

    def overlaps(self, other: object) -> bool:
        return self.folder.overlaps(other.folder if isinstance(other, FarMemory) else other)

    def stat(self, name: str) -> Version:
        return self._version(name)

    def _version(self, name: str) -> Version:
        data = self.folder.read(name)
        return Version(len(data), str(id(data)))

    def fetch(self, name: str, start: int, length: int, known: Version | None) -> tuple[memoryview, Version]:
        return memoryview(self.folder.read(name))[start : start + length], self._version(name)

    def entries(self, name: str) -> dict[str, bool]:
        folders = {each.name for each in self.folder.folders(name)}
        return {each: each in folders for each in self.folder.names(name)}

    def list(self, name: str = "") -> Iterator[str]:
        return self.folder.list(name)


class Counting(FarMemory):
    """It notes each request, and changes its answers as a test says."""

    def __init__(
        self, folder: FarPath, asked: list[tuple[str, int, int]] | None = None, lies: dict | None = None
    ) -> None:
        super().__init__(folder)
        self.asked: list[tuple[str, int, int]] = [] if asked is None else asked
        self.lies: dict = {} if lies is None else lies

    def within(self, name: str) -> Counting:
        return Counting(self.folder.within(name), self.asked, self.lies)

    def top(self) -> Counting:
        return Counting(FarPath("", self.folder._shared), self.asked, self.lies)

    def fetch(self, name: str, start: int, length: int, known: Version | None) -> tuple[memoryview, Version]:
        self.asked.append((name, start, length))
        data, version = super().fetch(name, start, length, known)
        lie = self.lies.pop(name, None) if "once" in self.lies else self.lies.get(name)
        return lie(data, version) if lie else (data, version)


def away(folder: Path, *names: str) -> Counting:
    """The files of a folder, or those of these names, as a place that counts."""
    place = FarPath()
    for path in map(folder.joinpath, names) if names else folder.rglob("*"):
        if path.is_file():
            place.put(path.relative_to(folder).as_posix(), path.read_bytes())
    return Counting(place)


@dataclass(frozen=True)
class Mirror(Bucket):
    """Objects that are called as what they were in memory."""

    of: MemoryPath | None = None

    def at(self, name: str = "") -> Any:
        assert self.of is not None
        return type(self.of)("", self.of._shared).at(self.key(name).partition("/")[2])

    def within(self, name: str) -> Self:
        return type(self)(self.client, self.root, self.key(name), of=self.of)

    followed = within

    def above(self) -> Self:
        return type(self)(self.client, self.root, self.inside.rpartition("/")[0], of=self.of)

    def top(self) -> Self:
        return type(self)(self.client, self.root, "", of=self.of)


def files_of(place: Any) -> Files:
    """In the place of `softlabels.system.places.files_of`."""
    if isinstance(place, S3Path):
        there, name = remote_of("s3://tests", reads=True), uuid.uuid4().hex
        assert isinstance(there, Bucket)
        for each in place.list():
            obstore.put(there.client, f"{name}/{place.within(each).inside}", place.read(each), use_multipart=False)
        return FarFiles(Mirror(there.client, there.root, f"{name}/{place.inside}".strip("/"), of=place))
    return FarFiles(FarMemory(place)) if isinstance(place, FarPath) else places.files_of(place)
