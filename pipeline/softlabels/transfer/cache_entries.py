"""What the cache of prepared rows holds, and deleting it: never anything that is not an entry of ours.

An entry is a folder with a name that `cache` gives, which holds nothing but files that `cache` writes; what a killed process
left of one counts too. Neighbour: `softlabels_stages.cache` prints.
"""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softlabels.store.durable import system_errors
from softlabels.transfer.cache import META, entry_name

_NAME = re.compile(r"(?P<entry>[0-9a-f]{32})(\.part-[a-z0-9_]+)?")
_FILES = {"inputs.npy", "keys.npy", "labels.npy", "tokens", META}


@dataclass(frozen=True)
class CacheEntry:
    """One folder of the cache.

    Attributes:
        path: the folder.
        transfer_set, split: of whose rows, "" where its meta.json does not say.
        rows: how many; None for the rest of an unfinished one.
        bytes: of its files.
        used: when it was last opened, seconds since the epoch.
    """

    path: Path
    transfer_set: str
    split: str
    rows: int | None
    bytes: int
    used: float


def cache_entries(root: Path) -> list[CacheEntry]:
    """The entries below `root`, the last used first. Raises `StorageError` where it cannot be read."""
    with system_errors("read", root):
        found = sorted(root.iterdir()) if root.is_dir() else []
        entries = [_entry(folder) for folder in found if is_entry(folder)]
    return sorted(entries, key=lambda entry: -entry.used)


def is_entry(folder: Path) -> bool:
    """Whether a folder is an entry, or what is left of one: by its name, and by holding nothing else."""
    if not _NAME.fullmatch(folder.name) or folder.is_symlink() or not folder.is_dir():
        return False
    return all(file.name in _FILES and file.is_file() and not file.is_symlink() for file in folder.iterdir())


def recorded_entries(root: Path) -> Iterator[dict[str, Any]]:
    """What each finished entry below `root` says of itself; entries of earlier versions say less and are left out."""
    for file in sorted(root.glob(f"*/{META}")):
        meta = _meta(file.parent)
        if "facts" in meta and "about" in meta and entry_name(meta["identity"]) == file.parent.name:
            yield meta


def delete_entry(entry: CacheEntry) -> bool:
    """Delete an entry's files and folder; False where a process is at work on it. Its lock file, which is empty, stays: another
    process may be waiting for it.

    Raises:
        StorageError: the system refused.
    """
    name = _NAME.fullmatch(entry.path.name)
    assert name is not None  # `cache_entries` lists no others
    with system_errors("delete", entry.path), (entry.path.parent / f"{name['entry']}.lock").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if is_entry(entry.path):
            for part in sorted(
                entry.path.iterdir(), key=lambda file: file.name != META
            ):  # first what vouches for the others
                part.unlink()
            entry.path.rmdir()
    return True


def _entry(folder: Path) -> CacheEntry:
    meta, status = _meta(folder), [file.stat() for file in folder.iterdir()]
    identity, about = meta.get("identity", {}), meta.get("about", {})
    vouching = folder / META
    return CacheEntry(
        path=folder,
        transfer_set=str(about.get("transfer_set", "")),
        split=str(about.get("split", identity.get("split", ""))),
        rows=about.get("rows", identity.get("rows")),
        bytes=sum(each.st_size for each in status),
        used=(vouching if vouching.exists() else folder).stat().st_mtime,
    )


def _meta(folder: Path) -> dict[str, Any]:
    try:
        meta = json.loads((folder / META).read_text())
    except (OSError, ValueError):
        return {}
    return meta if isinstance(meta, dict) and isinstance(meta.get("identity"), dict) else {}
