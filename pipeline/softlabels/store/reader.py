"""`open_store`: a sealed store of one split, as numpy arrays and as distributions.

Opening reads the manifest and the plan (kilobytes) and checks them against each other; commit records are read when a shard
is first touched, chunks and the basis of the tails when they are asked for. R rows, P positions of a row, M members, C classes
(or numbers of a vector).
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from copy import copy
from functools import cached_property
from typing import Literal, Self

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from softlabels.errors import DamagedManifest, StorePathError, UnsealedStore, UserError
from softlabels.labels.decoder import Columns
from softlabels.labels.encoding import Encoding
from softlabels.labels.ensemble import check_temperature, normalised_weights
from softlabels.labels.targets import require_target
from softlabels.store.basis import Basis, read_basis
from softlabels.store.chunks import ChunkReader
from softlabels.store.commit import recorded_shards
from softlabels.store.digest import blake3_hex, payload_digest
from softlabels.store.gather import Stored, gather, read_rows
from softlabels.store.json_files import RELABEL, RESTORE, decode_json, read_json, read_small_file
from softlabels.store.key_index import KeyIndex
from softlabels.store.listed import store_splits
from softlabels.store.paths import MANIFEST, PLAN, SET_ASIDE, record_name
from softlabels.store.pinned import require_pinned
from softlabels.store.records import Commit, Manifest, Payload, with_blocks, without_blocks
from softlabels.store.seal import check_manifest, check_record
from softlabels.store.spec import Plan
from softlabels.system.files import Files
from softlabels.system.places import Place, files_of

Check = Literal["first", "always", "never"]


def open_store(
    path: Place,
    *,
    split: str | None = None,
    check: Check = "first",
    digest: str | None = None,
    signed_by: str | None = None,
    tail_bound: bool = False,
) -> Store:
    """Open a sealed store.

    Args:
        path: the folder of one split, or a folder of several with `split`; or an address, such as s3://BUCKET/FOLDER: the store
            is then read in place (docs/places.md).
        check: check each chunk's digest the first time it is read, always, or never. Values are checked the first time, or
            always.
        digest: the digest that it must have.
        signed_by: who must have signed it: a public key's file (PEM or OpenSSH), or the line of an OpenSSH key itself.
        tail_bound: for labels that are known at only one temperature, give them at higher ones too, see `Store.bounded`.

    Raises:
        StorePathError: no store there, or several splits and none chosen.
        UnsealedStore: it is not finished. DamagedManifest: it does not agree with itself.
        SpecMismatch, NotSigned: another digest; no valid signature of that key.

    Example:
        >>> open_store("stores/noise", split="train").log_probs([3, 1, 4], temperature=8.0).shape
        (3, 5)
    """
    root = files_of(path)
    splits = store_splits(root)
    if split is None and len(splits) > 1:
        raise StorePathError(
            f"{root} holds the splits {', '.join(splits)}", remedy=f"choose one, such as {root.at('train')}"
        )
    if split is not None and split not in splits:
        raise StorePathError(f"{root} has no split {split!r}", remedy=f"choose one of {', '.join(splits)}")
    pinned = {"digest": digest, "signed_by": signed_by}
    if check == "never" and any(pinned.values()):
        raise UserError("check=never reads values that no digest vouches for", remedy="choose first or always")
    store = Store(splits[split] if split else next(iter(splits.values())), check=check)
    require_pinned(store.folder, store.manifest, **pinned)
    return store.bounded() if tail_bound else store


class Store(Stored):
    """A sealed store of one split; made by `open_store`.

    With several targets, `only(name)` gives each target as a store of its own, for losses, metrics and tables. `SeveralTargets`
    is raised if the whole store is asked for something that only one target has.

    Attributes:
        path, folder: where it is. spec, manifest: its specification, and the manifest.
        rows: R, the number of rows. targets: the names of its targets, "" for one without a name.
        classes, members, class_names: C, M and the names of the classes, or None.
        encoding: dense, topk, sigmoid or values, with what its columns mean. soft_columns: the names of its columns.
        positions: P, the (largest) number of positions of a row; None if a row is one distribution without such an axis.
        member_weights: (M,) float64, summing to 1. reduce: "none", or the mean that reduced all members to M = 1.
        digest, content_digest: its identity, and the digest of its labels in any layout.
        rows_per_chunk, chunks: chunk c begins at row c * rows_per_chunk.
        columns: `content_key` uint8 (16,), `label` (`softlabels.labels.hard`); `position_mask` (P,) for rows of positions, and
            `document` (P,) for tokens; dense `logits` float16 ([P,] M, C) and `shift` float32 ([P,] M), or the columns of
            another encoding; and `input` if inputs are embedded. Ragged rows are filled up, with mask and document 0.

    Example:
        >>> store.rows, store.members, store.classes
        (160, 3, 5)
        >>> store.column("logits").shape, store.probabilities([3, 1, 4], temperature=8.0).shape
        ((160, 3, 5), (3, 5))
    """

    def __init__(self, folder: Files, *, check: Check = "first") -> None:
        if check not in ("first", "always", "never"):
            raise UserError(f"check={check!r}", remedy="choose first, always or never")
        self.folder, self.path = folder, folder.at()
        self.check = check
        self._describe(_read_manifest(folder))
        self._records: dict[int, tuple[Commit, bytes]] = {}
        self._reader = ChunkReader(folder, self.spec)
        self._checked: set[tuple[str, int]] = set()

    def _describe(self, manifest: Manifest) -> None:
        """Take over what a manifest says."""
        self.manifest = manifest
        self.spec = self._whole = spec = manifest.spec
        self.rows, self.layout, self.positions = spec.rows, spec.layout, spec.positions
        self.digest, self.content_digest = manifest.digest, manifest.content_digest
        self.rows_per_chunk = spec.cut.rows_per_chunk
        self.chunks = -(-self.rows // self.rows_per_chunk)
        self.columns = {column.name: column for column in spec.columns}

    def only(self, name: str) -> Self:
        """One target as a store of its own, see `Stored.only`."""
        view = super().only(name)
        view.manifest = self.manifest.only(name)
        return view

    def bounded(self) -> Self:
        """The same store for topk labels that are known at only one temperature T: it gives them above T too, with the ratios
        of the stored classes, and with an upper bound of the teacher's tail mass (`bound` says so). At T nothing changes.

        Raises:
            ConfigError: labels of one temperature that give no bound.
        """
        view = copy(self)
        targets = tuple(msgspec.structs.replace(each, encoding=each.encoding.bounded()) for each in self.spec.targets)
        view.spec = self.spec.with_targets(targets)
        return view

    @property
    def bound(self) -> str:
        """One line on which numbers of this store are bounds; "" if none are."""
        known = {each.name: each.encoding.only_at for each in self._whole.targets}
        names = [(each.name or self.name, each.encoding.only_at) for each in self.spec.targets]
        at = {known[name] for name, now in names if now != known[name]}
        words = " and ".join(f"T={t:g}" for t in sorted(filter(None, at)))
        return f"labels known at {words} alone: at higher T the mass of their tail is an upper bound" if at else ""

    @property
    def cautions(self) -> list[str]:
        """Cautions for readers of scores against these labels, one line each."""
        lines, at = [self.bound] if self.bound else [], self.encoding.near_1
        if at != 1 and self.encoding.target != "values":
            lines.append(f"the teacher is not known at T=1: its NLL, ECE and Brier are those of T={at:g}")
        return lines

    @property
    def classes(self) -> int:
        """C, or the length of a vector."""
        return self.spec.label_space.classes

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The classes' names in order."""
        return self.spec.label_space.names

    @property
    def members(self) -> int:
        """M."""
        return self.spec.stored_members

    @property
    def encoding(self) -> Encoding:
        """How labels are stored."""
        return self.spec.encoding

    @property
    def reduce(self) -> str:
        """How the members were reduced to one."""
        return self.spec.encoding.reduce

    @property
    def soft_columns(self) -> tuple[str, ...]:
        """The names of the encoding's columns, of all targets."""
        return self.spec.soft_columns

    @property
    def member_weights(self) -> NDArray[np.float64]:
        """(M,), summing to 1."""
        return normalised_weights(self.spec.member_weights, self.members)

    def __repr__(self) -> str:
        head = f"Store({str(self.path)!r}, rows={self.rows}, "
        if self.targets != ("",):
            return f"{head}targets={self.targets})"
        return f"{head}members={self.members}, classes={self.classes})"

    def __len__(self) -> int:
        return self.rows

    def payload(self, shard: int) -> Payload:
        """The payload of a shard's commit record, checked against the manifest."""
        return self.record(shard).payload

    def record(self, shard: int) -> Commit:
        """The commit record of a shard, checked against the manifest."""
        return with_blocks(*self._record(shard))

    def _record(self, shard: int) -> tuple[Commit, bytes]:
        """The same as it is kept, see `without_blocks`."""
        if shard not in self._records:
            name = record_name(shard)
            path = self.folder.at(name)
            try:
                data = read_small_file(self.folder, name)
            except FileNotFoundError:
                raise DamagedManifest(f"the commit record of shard {shard} is gone: {path}", remedy=RELABEL) from None
            if blake3_hex(data) != self.manifest.commits[shard]:
                raise DamagedManifest(f"{path} (shard {shard}) is not the record that was sealed", remedy=RELABEL)
            record = decode_json(data, Commit, str(path))
            if payload_digest(record.payload) != self.manifest.payloads[shard]:
                raise DamagedManifest(
                    f"{path} (shard {shard}) is not what the store's digest was taken of", remedy=RELABEL
                )
            check_record(self._whole, shard, record, str(path))
            self._records[shard] = without_blocks(record)
        return self._records[shard]

    def payloads(self, shards: Collection[int]) -> dict[int, Payload]:
        """The payloads of some shards without the hashes of blocks; their records are requested together."""
        new = [shard for shard in shards if shard not in self._records]
        self.folder.ahead({record_name(shard): [(0, 1)] for shard in new})
        return {shard: self._record(shard)[0].payload for shard in shards}

    def read_chunk(self, column: str, chunk: int) -> NDArray[np.generic]:
        """One chunk of a column: (rows of the chunk, ...).

        Raises:
            MissingShard, DamagedShard: naming shard, file and remedy; never fill values.
        """
        shard, number = divmod(chunk, self.spec.cut.rows_per_shard // self.rows_per_chunk)
        stored = self.columns[column]
        ask = self.check == "always" or (stored.name, chunk) not in self._checked
        check = ask and self.check != "never"
        values = self._reader.read(self._record(shard)[0].payload, stored, number, check=check, values=ask)
        self._checked.add((stored.name, chunk))
        return values

    def column(self, name: str, *, beside: Sequence[str] = ()) -> NDArray[np.generic]:
        """A whole column, (R, ...). From a remote place the columns `beside` it, which are read next, are fetched with it."""
        self._require(name)
        return read_rows(self, name, 0, self.rows, beside)

    def gather(self, name: str, rows: ArrayLike) -> NDArray[np.generic]:
        """The given rows of a column, in the order given: (len(rows), ...); each chunk is read once."""
        self._require(name)
        wanted = np.asarray(rows, np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= self.rows):
            raise UserError(
                f"rows {wanted.min()} to {wanted.max()} of a store of {self.rows} rows",
                remedy=f"ask for rows 0 to {self.rows - 1}",
            )
        return gather(self, (name,), wanted)[name]

    def _require(self, name: str) -> None:
        if name not in self.columns:
            raise UserError(f"the store has no column {name!r}", remedy=f"its columns are {', '.join(self.columns)}")

    def find(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """The row of each content key (Q, 16) -> (Q,): the first if several rows share a key, -1 if there is none."""
        return self._index.find(keys)

    @cached_property
    def _index(self) -> KeyIndex:
        return KeyIndex(self.column("content_key"))  # type: ignore[arg-type]  # the column's dtype is uint8

    def log_probs(
        self, rows: ArrayLike, *, temperature: float, mean: str = "arithmetic", weights: ArrayLike | None = None
    ) -> NDArray[np.float64]:
        """The ensemble's log-probabilities of some rows at a temperature: (len(rows), [P,] C) float64.

        `mean` and `weights` (default: the store's) are as in `softlabels.labels.ensemble`. Raises `ConfigError` at temperatures
        that the store's labels do not cover.
        """
        require_target(self.encoding.target, "log-probabilities", "softmax")
        columns, share = self._asked(rows, temperature, mean, weights)
        return self.encoding.log_probs(
            columns, self.classes, self.basis, temperature=temperature, mean=mean, weights=share
        )

    def probabilities(
        self, rows: ArrayLike, *, temperature: float, mean: str = "arithmetic", weights: ArrayLike | None = None
    ) -> NDArray[np.float64]:
        """The ensemble's probabilities of some rows: (len(rows), [P,] C) float64, of a softmax over the classes or, for sigmoid
        labels, of each class. The arguments are as in `log_probs`.
        """
        require_target(self.encoding.target, "probabilities", "softmax", "sigmoid")
        columns, share = self._asked(rows, temperature, mean, weights)
        return self.encoding.probabilities(
            columns, self.classes, self.basis, temperature=temperature, mean=mean, weights=share
        )

    def values(self, rows: ArrayLike, *, weights: ArrayLike | None = None) -> NDArray[np.float64]:
        """The members' weighted mean vectors of rows: (len(rows), [P,] D) float64. Raises `ConfigError` for distributions."""
        require_target(self.encoding.target, "values", "values")
        share = self.spec.member_weights if weights is None else weights
        return self.encoding.values({name: self.gather(name, rows) for name in self.soft_columns}, share)

    def _asked(
        self, rows: ArrayLike, temperature: float, mean: str, weights: ArrayLike | None
    ) -> tuple[Columns, ArrayLike]:
        """The columns of some rows and the members' weights, where the labels know the temperature and can give the mean."""
        share = self.spec.member_weights if weights is None else weights
        self.encoding.check_mean(mean, self.classes, int(np.count_nonzero(share)))
        check_temperature(temperature)
        return {name: self.gather(name, rows) for name in self.soft_columns}, share

    @property
    def basis(self) -> Basis | None:
        """The prior and the basis of the tails, (1 + r, C) float16; None if the store has none. Raises `DamagedBasis`."""
        return None if self.spec.basis_shape is None else self._basis

    @cached_property
    def _basis(self) -> Basis | None:
        return read_basis(self.folder, self._whole)


def _read_manifest(store: Files) -> Manifest:
    """Manifest and plan of a sealed store, checked against themselves and each other."""
    try:
        plan = read_json(store, PLAN, Plan)
    except FileNotFoundError:
        if store.exists(MANIFEST):
            raise DamagedManifest(f"{store.at(PLAN)} is gone", remedy=RESTORE) from None
        raise StorePathError(f"{store} holds no plan.json and is no store", remedy="give the path of a store") from None
    try:
        manifest = read_json(store, MANIFEST, Manifest)
    except FileNotFoundError:
        done, state = len(recorded_shards(store)), "is unfinished"
        if store.exists(SET_ASIDE):
            state = f"is under repair (what was damaged lies in {SET_ASIDE})"
        again = "run the command that began it again (teacher-logits, import, encode or convert)"
        counted = f"{done} of {plan.spec.shards} shards are committed and " if store.lists else ""
        raise UnsealedStore(
            f"{store} {state}: {counted}it has no {MANIFEST}",
            remedy=f"{again}; it goes on from there"
            if done < plan.spec.shards
            else f"all that it lacks is sealing: `softlabels repair {shlex.quote(str(store))}` does that, or {again}",
        ) from None
    check_manifest(manifest, str(store.at(MANIFEST)))
    if manifest.spec != plan.spec or manifest.format != plan.format:
        raise DamagedManifest(f"{store.at(MANIFEST)} and plan.json do not agree", remedy=RESTORE)
    return manifest
