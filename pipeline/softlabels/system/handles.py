"""A file on a disk that is read or written by its handle."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from softlabels.system.durable import system_errors


class LocalFile:
    """See `softlabels.system.files.File`."""

    def __init__(self, handle: int, path: Path) -> None:
        self._handle, self._path = handle, path
        self.size = os.fstat(handle).st_size

    def read_into(self, start: int, out: memoryview) -> int:
        done = 0
        with system_errors("read", self._path):
            while done < len(out) and (got := os.preadv(self._handle, [out[done:]], start + done)):
                done += got
        return done

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # bound: when Python ends, `os` may be gone
        close(self._handle)


class LocalSink:
    """See `softlabels.system.files.Sink`."""

    def __init__(self, handle: int, path: Path) -> None:
        self._handle, self._path = handle, path

    def write(self, data: bytes | memoryview) -> None:
        left = memoryview(data).cast("B")
        with system_errors("write", self._path):
            while len(left):
                left = left[os.write(self._handle, left) :]
