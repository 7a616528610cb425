"""A folder of an object store that tests handle as they do a path: objects in obstore's own memory, or on a real S3 server."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from obstore.store import MemoryStore

from softlabels.system.bucket_folder import BucketFolder
from softlabels.system.urls import written_at
from tests.store.places import FolderPath


@dataclass(frozen=True)
class BucketPath(FolderPath, BucketFolder):
    """See `FolderPath`."""

    def __str__(self) -> str:
        return f"{self.root}/{self.inside}"

    def at(self, name: str = "") -> Any:
        return self / name

    def stat(self, name: str | None = None) -> Any:
        """As of a path: size, and a number that another content has not."""
        found = super().stat(name or "")
        return found if name is not None else SimpleNamespace(st_size=found.size, st_ino=found.tag)


def objects() -> BucketFolder:
    """A new place in memory."""
    client: Any = MemoryStore()
    return BucketFolder(client, "objects:", once=client)


def on_server() -> BucketFolder:
    """A new place on the S3 server of the tests."""
    found = written_at(f"s3://tests/{uuid.uuid4().hex}")
    assert isinstance(found, BucketFolder)
    return found


def as_path(folder: BucketFolder) -> BucketPath:
    return BucketPath(folder.client, folder.root, folder.inside, once=folder.once)
