"""`Source`: where the soft labels of a run come from: a store, or several of different teachers over the same rows, which are
read as one ensemble.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from typing import Any

from softlabels.errors import ConfigError, some
from softlabels.store import Store, open_store, store_splits
from softlabels.store.combine import merged
from softlabels.store.joined import Joined
from softlabels.store.key_index import Missing, Repeated
from softlabels.store.pinned import Pinned
from softlabels.system.files import Files
from softlabels.system.places import Place, files_of


@dataclass(frozen=True)
class Source:
    """A store, or several.

    Attributes:
        places: each one split, or each a folder of the same splits. Of several the teachers are the members of one ensemble, in
            this order; rows and inputs are those of the first.
        rename: names of classes in the later stores, and what the first store calls these.
        repeated: rows of several stores whose key stands in an earlier row of their store: "error", or keep the "first".
        pinned: which digest each split must have, and who must have signed it, before a value of it is used.
    """

    places: tuple[Place, ...]
    rename: Mapping[str, str] = field(default_factory=dict)
    repeated: Repeated = "error"
    pinned: Pinned | None = None

    def __post_init__(self) -> None:
        if not self.places or not all(map(str, self.places)):
            raise ConfigError("no store is named", remedy="name one, or several: --store=A,B")
        if len(self.places) == 1 and self.options:
            raise ConfigError(
                f"{some(self.options)} needs several stores, and there is one",
                remedy="name several stores (--store=A,B), or leave it out",
            )

    @classmethod
    def of(cls, given: Labels) -> Source:
        """What a user names as a source."""
        if isinstance(given, Source):
            return given
        return cls((given,) if isinstance(given, str | PathLike) or not isinstance(given, Iterable) else tuple(given))

    @cached_property
    def _files(self) -> tuple[Files, ...]:
        return tuple(map(files_of, self.places))

    @property
    def options(self) -> dict[str, Any]:
        """What is said of several stores, but for defaults."""
        own = {"rename": dict(self.rename)} if self.rename else {}
        return own | ({"repeated": self.repeated} if self.repeated != "error" else {})

    def several(self, missing: Missing) -> dict[str, Any]:
        """The same with what is done with rows that one of several stores lacks."""
        return self.options | ({"missing": missing} if missing != "error" and len(self.places) > 1 else {})

    @property
    def said(self) -> str | list[str]:
        """As files of a run name it: a path, or a list of paths."""
        paths = [*map(str, self.places)]
        return paths if len(paths) > 1 else paths[0]

    def splits(self) -> list[str]:
        """Names of its splits. Raises as `open` does."""
        return list(
            store_splits(self._files[0]) if len(self.places) == 1 else paired_splits(self._files, None, remedy=_REMEDY)
        )

    def open(self, *, only: str | None = None, missing: Missing = "error") -> dict[str, Store]:
        """The sealed stores of its splits by name, of several stores each as one; `only` opens that one alone.

        Args:
            missing: rows that one of several stores lacks: "error", or "skip" to leave them out.

        Raises:
            StorePathError, UnsealedStore, DamagedManifest: as `open_store`. Of several stores what `merge` raises.
            SpecMismatch, NotSigned: another store than the one that is pinned. ConfigError: digests are pinned of several.
        """
        chosen = None if only is None else [only]
        if len(self.places) == 1:
            [place] = self._files
            found = {name: [open_store(place, split=name)] for name in chosen or store_splits(place)}
        else:
            paired = paired_splits(self._files, chosen, remedy=_REMEDY)
            found = {name: [*map(open_store, folders)] for name, folders in paired.items()}
        if self.pinned is not None:
            self._require(found, self.pinned)
        return {
            name: stores[0] if len(stores) == 1 else Joined(merged(stores, None, self.rename, missing, self.repeated))
            for name, stores in found.items()
        }

    def _require(self, found: Mapping[str, Sequence[Store]], pinned: Pinned) -> None:
        if len(self.places) == 1:
            pinned.require_splits(self.splits())
        elif pinned.digest:
            raise ConfigError(
                f"pinned.digest names one store a split, and {len(self.places)} stores are read as one",
                remedy="pin the key that signed them all (pinned.signed_by), or `merge` them and pin the result",
            )
        for name, stores in found.items():
            for store in stores:
                pinned.require(store.folder, store.manifest, name)


SEVERAL = "several"  # what files of a run say of how several stores were read as one


def of_several(source: Source, missing: Missing = "error") -> dict[str, Any]:
    """What the files of a run say of its source, beside its name and digests; nothing of one store."""
    said = source.several(missing)
    return {SEVERAL: said} if said else {}


def store_of_run(results: Mapping[str, Any], split: str) -> Store:
    """The store, or several as one, of a split that a finished run was trained on."""
    said = dict(results.get(SEVERAL, {}))
    missing: Missing = said.pop("missing", "error")
    places = results["store"] if isinstance(results["store"], list) else [results["store"]]
    return Source(tuple(places), **said).open(only=split, missing=missing)[split]


Labels = Place | Sequence[Place] | Source  # what users name as a source


_REMEDY = "name stores of the same splits; `softlabels select --splits` takes some out"


def paired_splits(
    places: Sequence[Place],
    only: Sequence[str] | None,
    *,
    remedy: str = "choose splits that all stores have (--splits)",
) -> dict[str, list[Files]]:
    """The folders of each split in all stores, in their order; of stores that are one split each they themselves.

    Raises:
        ConfigError: one is a split and another a folder of splits; they have other splits, or lack one of `only`, which the
            `remedy` is for.
    """
    folders = [files_of(each) for each in places]
    each = [store_splits(folder) for folder in folders]
    alone = [list(splits.values()) == [folder] for splits, folder in zip(each, folders, strict=True)]
    if any(alone) and not all(alone):
        raise ConfigError(
            f"{folders[alone.index(True)]} is one split, and {folders[alone.index(False)]} a folder of splits",
            remedy="give stores of one split each, or folders of splits",
        )
    if all(alone):
        each = [{next(iter(each[0])): next(iter(splits.values()))} for splits in each]
    wanted = [*dict.fromkeys(each[0] if only is None else only)]
    for folder, splits in zip(folders, each, strict=True):
        if not wanted or not {*wanted} <= splits.keys() or (only is None and splits.keys() > {*wanted}):
            raise ConfigError(
                f"{folder} has the splits {some(splits)}, and these are wanted: {some(wanted) or 'none'}", remedy=remedy
            )
    return {name: [splits[name] for splits in each] for name in wanted}
