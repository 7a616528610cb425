"""Parts of files far away, kept on the disk of this machine for whoever reads them again: other epochs, runs and processes.

It is asked for by `$SOFTLABELS_READ_CACHE`, a folder and how many gigabytes it may hold: `/scratch/labels:200`. A part is named
by the version of its file, and never used unless its own hash is right. JSON files are not kept: what a store is, its place
says each time, so that who writes into the folder cannot give a reader other labels than those that were sealed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from blake3 import blake3

from softlabels.errors import ConfigError, StorageError
from softlabels.system.local import LocalFolder

VARIABLE = "SOFTLABELS_READ_CACHE"
_HASH = 32  # bytes in front of a part


class ReadCache:
    """A folder of parts, of up to `limit` bytes; while several processes write, a sixteenth of it more for each."""

    def __init__(self, folder: str, limit: int) -> None:
        self._folder, self._limit = LocalFolder(folder), limit
        self._written = limit  # since it was last looked through, as far as is known

    def get(self, part: str) -> memoryview | None:
        """The bytes of a part; None where they are not here, or not whole."""
        name = _name(part)
        try:
            data = memoryview(self._folder.read(name))
        except (FileNotFoundError, StorageError):
            return None
        if blake3(data[_HASH:]).digest() != data[:_HASH]:
            return None
        with suppress(OSError):
            os.utime(self._folder.at(name))  # so that it is not the next to go
        return data[_HASH:]

    def put(self, part: str, data: memoryview) -> None:
        """Keep a part. Raises `DiskFull`, `StorageError`."""
        self._folder.put(_name(part), blake3(data).digest() + data, durable=False)
        self._written += _HASH + len(data)
        if self._written > self._limit // 16:
            self._written = 0
            self._let_go()

    def _let_go(self) -> None:
        """Delete the parts that were used longest ago, as far as there are too many."""
        found = []
        for name in self._folder.names():
            if (status := self._folder.status(name)) is not None:
                found.append((status.st_mtime_ns, name, status.st_size))
        total = sum(size for _, _, size in found)
        for _, name, size in sorted(found):
            if total <= self._limit:
                return
            self._folder.remove(name)
            total -= size


def read_cache() -> ReadCache | None:
    """That of the environment, or none. Raises `ConfigError` where it says something else."""
    given = os.environ.get(VARIABLE, "")
    if not given:
        return None
    folder, _, size = given.rpartition(":")
    try:
        limit = int(float(size) * 1e9)
    except (ValueError, OverflowError):
        limit = 0
    if limit < 1 or not Path(folder).is_absolute():
        raise ConfigError(
            f"{VARIABLE} is {given!r}", remedy="give an absolute folder and gigabytes, such as /scratch/labels:200"
        )
    return ReadCache(folder, limit)


def _name(part: str) -> str:
    return blake3(part.encode(errors="surrogateescape")).hexdigest()
