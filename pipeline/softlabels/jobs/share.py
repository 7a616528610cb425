"""`push` and `pull`: a store, or a folder of stores, to a place far away and from there."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from os import PathLike

from tqdm import tqdm

from softlabels.errors import (
    ConfigError,
    DamagedStore,
    StorePathError,
    UnsealedStore,
    one_line,
    some,
)
from softlabels.jobs.combine import chosen_rows
from softlabels.jobs.hub_page import publish, require_names, require_page
from softlabels.jobs.moved import Moved
from softlabels.jobs.watch import LOGGED, Watch, counted
from softlabels.store.card import store_card
from softlabels.store.carry import MAX_CARD_BYTES, Carrying
from softlabels.store.combine import selected
from softlabels.store.commit import alone, replace, sweep
from softlabels.store.derived import fill
from softlabels.store.json_files import read_json, read_small_file
from softlabels.store.listed import FOR_READERS, holds_store, listed_splits, safe_name, store_splits
from softlabels.store.paths import CARD, MANIFEST, PLAN
from softlabels.store.pinned import Pinned
from softlabels.store.reader import Store, open_store
from softlabels.store.records import Manifest
from softlabels.store.root import require_apart, require_root, write_root
from softlabels.store.spec import Plan
from softlabels.store.verify import verify
from softlabels.system.depots import Depot, LocalDepot
from softlabels.system.hub import Hub
from softlabels.system.keys import public_key
from softlabels.system.urls import depot_of

Address = str | PathLike[str] | Depot
_MOST_SPLITS = 1000
_ROOT_FILES = (CARD, *FOR_READERS)  # of a folder of stores


def push(
    store: str | PathLike[str], address: Address, *, read_back: bool = True, watch: Watch = LOGGED
) -> dict[str, Manifest]:
    """Push a sealed store, or a folder of them; existing files are not sent again.

    Args:
        store: its folder on this machine.
        address: the destination (docs/places.md): an empty place, or the same store.
        read_back: read back and compare all files at the destination; otherwise only sizes are compared.
        watch: gets the messages, and is asked whether to stop.

    Returns:
        The manifest of each split.

    Raises:
        StorePathError, SpecMismatch: the place holds something else. UnsealedStore: the store is unfinished.
        DamagedStore: it is damaged; the file was not sent.
        StorageError: the place refused, for example because credentials expired. Interrupted: asked to stop. Push again to
            resume. On the Hub nothing is visible before the end.

    Example:
        >>> push("stores/noise", "bucket/noise")["train"].digest == store.digest  # or s3://BUCKET/noise
        True
    """
    here, there = LocalDepot(store), depot_of(address)
    if not there.lists:
        raise ConfigError(f"{there} is a web server, to which nothing is pushed", remedy="it is for pull only")
    if isinstance(there, LocalDepot):
        require_apart(here, there)
    names = store_splits(here)
    splits = {split: here if list(names.values()) == [here] else here.within(split) for split in names}
    for folder in splits.values():  # before anything is sent
        open_store(folder)
    if not isinstance(there, Hub):
        return _pushed(here, there, splits, read_back, watch)
    require_names(here, there, splits)
    with there.repository.sending() as made:
        if made:
            watch.say(f"{there}: a new private repository")
        require_page(there)  # before anything is sent
        found = _pushed(here, there, splits, read_back, watch)
        watch.say(f"{there}: commit {publish(here, there, splits)}")
    return found


def _pushed(
    here: LocalDepot, there: Depot, splits: Mapping[str, LocalDepot], read_back: bool, watch: Watch
) -> dict[str, Manifest]:
    """Push the stores at `here`, each to its place."""
    single = list(splits.values()) == [here]
    if not single:
        _require_own(there, splits)
    found = {}
    for split, folder in splits.items():
        target = there if single else there.within(split)
        back = read_back and not isinstance(there, Hub)  # which is compared once it is published
        found[split] = _carried(split, folder, target, watch, read_back=back, trusted=not read_back)
    for name in () if single else _ROOT_FILES:
        if here.exists(name) and not (name == CARD and there.exists(name)):  # people may have added to it
            there.put(name, read_small_file(here, name, MAX_CARD_BYTES))
    return found


def pull(
    address: Address,
    store: str | PathLike[str],
    *,
    split: str | None = None,
    rows: str | None = None,
    digest: str | None = None,
    signed_by: str | None = None,
    watch: Watch = LOGGED,
) -> dict[str, Manifest]:
    """Pull a sealed store, or a folder of them, and verify every byte; existing files are not fetched again.

    Args:
        address: the source (docs/places.md). store: the folder to write.
        split: one of several.
        rows: rows of one split, such as "0:1000,1500": makes a store of only these, with the source as its parent. Only their
            chunks and all content keys are fetched.
        digest: the digest that the store must have; otherwise nothing is fetched.
        signed_by: who must have signed each split, as for `open_store`; otherwise nothing of it is fetched.
        watch: gets the messages, and is asked whether to stop.

    Returns:
        The manifest of each split.

    Raises:
        StorePathError, UnsealedStore: no store is there, or one whose push has not finished.
        SpecMismatch: it has another digest, or `store` holds something else. NotSigned: that key has not signed it.
        DamagedStore: the source is not as it was sealed.
        StorageError: the place refused. Interrupted: asked to stop. Pull again to resume.

    Example:
        >>> pushed = push("stores/noise", "bucket/theirs")
        >>> pull("bucket/theirs", "theirs/noise", split="train")["train"].digest == store.digest
        True
    """
    there, root = depot_of(address), LocalDepot(store)
    if isinstance(there, LocalDepot):
        require_apart(there, root)
    splits = splits_there(there, split)
    if rows is not None and len(splits) > 1:
        raise ConfigError(f"rows are selected from the splits {some(splits)}", remedy="name one: --split=train")
    pinned = Pinned.told(digest, signed_by, splits, remedy="name the split of that digest: --split")
    single, found = list(splits.values()) == [there], {}
    if not single:
        require_root(root, tuple(splits))
    for name, source in splits.items():
        target = root if single else root.within(name)
        found[name] = _fetched(name, source, target, rows, pinned, watch)
    if not single:
        write_root(root)
    return found


def _carried(
    split: str, source: Depot, target: Depot, watch: Watch, *, pinned: Pinned | None = None, **how: bool
) -> Manifest:
    """Carry one store, and say so."""
    with Moved(split, watch.say) as moved:
        carrying = Carrying(source, target, progress=moved.add, should_stop=watch.should_stop, **how)
        manifest, moved.total = carrying.manifest, carrying.manifest.bytes
        if pinned is not None:
            pinned.require(source, manifest, split)
        carrying.require_target()
        with ExitStack() as stack:
            if isinstance(target, LocalDepot):
                stack.enter_context(alone(target))
                sweep(target)  # what a kill left takes room
            carrying.run()
    watch.say(f"{split}: {moved.line}, digest {manifest.digest}")
    return manifest


def _fetched(split: str, source: Depot, target: LocalDepot, rows: str | None, pinned: Pinned, watch: Watch) -> Manifest:
    """Pull one store, or some of its rows, and verify what arrived."""
    if not source.exists(MANIFEST):
        what = "is unfinished: it has a plan and no manifest" if source.exists(PLAN) else "holds no store"
        raise UnsealedStore(f"{source} {what}", remedy="run the `softlabels push` to there again, or wait for its end")
    if rows is None:
        manifest = _carried(split, source, target, watch, pinned=pinned)
    else:
        manifest = _picked(split, source, target, rows, pinned, watch)
    problems = verify(target)
    if problems:
        raise DamagedStore(
            f"{target} is as it was pushed, and wrong in {counted(len(problems), 'place')}: {problems[0].where}",
            remedy="tell the store's maker",
        )
    if not target.exists(CARD):  # as from the Hub, whose page is another one
        with alone(target):
            replace(target, CARD, store_card(manifest).encode())
    watch.say(f"{split}: every byte is as it was sealed{_by(pinned, rows)}")
    return manifest


def _by(pinned: Pinned, rows: str | None) -> str:
    if pinned.signed_by is None:
        return ""
    said = f"as {public_key(pinned.signed_by).fingerprint} signed it"
    return f", and {said}" if rows is None else f"; of the whole {said}"


def _picked(split: str, source: Depot, target: LocalDepot, rows: str, pinned: Pinned, watch: Watch) -> Manifest:
    """A store of some rows of one that stays where it is."""
    store = Store(source)
    pinned.require(source, store.manifest, split)
    made = selected(store, chosen_rows(store, rows), None, None)
    with tqdm(total=made.spec.shards, desc=split, unit="shard", disable=None) as bar:
        manifest = fill(target, made, progress=bar.update, should_stop=watch.should_stop)
    watch.say(f"{split}: {made.spec.rows:,} of {store.rows:,} rows of {store.digest}, digest {manifest.digest}")
    return manifest


def _require_own(there: Depot, splits: Mapping[str, object]) -> None:
    """Raise `StorePathError` where a place holds what is none of these splits' nor describes them."""
    own = (*_ROOT_FILES, *splits)
    other = next((name for name, _ in there.sizes() if name.partition("/")[0] not in own), None)
    if other is not None:
        raise StorePathError(
            f"{there} holds other files ({one_line(other)})",
            remedy="give an empty place, or push each split to its own folder",
        )


def splits_there(there: Depot, split: str | None) -> dict[str, Depot]:
    """The splits at a place by name, or the one store that it is itself."""
    with suppress(FileNotFoundError):
        named = read_json(there, PLAN, Plan).spec.transfer_set.split
        if split not in (None, named):
            raise StorePathError(f"{there} is the split {named}, not {split}", remedy="leave --split out")
        return {safe_name(there, named): there}
    if split is not None:
        return {split: there.within(safe_name(there, split))}
    names = sorted(listed_splits(there)) or sorted(found.name for found in there.folders() if holds_store(found))
    if not names:
        raise StorePathError(f"{there} holds no store", remedy="check the address; a push names it in its last line")
    if len(names) > _MOST_SPLITS:
        raise StorePathError(f"{there} lists {len(names):,} splits", remedy="name one: --split=train")
    return {name: there.within(safe_name(there, name)) for name in names}
