"""`StoreWriter`: fills a store shard by shard, in any order and from several processes, and seals it.

Opening a writer begins a store or resumes one: basis and plan are written once and compared ever after, recorded shards are
put in place, leftovers of dead writers are swept. `pending` are the shards still to do. R rows of a shard, P positions of a
sequence row, M members, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from softlabels import errors
from softlabels.errors import some
from softlabels.labels.decoder import Columns
from softlabels.labels.lost import Lost
from softlabels.store.arrays import by_target, encode_logits, row_arrays
from softlabels.store.basis import Basis, drop_basis, put_basis, read_basis, require_basis
from softlabels.store.card import store_card
from softlabels.store.claims import is_alone
from softlabels.store.columns import LABEL, stored_name
from softlabels.store.commit import create, is_bound, leave_staging, place, recorded_shards, replace, sweep
from softlabels.store.digest import blake3_hex
from softlabels.store.findings import check_written
from softlabels.store.json_files import decode_json, pretty_json, read_json, read_small_file
from softlabels.store.layouts import layout_of
from softlabels.store.paths import BASIS_FILE, BASIS_FOLDER, CARD, COMMITS, LOCK, MANIFEST, PLAN, STAGING, record_name
from softlabels.store.reader import open_store
from softlabels.store.records import Commit, Manifest
from softlabels.store.rules import check_spec
from softlabels.store.same_plan import named_as_begun, require_same_plan
from softlabels.store.seal import check_record, make_manifest, store_bytes, was_sealed
from softlabels.store.shard_writer import ShardWriter, environment_here
from softlabels.store.spec import About, Plan, Spec, plan_of
from softlabels.store.verify import require_files
from softlabels.system.files import Files, Folder, Presence, is_file
from softlabels.system.places import Target, each_of, folder_of, reading

_PLACED = 256  # records whose files are put in place between two beats


class StoreWriter:
    """Write one store (one split). `basis` (1 + r, C) float16 is the prior and basis that the encoding's tails need; a store
    with shards has it already. `presence` is the mark of a live writer, if the caller has already made it; it is closed with
    the writer.

    Raises:
        StorePathError: `path` is a file, or a folder that holds something else.
        DamagedManifest: the plan of a sealed store is gone.
        SpecMismatch: the store was begun with another specification and holds shards; each differing field is named.
        UserError: the basis is not the one that the specification names, or none is given or stored.
        DamagedStore: it is sealed, and a record or file of it is gone or of another size.

    Example:
        >>> keys = array_keys(inputs)
        >>> spec = store_spec(teacher="mine", name="noise", keys=keys, classes=5, members=3)
        >>> with StoreWriter("stores/written/train", spec) as writer:
        ...     for shard in writer.pending:
        ...         rows = slice(*writer.rows_of(shard))
        ...         writer.write_logits(shard, keys=keys[rows], labels=labels[rows], logits=logits[rows])
        ...     digest = writer.seal().digest
    """

    def __init__(
        self,
        path: Target,
        spec: Spec,
        *,
        basis: Basis | None = None,
        about: About | None = None,
        environment: Mapping[str, str] | None = None,
        presence: Presence | None = None,
    ) -> None:
        self.spec = spec = check_spec(spec, error=errors.UserError)
        if basis is not None:
            require_basis(spec, basis)
        self.folder = folder_of(path)
        self.path = self.folder.at()
        self.layout = layout_of(spec)
        self.plan = plan_of(spec, about)
        self.said: tuple[str, ...] = ()
        self.environment = {**environment_here(), **(environment or {})}
        require_store_path(self.folder)
        self._presence = presence
        self.sealed = self.folder.exists(MANIFEST)
        self._taken = set(range(spec.shards)) if self.sealed else set()
        self.beaten: list[int] = []  # shards that another writer recorded while this one wrote them
        if self.sealed:
            self.close()
            self._require_same(read_json(self.folder, PLAN, Plan))
            require_files(open_store(reading(self.folder)))
            if not self.folder.sees_writers and self.folder.names(STAGING):  # of a writer that died after the seal
                self.folder.clear(STAGING)
            return
        self._presence = presence or self.folder.enter(LOCK)
        try:
            self._begin(self._presence, basis)
        except BaseException:
            self.close()
            raise

    def _begin(self, presence: Presence, basis: Basis | None) -> None:
        """Write the plan or compare it, finish what dead writers left, and let other writers in."""
        alone = is_alone(self.folder, presence)
        if not alone:
            presence.share()  # before anything is staged, so that it cannot be swept
        if alone and not is_bound(self.folder):  # a start that committed nothing binds nobody
            self.plan = named_as_begun(self.plan, self.folder)
            self.spec = self.plan.spec
            self.folder.remove(PLAN)
            if basis is not None or self.spec.basis_shape is None:
                drop_basis(self.folder, keep=basis)
        self.plan = self._agree_on_plan(basis)
        read = partial(self._read_record, reading(self.folder))
        records = [record for record, _ in each_of(self.folder, read, sorted(recorded_shards(self.folder)))]
        self._place(records)
        self._taken |= {record.payload.shard for record in records}
        if alone:
            sweep(self.folder)
            presence.share()
        self._look_for_seal()

    def _look_for_seal(self) -> None:
        """Whether another writer has sealed it meanwhile."""
        if not self.sealed and self.folder.exists(MANIFEST):
            self.sealed = True
            self._leave_staging()

    def _place(self, records: list[Commit]) -> None:
        """Finish what writers recorded that may be dead."""
        place(self.folder, records)
        if records:
            self.folder.settle([record_name(0)])

    def _agree_on_plan(self, basis: Basis | None) -> Plan:
        """The plan that stands in the store: ours if none stood there. The basis that it names stands before it does."""
        if not self.folder.exists(PLAN):
            if basis is not None:
                put_basis(self.folder, basis)
            elif self.spec.basis_shape is not None and not self.folder.exists(BASIS_FILE):
                raise errors.UserError(
                    f"the tails of {self.path} need a basis", remedy="give the one that the specification was made with"
                )
            create(self.folder, PLAN, pretty_json(self.plan))
        standing = read_json(self.folder, PLAN, Plan)
        self._require_same(standing)
        check_spec(standing.spec, version=standing.format)
        if basis is not None and not self.folder.exists(BASIS_FILE):  # lost; the same one, by the plan
            put_basis(self.folder, basis)
        read_basis(self.folder, standing.spec)
        return standing

    def _require_same(self, standing: Plan) -> None:
        require_same_plan(self.plan, standing, str(self.path))
        self.spec = standing.spec  # of an earlier version, where names alone are other ones: the store keeps its digest

    def stopped(self) -> errors.Interrupted:
        """The error for a writer that was asked to stop; the same command resumes."""
        what = f"stopped with {len(self.pending)} of {self.spec.shards} shards left in {self.path}"
        return errors.Interrupted(what, remedy="run the same command again to resume")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop counting as a live writer. Shards written so far stay."""
        if self._presence is not None:
            self._presence.close()
            self._presence = None

    @property
    def pending(self) -> list[int]:
        """The shards without a commit record, in order."""
        return [] if self.sealed else sorted(set(range(self.spec.shards)) - recorded_shards(self.folder))

    @property
    def placed(self) -> list[int]:
        """The shards that were in place when the store was opened, or that this writer wrote. A shard that another writer has
        just recorded may not have its files in place yet.
        """
        return sorted(self._taken)

    def record(self, shard: int) -> Commit:
        """The commit record of a shard, checked against the plan (its paths are used for placing files)."""
        return self._read_record(self.folder, shard)[0]

    def _read_record(self, files: Files, shard: int) -> tuple[Commit, str]:
        """The same, and the digest of its file."""
        name = record_name(shard)
        data, where = read_small_file(files, name), str(files.at(name))
        record = decode_json(data, Commit, where)
        check_record(self.spec, shard, record, where)
        return record, blake3_hex(data)

    def rows_of(self, shard: int) -> tuple[int, int]:
        """First and one past the last row of a shard."""
        if not 0 <= shard < self.spec.shards:
            raise errors.UserError(
                f"shard {shard} of a store of {self.spec.shards} shards",
                remedy=f"write shards 0 to {self.spec.shards - 1}",
            )
        rows = self.spec.shard_rows(shard)
        return rows.start, rows.stop

    @property
    def bytes_left(self) -> int:
        """About how many bytes of the disk, in whole blocks, the rest will take, before compression."""
        return store_bytes(self.plan, self.pending, self.environment, block=self.folder.block())

    @contextmanager
    def shard(self, shard: int) -> Iterator[ShardWriter]:
        """Write a shard part by part, with at most one chunk of it in memory: see `ShardWriter`. Raises `RepeatedRow` as
        `write_logits` does.
        """
        first, last = self.rows_of(shard)
        if shard in self._taken:
            raise errors.RepeatedRow(
                f"rows {first} to {last - 1} are in {self.path} already", remedy="write each shard once"
            )
        with ShardWriter(self.folder, self.spec, shard, self.environment) as out:
            yield out
        if out.committed:
            self._taken.add(shard)
            self.beaten += [] if out.won else [shard]

    def write_logits(
        self,
        shard: int,
        *,
        keys: NDArray[np.uint8],
        labels: NDArray[np.generic] | Mapping[str, NDArray[np.generic]] | None,
        logits: NDArray[np.floating] | Mapping[str, NDArray[np.floating]],
        mask: NDArray[np.uint8] | None = None,
        document: NDArray[np.uint16] | None = None,
        inputs: NDArray[np.generic] | None = None,
        fold: NDArray[np.uint16] | None = None,
        are_logits: bool = False,
    ) -> None:
        """Encode and commit a shard. With several targets, `labels` and `logits` are mappings by their names.

        Args:
            keys: (R, 16) content keys.
            labels: hard labels as in `softlabels.labels.hard`: (R, [P]) int64 for distributions, -1 for none (for tokens (R,),
                always -1). None, or no entry, for a target without a column of them.
            logits: (R, [P,] M, C) raw outputs of every member, float16 to float64; reduced here if the spec says so.
            mask: (R, P) for rows of positions, see `softlabels.store.positions`; where it is 0, outputs do not matter.
            document: (R, P), also needed for rows of tokens.
            inputs: (R, ...) prepared inputs, if the spec embeds them. fold: (R,), if it has folds.
            are_logits: they are logits even if they look like probabilities, which are otherwise refused.

        Raises:
            LogitsError, LabelError: naming row and member.
            RepeatedRow: the shard was in the store when it was opened, or this writer wrote it. (If another process commits the
                same shard at the same time, the first one wins and the other's write is dropped.)
            DiskFull, StorageError: nothing of this shard is visible; earlier shards are kept.
        """
        self.rows_of(shard)
        encoded = {
            name: encode_logits(self.spec, name, shard, given, mask, are_logits=are_logits)
            for name, given in by_target(self.spec, logits, "logits").items()
        }
        columns = {name: each for name, (each, _) in encoded.items()}
        lost = {name: each for name, (_, each) in encoded.items()}
        self.write_columns(
            shard,
            keys=keys,
            labels=labels,
            columns=columns.get("", columns),
            mask=mask,
            document=document,
            inputs=inputs,
            fold=fold,
            fidelity=lost.get("", lost),
        )

    def write_columns(
        self,
        shard: int,
        *,
        keys: NDArray[np.uint8],
        labels: NDArray[np.generic] | Mapping[str, NDArray[np.generic]] | None,
        columns: Columns | Mapping[str, Columns],
        mask: NDArray[np.uint8] | None = None,
        document: NDArray[np.uint16] | None = None,
        inputs: NDArray[np.generic] | None = None,
        fold: NDArray[np.uint16] | None = None,
        fidelity: Lost | Mapping[str, Lost],
    ) -> None:
        """Commit a shard whose outputs are already encoded. With several targets, `labels`, `columns` and `fidelity` are
        mappings by their names.

        Args:
            columns: the encoding's columns, each (R, [P,] M, ...), or (R * P, M, ...) as `Encoding.encode` gives them.
            fidelity: what encoding them lost. The others: as for `write_logits`.

        Raises:
            UserError: columns that are not the specification's, or have impossible values; others as for `write_logits`.
        """
        by_name = labels if isinstance(labels, Mapping) else {} if labels is None else {"": labels}
        own = {stored_name(name, LABEL): values for name, values in by_name.items()}
        others = {"content_key": keys, "position_mask": mask, "document": document, "input": inputs, "fold": fold}
        soft = {
            stored_name(target, name): values
            for target, each in by_target(self.spec, columns, "columns").items()
            for name, values in each.items()
        }
        arrays = row_arrays(self.spec, own | {name: each for name, each in others.items() if each is not None}, soft)
        with self.shard(shard) as out:
            out.add(arrays, len(self.spec.shard_rows(shard)))
            out.commit(by_target(self.spec, fidelity, "fidelity"))

    def seal(self, *, checked: bool = False, beat: Callable[[], object] = lambda: None) -> Manifest:
        """Check that every shard is there and write card, metadata for other readers, and last the manifest. `said` then holds
        the findings on the labels. Labels are not refused if they were `checked`, as in a copy of a sealed store, or if the
        store was sealed before a repair. `beat` is called often meanwhile.

        Raises:
            UnsealedStore: shards are missing.
            SpecMismatch: the content keys are not those that the specification was made for.
            ContradictingOutputs, OtherClassOrder: see `softlabels.checks`; the store stays unsealed.
        """
        self._look_for_seal()
        if self.sealed:
            return read_json(self.folder, MANIFEST, Manifest)
        if self.pending:
            raise errors.UnsealedStore(
                f"{self.path} still lacks shards {some(self.pending)}", remedy="write them, then seal"
            )
        records, commits, files = list[Commit](), list[str](), reading(self.folder)
        read = partial(self._read_record, files)
        for first in range(0, self.spec.shards, _PLACED):
            beat()
            found = each_of(files, read, range(first, min(first + _PLACED, self.spec.shards)))
            records += [record for record, _ in found]
            commits += [digest for _, digest in found]
            beat()
            self._place(records[first:])
        checked = checked or was_sealed(self.folder, self.spec)
        self.said = check_written(files, self.spec, records, checked=checked, beat=beat)
        read_basis(self.folder, self.spec)
        manifest = make_manifest(self.plan, records, tuple(commits))
        beside = self.layout.metadata(self.spec, manifest.digest, manifest.format)
        beside |= {CARD: store_card(manifest, self.said).encode()}
        each_of(self.folder, lambda file: replace(self.folder, *file), beside.items())
        is_first = create(self.folder, MANIFEST, pretty_json(manifest))
        if not is_first:  # another worker was quicker, from the same records
            manifest = read_json(self.folder, MANIFEST, Manifest)
        self.sealed = True
        self._leave_staging()
        return manifest

    def _leave_staging(self) -> None:
        """Remove what is staged and a manifest excludes."""
        if self._presence is not None:
            leave_staging(self.folder, self._presence)
        self.close()


