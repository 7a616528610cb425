"""The folder above the stores of a transfer set's splits: a card, and the file that makes the whole a Zarr group of groups
or a Hugging Face `DatasetDict`. Written anew whenever a split was sealed; holds nothing that the splits do not say.
"""

from __future__ import annotations

import logging

from softlabels.errors import DamagedStore, StorePathError, one_line, some
from softlabels.store.card import FRONT_MATTER, root_card
from softlabels.store.json_files import bytes_at, read_json
from softlabels.store.layouts import layout_of
from softlabels.store.listed import FOR_READERS, holds_store, listed_splits, store_folders, store_splits
from softlabels.store.paths import CARD, MANIFEST
from softlabels.store.records import Manifest
from softlabels.store.shared import shared
from softlabels.store.spec import FORMAT
from softlabels.system.files import Files, Folder, is_file
from softlabels.system.places import reading

_log = logging.getLogger(__name__)


def require_apart(source: Files, target: Folder) -> None:
    """Raise `StorePathError` where one of two folders lies in the other, or is the other."""
    if source.overlaps(target):
        raise StorePathError(
            f"{target} and {source}: one is inside the other", remedy="give a target beside the source"
        )


def require_root(root: Folder, splits: tuple[str, ...]) -> None:
    """Raise `StorePathError` unless the stores of `splits` may be put below `root`: a new or empty folder, or one that holds
    such stores already, where a warning names what else lies beside them. A folder that holds anything else is left alone.
    """
    if is_file(root):
        raise StorePathError(f"{root} is a file; a store is a folder", remedy="give another path")
    found = root_strangers(root, splits)
    is_begun = any(root.is_folder(split) and holds_store(root.within(split)) for split in splits)
    is_own = not root.exists(CARD) or _is_own_card(root)
    if found and not (is_begun and is_own):
        raise StorePathError(
            f"{root} holds other files ({some(found)})", remedy="give the path of a store or of a new folder"
        )
    for name in found:
        _log.warning("%s: warning: %s is not part of the store", root, one_line(name))


def root_strangers(root: Files, splits: tuple[str, ...] = ()) -> list[str]:
    """What lies in `root` and is none of these splits, no store, and nothing that describes them."""
    entries, kinds = set(root.names()), {folder.name for folder in root.folders()}
    stores = {name for name in entries if name in splits or (name in kinds and holds_store(root.within(name)))}
    return sorted(entries - stores - ({CARD, *FOR_READERS} if stores else set()))


def is_split_folder(store: Folder, split: str) -> bool:
    """Whether a store lies where a folder of splits would keep it, with nothing but such stores beside it."""
    return store.name == split and not root_strangers(store.above())


def write_root(root: Folder) -> None:
    """Describe the sealed splits below `root`. Splits of different layouts are legal; each is listed in the file of its own."""
    described = _described(root, count=True)
    for name, data in described.items():
        if bytes_at(root, name) != data:  # a sealed folder on a read-only disk is left alone
            root.put(name, data)
    for name in FOR_READERS:
        if name not in described and root.exists(name):  # of a layout that no split has any more
            root.remove(name)


def lost_splits(root: Files) -> list[DamagedStore]:
    """An error for each split that the files at `root` for other readers list, and that holds no store any more."""
    listed = listed_splits(root)
    remedy = (
        "the command that made it makes it again, or get its folder again from the store's maker; if it was taken away on "
        "purpose, delete zarr.json or dataset_dict.json there and run `softlabels repair`"
    )
    lost = sorted(listed - {folder.name for folder in store_folders(root)})
    return [DamagedStore(f"{root}: split {split} is gone, though it was sealed", remedy=remedy) for split in lost]


def is_described(root: Files) -> bool:
    """Whether anything at `root` describes the splits below it, if only a card of ours: else they are stores that happen to lie
    together.
    """
    return _is_own_card(root) or any(root.exists(name) for name in FOR_READERS)


def _is_own_card(root: Files) -> bool:
    return (bytes_at(root, CARD) or b"").startswith(FRONT_MATTER.encode())


def outdated(root: Files) -> list[str]:
    """The files at `root` for other readers that do not describe the sealed splits below it, or are gone."""
    described = _described(root) if is_described(root) else {}
    return [name for name in FOR_READERS if bytes_at(root, name) != described.get(name)]


def _described(root: Files, *, count: bool = False) -> dict[str, bytes]:
    """What the files at `root` should hold, by name; `count`: with the rows that splits share on the card."""
    manifests = {
        split: read_json(folder, MANIFEST, Manifest)
        for split, folder in store_splits(root).items()
        if folder != root and folder.exists(MANIFEST)
    }
    found = shared({split: reading(root.within(split)) for split in manifests}).lines if count else []
    by_layout: dict[str, list[str]] = {}
    version = max((manifest.format for manifest in manifests.values()), default=FORMAT)
    for split, manifest in manifests.items():
        by_layout.setdefault(manifest.spec.layout, []).append(split)
    files = {} if not manifests else {CARD: root_card(manifests, found).encode()}
    for splits in by_layout.values():
        files |= layout_of(manifests[splits[0]].spec).root_metadata(tuple(splits), version)
    return files


def close_root(root: Folder) -> None:
    """Take back what opens the folder for other readers, while a split of it is unfinished."""
    for name in FOR_READERS:
        root.remove(name)
    root.settle(FOR_READERS[:1])
