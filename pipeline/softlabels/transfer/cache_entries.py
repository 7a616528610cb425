"""What the cache of prepared rows holds, and deleting it: never anything that is not an entry of ours.

An entry is a folder with a name that `cache` gives, which holds nothing but plain files that `cache` writes; what a killed
process left of one counts too. Neighbour: `softlabels_stages.cache` prints.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softlabels.errors import StorageError, StrangePath
from softlabels.system.durable import system_errors
from softlabels.system.local import LocalFolder
from softlabels.transfer.cache import META, entry_name

_NAME = re.compile(r"(?P<entry>[0-9a-f]{32})(\.part-[a-z0-9_]+)?")
_PARTS = ("identity", "about", "facts")
_FILE = re.compile(rf"(inputs|keys|mask|reals|codes|labels(\.[a-z][a-z0-9_]*)?)\.npy|tokens|{re.escape(META)}")


@dataclass(frozen=True)
class CacheEntry:
    """One folder of the cache.

    Attributes:
        folder: where it lies.
        transfer_set, split: of whose rows, "" where its meta.json does not say.
        rows: how many; None for the rest of an unfinished one.
        bytes: of its files.
        used: when it was last opened, seconds since the epoch.
    """

    folder: LocalFolder
    transfer_set: str
    split: str
    rows: int | None
    bytes: int
    used: float


def cache_entries(root: Path) -> list[CacheEntry]:
    """The entries below `root`, the last used first. Raises `StorageError` where it cannot be read."""
    entries = [_entry(folder) for folder in LocalFolder(root).folders() if is_entry(folder)]
    return sorted(entries, key=lambda entry: -entry.used)


def is_entry(folder: LocalFolder) -> bool:
    """Whether a folder is an entry, or what is left of one: by its name, and by holding nothing else."""
    if not _NAME.fullmatch(folder.name):
        return False
    found = {name: folder.status(name) for name in folder.names()}
    return all(
        _FILE.fullmatch(name) and (status is None or stat.S_ISREG(status.st_mode)) for name, status in found.items()
    )


def recorded_entries(root: Path) -> Iterator[dict[str, Any]]:
    """What each finished entry below `root` says of itself: `identity`, `about`, `facts`. Damaged ones, and those of earlier
    versions, say less and are left out.
    """
    for folder in LocalFolder(root).folders():
        meta = _meta(folder)
        if len(meta) == len(_PARTS) and entry_name(meta["identity"]) == folder.name:
            yield meta


def delete_entry(entry: CacheEntry) -> bool:
    """Delete an entry's files and folder; False where a process is at work on it. Its lock file, which is empty, stays: another
    process may be waiting for it.

    Raises:
        StorageError: the system refused.
    """
    name, cache = _NAME.fullmatch(entry.folder.name), entry.folder.above()
    assert name is not None  # `cache_entries` lists no others
    with system_errors("delete", entry.folder.at()):
        handle = cache.open(f"{name['entry']}.lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_entry(entry.folder):
                entry.folder.remove(META)  # first what vouches for the others
                cache.clear(entry.folder.name)
        except BlockingIOError:
            return False
        finally:
            os.close(handle)
    if cache.exists(entry.folder.name):
        raise StorageError(f"cannot delete {entry.folder}", remedy="check its permissions")
    return True


def _entry(folder: LocalFolder) -> CacheEntry:
    meta, files = _meta(folder), [folder.status(name) for name in folder.names()]
    identity, about = meta.get("identity", {}), meta.get("about", {})
    rows = about.get("rows", identity.get("rows"))
    vouching = folder.status(META) or folder.status()
    return CacheEntry(
        folder=folder,
        transfer_set=str(about.get("transfer_set", "")),
        split=str(about.get("split", identity.get("split", ""))),
        rows=rows if isinstance(rows, int) else None,
        bytes=sum(file.st_size for file in files if file is not None),
        used=0.0 if vouching is None else vouching.st_mtime,
    )


def _meta(folder: LocalFolder) -> dict[str, dict[str, Any]]:
    """The parts of an entry's meta.json that are there, and are objects."""
    try:
        meta = json.loads(folder.read(META))
    except (OSError, ValueError, RecursionError, StorageError, StrangePath):
        return {}
    found = meta if isinstance(meta, dict) else {}
    return {name: found[name] for name in _PARTS if isinstance(found.get(name), dict)}
