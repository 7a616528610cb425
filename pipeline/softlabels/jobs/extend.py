"""`extend`: a store with more rows, of which its teacher is asked about the new ones alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from softlabels.errors import ConfigError, OtherRows, some
from softlabels.jobs.label import Rows, asked_of, rows_of
from softlabels.jobs.labelled import ByEnsemble
from softlabels.jobs.watch import LOGGED, Watch, counted
from softlabels.store import Store, StoreWriter, open_store, store_splits
from softlabels.store.basis import Basis
from softlabels.store.findings import keys_of
from softlabels.store.gather import Ints
from softlabels.store.key_index import Missing, met
from softlabels.store.new_spec import SAMPLE_ROWS
from softlabels.store.records import Manifest
from softlabels.store.root import require_apart, require_root, write_root
from softlabels.store.same_plan import require_same_plan
from softlabels.store.spec import Parent, Spec, plan_of
from softlabels.system.files import Presence
from softlabels.system.places import Place, Target, files_of, folder_of
from softlabels.teacher.config import LabelsConfig
from softlabels.teacher.ensemble import Ensemble
from softlabels.teacher.extending import Extending
from softlabels.teacher.resume import check_labelled
from softlabels.teacher.teacher import Teacher
from softlabels.transfer import TransferRows, TransferSetConfig
from softlabels.transfer.keys import SALTED_RULE


def extend(
    store: Place,
    transfer_set: Rows,
    teacher: Ensemble,
    labels: LabelsConfig,
    out: Target,
    *,
    missing: Missing = "error",
    watch: Watch = LOGGED,
) -> dict[str, Manifest]:
    """Label the rows of a transfer set that a store lacks.

    The new store has all rows in the order of the transfer set, as one pass over all of them would have made it. Rows that
    `store` has, by content key, are copied bit for bit; `store` itself does not change. The same call resumes.

    Args:
        store: one split, or a folder of splits, that `label` made with this teacher and these labels.
        transfer_set, teacher, labels: as for `label`; the transfer set holds the store's rows, and more. Splits that the store
            lacks are labelled whole.
        out: where the new store goes.
        missing: rows or splits of the store that the transfer set lacks: "error", or "skip" to leave them out.
        watch: gets the messages, and is asked whether to stop.

    Returns:
        The manifest of each split's store; nothing if the store already labels all rows, and none was made.

    Raises:
        SpecMismatch and its kinds, OtherLabels: another teacher, other settings, inputs or hard labels than the store's;
            OtherLogits: the teacher now gives other logits for its rows; OtherRows: the transfer set lacks some.
        The others as for `label`.

    Example:
        >>> fewer = label(load_transfer_set(states, "test"), teacher, LabelsConfig(), "stores/may")
        >>> extend("stores/may", states, teacher, LabelsConfig(), "stores/june")["train"].spec.rows
        160
    """
    source, root = files_of(store), folder_of(out)
    require_apart(source, root)
    parents = {name: open_store(folder) for name, folder in store_splits(source).items()}
    single = [each.folder for each in parents.values()] == [source]
    rows = rows_of(_chosen(transfer_set, parents, missing, single=single), next(iter(parents.values())).spec, watch)
    parents = {split: parents[split] for split in rows if split in parents}
    at = {split: _met(parent, rows[split], missing) for split, parent in parents.items()}
    if parents.keys() == rows.keys() and all((each >= 0).all() for each in at.values()):
        watch.say(f"{source} labels every row of {next(iter(rows.values())).name} already: nothing is made")
        return {}
    folders = {split: root if single else root.within(split) for split in rows}
    if not single:
        require_root(root, tuple(rows))
    made = Extended(folders=folders, watch=watch, parents=parents, at=at, **asked_of(teacher, rows, labels))
    made.require_alike()
    done = made.fill()
    if not single:
        write_root(root)
    return done


@dataclass(frozen=True)
class Extended(ByEnsemble):
    """Stores of what an ensemble says of rows some of which the `parents` of the splits hold: `at` their rows, -1 elsewhere."""

    parents: Mapping[str, Store]
    at: Mapping[str, Ints]

    def require_alike(self) -> None:
        """Raise where a parent is not what this teacher, with these settings, says of the rows; nothing is written yet."""
        for split, parent in self.parents.items():
            ours = super().spec(split, self._like(parent, split))
            theirs = _with_rows_of(ours, parent.spec, self.at[split])
            require_same_plan(
                plan_of(ours), plan_of(theirs), str(parent.folder), how="was labelled otherwise", instead="store"
            )
            check_labelled(parent, self.rows[split], self.at[split], self.teacher)

    def _like(self, parent: Store, split: str) -> Basis | None:
        """The parent's basis, or what stands for it where these settings need another one."""
        for name, each in self.encodings.items():
            if each.basis_rank is not None:
                shape = (1 + each.basis_rank, self.classes[split][name])
                return parent.basis if parent.spec.basis_shape == shape else np.zeros(shape, np.float16)
        return None

    def asked(self, split: str) -> Teacher[TransferRows]:
        """The ensemble, about the new rows."""
        parent = self.parents.get(split)
        return self.teacher if parent is None else Extending(self.teacher, parent, self.at[split])

    def standing_basis(self) -> Basis | None:
        """That of the parents."""
        return next(iter(self.parents.values())).basis

    def spec(self, split: str, basis: Basis | None) -> Spec:
        """With the parent's basis, and its digest."""
        parent = self.parents.get(split)
        if parent is None:
            return super().spec(split, basis)
        parents = (Parent(digest=parent.digest, how="extended"),)
        return msgspec.structs.replace(super().spec(split, parent.basis), parents=parents)

    def open(self, split: str, spec: Spec, basis: Basis | None, presence: Presence | None = None) -> StoreWriter:
        """With the parent's basis."""
        return super().open(split, spec, self.parents[split].basis if split in self.parents else basis, presence)

    def announce(self, writers: Mapping[str, StoreWriter], free: int | None) -> None:
        """Also how many rows are new."""
        super().announce(writers, free)
        for split, at in self.at.items():
            known, parent = int((at >= 0).sum()), self.parents[split]
            self.watch.say(f"{split}: {known:,} of {counted(len(at), 'row')} are copied from {parent.folder}")


