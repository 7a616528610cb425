"""Which splits lie at a place: it is a store itself, holds them, or, where it lists nothing, says so in a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar, overload

import msgspec

from softlabels.errors import DamagedManifest, StorePathError, one_line
from softlabels.store.json_files import read_json, read_small_file
from softlabels.store.paths import MANIFEST, PLAN
from softlabels.store.records import Manifest
from softlabels.store.spec import Plan
from softlabels.system.files import Files, is_file
from softlabels.system.places import Named, Place, files_of

FOR_READERS = ("zarr.json", "dataset_dict.json")
F = TypeVar("F", bound=Files)


@overload
def store_splits(path: F) -> dict[str, F]: ...
@overload
def store_splits(path: Named) -> dict[str, Files]: ...
def store_splits(path: Place) -> Mapping[str, Files]:
    """The splits below a root by name, or the one split that `path` itself is. Raises `StorePathError` where there is none.

    Example:
        >>> from softlabels.store import store_splits
        >>> sorted(store_splits("stores/noise"))
        ['test', 'train']
    """
    root = files_of(path)
    folders = store_folders(root)
    if folders == [root]:
        named: Plan | Manifest = (
            read_json(root, PLAN, Plan) if root.exists(PLAN) else read_json(root, MANIFEST, Manifest)
        )
        return {_seen(root, named.spec.transfer_set.split): root}
    return {folder.name: folder for folder in folders}


def _seen(root: Files, split: str) -> str:
    """The name of a split, which every command repeats. Raises `StorePathError` where it holds what no terminal shows."""
    if not split.isprintable():
        raise StorePathError(f"a split in {root} is called {split!r}", remedy="give its folder another name")
    return split


def store_folders(root: F) -> list[F]:
    """The folders at `root` that are stores, sealed or not, whole or damaged: itself, or those right below it.

    Raises:
        StorePathError: there is none. StrangePath: a link right below `root` leads to one.
    """
    if is_file(root):
        raise StorePathError(f"{root} is a file; a store is a folder", remedy="give the path of a store")
    _ask(root, [""])
    if holds_store(root):
        return [root]
    if root.lists:
        _ask(root, [f"{folder.name}/" for folder in root.folders()])
        inner = [name for name in root.names() if root.followed(name).is_folder() and holds_store(root.followed(name))]
        found = [root.within(_seen(root, name)) for name in inner if root.is_folder(name)]
    else:
        named = sorted(safe_name(root, name) for name in listed_splits(root))
        _ask(root, [f"{name}/" for name in named])
        found = [root.within(name) for name in named]
    if not found:
        raise StorePathError(
            f"{root} holds no store" if root.exists() else f"{root} does not exist",
            remedy="give the path of a store, or make one with `softlabels teacher-logits`, `import`, `encode` or `convert`",
        )
    return found


def _ask(root: Files, folders: Sequence[str]) -> None:
    """Say that what makes these folders stores is read next."""
    root.ahead({f"{folder}{name}": [(0, 1)] for folder in folders for name in (PLAN, MANIFEST)})


def holds_store(folder: Files) -> bool:
    """Whether a folder holds what makes it a store, be it unfinished or damaged."""
    return folder.exists(PLAN) or folder.exists(MANIFEST)


def listed_splits(root: Files) -> set[str]:
    """The splits that the files at `root` for other readers list: names that somebody else may have chosen."""
    listed: set[str] = set()
    root.ahead({name: [(0, 1)] for name in FOR_READERS})
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
            f"{where} has a split called {one_line(ascii(name))}, which cannot be the name of a folder",
            remedy="name another split (--split=train), and tell the store's maker",
        )
    return name
