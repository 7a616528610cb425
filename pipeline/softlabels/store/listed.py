"""Which splits the files above them name, for other readers and for places that list nothing."""

from __future__ import annotations

import msgspec

from softlabels.errors import DamagedManifest, StorePathError, one_line
from softlabels.store.json_files import read_small_file
from softlabels.system.files import Files

FOR_READERS = ("zarr.json", "dataset_dict.json")


def listed_splits(root: Files) -> set[str]:
    """The splits that the files at `root` for other readers list: names that somebody else may have chosen."""
    listed: set[str] = set()
    for name in FOR_READERS:
        try:
            found = msgspec.json.decode(read_small_file(root, name))
            named = found["splits"] if name == "dataset_dict.json" else found["attributes"]["softlabels"]["splits"]
            listed |= {split for split in named if isinstance(split, str)}
        except (OSError, DamagedManifest, msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
            continue  # it is not there, or says nothing: `outdated` reports what is damaged
    return listed


def safe_name(where: object, name: str) -> str:
    """A name that somebody else may have chosen, and that is to be a folder. Raises `StorePathError`."""
    if not name or name.startswith(".") or not name.isprintable() or {*name} & {*"/\\:"} or len(name.encode()) > 200:
        raise StorePathError(
            f"{where} has a split called {one_line(ascii(name))}, which is no name of a folder",
            remedy="name another split (--split=train), and tell whoever made the store",
        )
    return name
