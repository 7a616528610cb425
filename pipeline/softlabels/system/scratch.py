"""A folder for what a command needs while it works. A killed command leaves its own; the next one removes it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from softlabels.system.durable import system_errors
from softlabels.system.local import LocalFolder

LOCK = ".lock"


@contextmanager
def scratch(prefix: str) -> Iterator[Path]:
    """A new folder among the system's temporary ones (`$TMPDIR`), whose name begins with `prefix`; it is removed when the block
    ends. First those that dead processes of this user left under the same prefix are removed: a live one holds the lock in its
    folder. Raises `DiskFull`, `StorageError`.
    """
    above = LocalFolder(tempfile.gettempdir())
    _sweep(above, prefix)
    with system_errors("create a folder in", above.at()):
        folder = LocalFolder(tempfile.mkdtemp(prefix=prefix, dir=above.root))
    try:
        with closing(folder.enter(LOCK)) as presence:
            presence.share()  # makes the folder again where another process swept it before it was locked
            with presence.own():
                yield folder.at()
    finally:
        above.clear(folder.at().name)


def _sweep(above: LocalFolder, prefix: str) -> None:
    for folder in above.folders():
        status = above.status(folder.name)
        if not folder.name.startswith(prefix) or status is None or status.st_uid != os.geteuid():
            continue
        with closing(folder.enter(LOCK)) as presence:
            if presence.alone():
                above.clear(folder.name)
