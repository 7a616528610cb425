"""System errors as errors of ours, and what `local` does for a single file or a new folder that the user names.

No room is `DiskFull`, too few handles or too little memory `OutOfResources`, everything else
`StorageError`. A flush that failed is never tried again on the same file; the error goes up.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from softlabels.errors import refused


@contextmanager
def system_errors(action: str, path: Path) -> Iterator[None]:
    """Turn an `OSError` inside the block into `DiskFull` or `StorageError` naming `action` and `path`."""
    try:
        yield
    except OSError as error:
        raise refused(f"cannot {action} {path}: {error.strerror or error}", error) from error


def make_folder(path: Path) -> None:
    """Create a folder that the user names, and its parents, each made durable in its own parent."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with system_errors("create", path):
        path.mkdir(exist_ok=True)
    with system_errors("flush", path.parent):
        handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
