"""The commit protocol of one shard: staged, recorded, placed. It asks of a place what every place can do: a file that is there
with its whole content or not at all, a name that only one writer can give, and files moved from one name to another.

1. Its files are written in `staging/<write id>/`, under numbers, and settled.
2. A commit record that names write id, sizes and digests gets the name `commits/<shard>.json`, which only one writer can
   give. From then on the shard is decided.
3. The recorded write's files get their final names. Only now the shard counts as done.

A death before 2 leaves rubbish in staging; a death between 2 and 3 leaves files that `place` puts in place.
Staging is swept only by a writer that is known to be alone.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial

from softlabels.errors import DamagedManifest, DamagedShard, MissingShard, RunExists, StorageError, StrangePath
from softlabels.store.claims import claimants_elsewhere, is_alone
from softlabels.store.json_files import pretty_json, read_json
from softlabels.store.paths import CLAIMS, COMMITS, LOCK, MANIFEST, SET_ASIDE, STAGING, record_name, staged
from softlabels.store.records import Commit
from softlabels.system.files import Files, Folder, Presence
from softlabels.system.places import each_of

_AGAIN = "run `softlabels repair`, then the same command again"


def recorded_shards(store: Files) -> set[int]:
    """The shards that have a commit record."""
    names = (name.removesuffix(".json") for name in store.names(COMMITS) if name.endswith(".json"))
    return {int(name) for name in names if name.isascii() and name.isdigit()}


def is_bound(store: Files) -> bool:
    """Whether somebody's work depends on the store's plan: shards are recorded, or were until `repair` set them aside."""
    return bool(recorded_shards(store)) or store.exists(SET_ASIDE)


def create(store: Folder, name: str, data: bytes) -> bool:
    """Write a file of the store unless its name is taken; True where it was free. Whoever opens the store next sweeps what a
    kill leaves in staging.
    """
    return store.create(name, data, staged=f"{STAGING}/{uuid.uuid4().hex}.file")


def replace(store: Folder, name: str, data: bytes) -> None:
    """The same, replacing what stood there."""
    store.put(name, data, staged=f"{STAGING}/{uuid.uuid4().hex}.file")


def commit(store: Folder, record: Commit) -> bool:
    """Record a staged write as the shard's content, unless another write already is; then put the recorded one in place.
    True when this write won.
    """
    name = record_name(record.payload.shard)
    try:
        won = create(store, name, pretty_json(record))
    except BaseException:
        # Where the record may have got its name, or will yet, the staged files stay: it is for the next run to see.
        with suppress(StorageError, StrangePath):
            if store.sees_writers and not store.exists(name):
                discard(store, record.write_id)
        raise
    if not won:
        discard(store, record.write_id)
        ours, record = record, read_json(store, name, Commit)
        if (record.payload.shard, record.payload.files.keys()) != (ours.payload.shard, ours.payload.files.keys()):
            raise DamagedManifest(f"{store.at(name)} is no record of shard {ours.payload.shard}", remedy=_AGAIN)
        store.settle([name])
    _place(store, [record], {record.write_id})
    return won


def place(store: Folder, records: Iterable[Commit]) -> None:
    """Give recorded writes' files their final names, where that has not been done, and drop their staging folders. Settled,
    whoever placed them: it may have died before it did.

    Raises:
        MissingShard: a file is neither in staging nor in place. DamagedShard: it is no plain file, or has another size than was
            recorded.
    """
    _place(store, list(records), set(store.names(STAGING)))


def _place(store: Folder, records: Sequence[Commit], here: set[str]) -> None:
    """The same, of which the writes that are `here` may still be staged."""
    moves = {
        staged(record.write_id, number): target
        for record in records
        if record.write_id in here
        for number, target in enumerate(sorted(record.payload.files))
    }
    plain = each_of(store, partial(_is_plain, store), moves)
    store.place({name: moves[name] for name, found in zip(moves, plain, strict=True) if found})
    files = [
        (record.payload.shard, name, file.size) for record in records for name, file in record.payload.files.items()
    ]
    each_of(store, lambda file: _require_size(store, *file), files)
    store.settle(name for record in records for name in record.payload.files)
    for record in records:
        if record.write_id in here:
            discard(store, record.write_id)


def _is_plain(store: Files, name: str) -> bool:
    with suppress(FileNotFoundError, StrangePath):
        return store.size(name) >= 0
    return False


def _require_size(store: Files, shard: int, name: str, recorded: int) -> None:
    path = store.at(name)
    try:
        size = store.size(name)
    except FileNotFoundError:
        raise MissingShard(f"shard {shard} is recorded, but its file {path} is gone", remedy=_AGAIN) from None
    except StrangePath as error:
        raise DamagedShard(f"shard {shard} is damaged: {path} is a link or no file", remedy=_AGAIN) from error
    if size != recorded:
        raise DamagedShard(
            f"shard {shard} is damaged: {path} has {size} bytes, not the recorded {recorded}", remedy=_AGAIN
        )


def discard(store: Folder, write_id: str) -> None:
    """Remove a write's staging folder; nothing depends on it any more."""
    store.clear(f"{STAGING}/{write_id}")


def leave_staging(store: Folder, presence: Presence) -> None:
    """Remove the staging folder of a sealed store, unless a writer is still alive in it: where that cannot be told, all that
    lies there is of writes that the manifest excludes.
    """
    if is_alone(store, presence) if store.sees_writers else store.names(STAGING):
        store.clear(STAGING)


def sweep(store: Folder) -> None:
    """Remove what is staged and nobody will commit. Only for a writer that is alone, after all records are placed."""
    for name in set(store.names(STAGING)) - {LOCK.rpartition("/")[2]}:
        store.clear(f"{STAGING}/{name}")


@contextmanager
def alone(store: Folder) -> Iterator[None]:
    """Keep writers out; a sealed store is left without staging. Raises `RunExists` where there is one; of which no lock tells,
    only an unfinished store has any.
    """
    presence = store.enter(LOCK)
    try:
        if not presence.alone() and store.sees_writers:
            raise RunExists(f"another process writes to {store}", remedy="wait until it has ended, or stop it")
        if not store.exists(MANIFEST) and (who := next(claimants_elsewhere(store), None)):
            raise RunExists(
                f"{who} claims shards of {store}",
                remedy=f"wait until it has ended, or stop it; if it has died, remove {store.at(CLAIMS)}",
            )
        yield
        if store.exists(MANIFEST):
            store.clear(STAGING)
    finally:
        presence.close()