def require_room(writers: Iterable[StoreWriter]) -> int | None:
    """Raise `DiskFull` unless the place can hold what these writers still have to write; returns the free bytes, if it says."""
    writers = list(writers)
    need = sum(writer.bytes_left for writer in writers)
    free = writers[0].folder.room()
    if free is not None and need > free:
        raise errors.DiskFull(
            f"{writers[0].path} still needs {need:,} bytes and the disk has {free:,} free",
            remedy="make room, or give a store path on another disk, then run the same command again",
        )
    return free


def require_store_path(store: Folder) -> None:
    """Raise `StorePathError` where something else lies there."""
    for each in (store, store.above()):  # an object store takes objects below an object
        if is_file(each):
            raise errors.StorePathError(f"{each} is a file; a store is a folder", remedy="give another path")
    strangers = [name for name in store.names() if name not in (STAGING, COMMITS, BASIS_FOLDER)]
    if strangers and not store.exists(PLAN):  # asked last: another writer may have begun meanwhile
        if MANIFEST in strangers:
            what = f"{store} has a {MANIFEST} and no {PLAN}"
            raise errors.DamagedManifest(what, remedy="run `softlabels repair`, then the same command again")
        raise errors.StorePathError(
            f"{store} holds other files ({some(strangers)}) and no {PLAN}",
            remedy="give the path of a store or of a new folder",
        )