def _chosen(given: Rows, parents: Mapping[str, Store], missing: Missing, *, single: bool) -> Rows:
    """The splits that are made: all of the transfer set; of a store of one split that one."""
    names = list(given.splits) if isinstance(given, TransferSetConfig) else [*rows_of(given, None, LOGGED)]
    lacking = [name for name in parents if name not in names]
    if len(lacking) == len(parents) or (lacking and missing == "error"):
        raise ConfigError(
            f"the store has the splits {some(parents)}, and the transfer set {some(names)}",
            remedy="name the store's splits in transfer_set.splits, or give missing=skip to leave the others out",
        )
    if not single:
        return given
    if isinstance(given, TransferSetConfig):
        return replace(given, splits={name: split for name, split in given.splits.items() if name in parents})
    return [rows for name, rows in rows_of(given, None, LOGGED).items() if name in parents]


def _met(store: Store, rows: TransferRows, missing: Missing) -> Ints:
    """(R,) the store's row for each of these, -1 where it has none."""
    pairs, (lost, _) = met(keys_of(store), np.asarray(rows.keys))
    at = np.full(len(rows.keys), -1, np.int64)
    at[pairs[:, 1]] = pairs[:, 0]
    if len(lost) == store.rows or (len(lost) and missing == "error"):
        raise OtherRows(
            f"{rows.name} lacks {len(lost):,} of the {store.rows:,} rows of {store.folder}, row {lost[0]} first",
            remedy="give a transfer set with all rows, and its key_salt if it has one, or give missing=skip to leave them out"
            if len(lost) < store.rows
            else "give a transfer set with these rows and more, and its key_salt where it has one",
        )
    return at


def _with_rows_of(ours: Spec, theirs: Spec, at: Ints) -> Spec:
    """The parent's specification, but for what other rows and their number may change."""
    this, that = ours.transfer_set, theirs.transfer_set
    rule = that.key_rule if SALTED_RULE in (this.key_rule, that.key_rule) else this.key_rule
    transfer = msgspec.structs.replace(this, key=that.key, split=that.split, key_rule=rule)
    same_first = len(at) >= SAMPLE_ROWS and np.array_equal(at[:SAMPLE_ROWS], np.arange(SAMPLE_ROWS))
    sample = theirs.preprocessing.sample if same_first else ours.preprocessing.sample
    preprocessing = msgspec.structs.replace(theirs.preprocessing, sample=sample)
    return msgspec.structs.replace(
        theirs, transfer_set=transfer, preprocessing=preprocessing, cut=ours.cut, parents=ours.parents
    )
