"""The splits of a store with the rows that they label, and the batches that students are trained and judged on.

Rows come from the transfer set that the recipe names, or, where the store embeds its inputs, from the store itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from softlabels.checks.leaks import leak_lines, leaks
from softlabels.checks.unseen import unseen_lines
from softlabels.errors import ClassMismatch, ConfigError, OtherLabels, SpecMismatch, one_line, some
from softlabels.jobs.sources import Labels, Source
from softlabels.jobs.watch import LOGGED, Watch
from softlabels.labels.targets import Target
from softlabels.names import renamed
from softlabels.objects import ObjectSpec
from softlabels.store import Store
from softlabels.store.differences import differences
from softlabels.store.digest import keys_digest
from softlabels.store.findings import Own, ask, keys_of, stored_agreement
from softlabels.store.joined import Joined
from softlabels.store.json_files import plain_json
from softlabels.store.key_index import Missing
from softlabels.store.new_spec import prepared_by
from softlabels.stream import EmbeddedRows, Loader
from softlabels.stream.columns import SoftColumns
from softlabels.stream.hard_labels import own_labels
from softlabels.stream.parts import Part
from softlabels.stream.stored_rows import StoredRows
from softlabels.student.heads import naming_target
from softlabels.student.split import chosen_rows, validation_rows
from softlabels.student.sweep import StudentTraining
from softlabels.transfer import TransferRows, TransferSetConfig, load_transfer_set
from softlabels.transfer.stored import as_stored

Rows = TransferRows | EmbeddedRows | StoredRows


@dataclass(frozen=True)
class Split:
    """One split of a store, and the rows that it labels.

    Attributes:
        missing: whether rows that the store does not label are an "error", or left out ("skip").
        members, weights: of the teacher, that students learn from.
        targets: names of the targets that they are taught; None for all.
    """

    store: Store
    rows: Rows
    missing: Missing = "error"
    members: tuple[int, ...] | None = None
    weights: tuple[float, ...] | None = None
    targets: tuple[str, ...] | None = None

    @property
    def stored_kinds(self) -> dict[str, Target]:
        """The kinds of the store's targets by name; "" is that of a target without one."""
        return {each.name: each.encoding.target for each in self.store.spec.targets}

    @property
    def kinds(self) -> dict[str, Target]:
        """Of those that students are taught."""
        taught = self.stored_kinds if self.targets is None else self.targets
        return {name: kind for name, kind in self.stored_kinds.items() if name in taught}

    @property
    def each(self) -> dict[str, Split]:
        """The same with one target alone, for each of these."""
        return {name: self.only(name) for name in self.kinds}

    def only(self, name: str) -> Split:
        """The same with one target, which then has no name."""
        store, rows = self.store.only(name), self.rows
        if isinstance(rows, StoredRows):
            rows = rows.only(name) if name else rows
        else:
            names = store.class_names if name else rows.class_names
            rows = replace(rows, labels=own_labels(rows, store), class_names=names, named={}, names_of={})
        return replace(self, store=store, rows=rows, targets=None)

    @property
    def input_shape(self) -> tuple[str, tuple[int, ...]]:
        """Dtype and shape of one prepared row."""
        if isinstance(self.rows, TransferRows):
            return str(self.rows.inputs.dtype), tuple(self.rows.inputs.shape[1:])
        column = self.store.columns["input"]
        return column.dtype, column.shape

    @property
    def prepare(self) -> ObjectSpec:
        """What made the inputs of the rows, which need not be what made the teacher's; digests stand in place of files."""
        if isinstance(self.rows, TransferRows):
            return self.rows.prepare
        embedded = self.store.spec.preprocessing  # its names are never imported, not even to see what they mean here
        return ObjectSpec(renamed(embedded.function), dict(embedded.arguments))


def open_splits(
    labels: Labels,
    transfer_set: TransferSetConfig | None,
    *,
    only: str | None = None,
    missing: Missing = "error",
    training: StudentTraining | None = None,
    watch: Watch = LOGGED,
) -> dict[str, Split]:
    """The sealed splits of `labels` (a root, or the folder of one split; or several such) by name; `only` opens that one alone.
    With what is learnt of them where a `training` says it.

    With `missing` = "skip" rows that a store does not label are left out, and a warning says how many.

    Raises ConfigError without a transfer set where one is needed, ClassMismatch where its class names are not the
    store's, and what `Source.open` and `load_transfer_set` raise.
    """
    stores = as_asked(Source.of(labels).open(only=only, missing=missing), training, watch)
    _require_one_teacher(stores)
    splits = {name: Split(store, _rows(store, transfer_set, name, watch), missing) for name, store in stores.items()}
    for name, split in splits.items() if missing == "skip" else ():
        left_out = all_batches(split, 1).left_out
        watch.warn(f"{name}: {left_out:,} of {len(split.rows.keys):,} rows have no soft labels and are left out")
        for one in split.store.stores if isinstance(split.store, Joined) else ():
            watch.warn(
                f"{name}: {one.rows - split.store.rows:,} of {one.rows:,} rows of {one.path} are not in all stores"
            )
    return splits if training is None else with_members(splits, training)


def as_asked(stores: dict[str, Store], training: StudentTraining | None, watch: Watch) -> dict[str, Store]:
    """The stores as a `training` takes them: where it takes bounds, that is said. Raises as `Store.bounded`."""
    if training is None or not training.tail_bound:
        return stores
    bounded = {name: store.bounded() for name, store in stores.items()}
    for line in sorted({store.bound for store in bounded.values() if store.bound}):
        watch.warn(f"tail_bound: {line}")
    return bounded


def with_members(splits: Mapping[str, Split], training: StudentTraining) -> dict[str, Split]:
    """The splits with the members, and their weights, that students learn from.

    Raises:
        ConfigError, MeanUnavailable: no such members or weights, or a mean that they cannot give.
    """
    for split in splits.values():
        for name, one in split.each.items():
            store = one.store
            with naming_target(name):
                weights = SoftColumns.of(store, training.weights, training.members).weights
                if not name and store.encoding.target != "values":  # by name each target has a mean of its own
                    store.encoding.check_mean(training.mean, store.classes, int((weights > 0).sum()))
    return {name: replace(split, members=training.members, weights=training.weights) for name, split in splits.items()}


def say_what_labels_are(splits: Mapping[str, Split], watch: Watch) -> None:
    """Say how often the largest output is the hard label of these rows, and warn of what the checks find in the stores: those
    of earlier versions were not asked.

    Raises OtherClassOrder where the outputs' classes stand in another order than the rows' hard labels.
    """
    for name, split in splits.items():
        keys = warn_of_findings(name, split.store, watch, order=False)
        for target, one in split.each.items():
            if one.store.spec.of_tokens or one.store.encoding.target != "softmax":
                continue
            own = Own(keys, np.asarray(one.rows.keys), np.asarray(one.rows.labels))
            with naming_target(target):
                found = stored_agreement(one.store, own=own, refuse=True)
            if found is not None:
                watch.say(f"{name}: {target + ': ' if target else ''}{found.line}")


def warn_of_findings(name: str, store: Store, watch: Watch, *, order: bool = True) -> np.ndarray:
    """Warn of what the checks find in a store's labels; the keys (R, 16) of its rows."""
    keys = keys_of(store)
    for error in ask(store, keys, order=order):
        watch.warn(f"{name}: warning: {type(error).__name__}: {error}")
    return keys


def load_rows(transfer_set: TransferSetConfig, split: str, watch: Watch = LOGGED) -> TransferRows:
    """`load_transfer_set`, with a warning for each of its notes."""
    rows = load_transfer_set(transfer_set, split)
    for note in rows.notes:
        watch.warn(f"{split}: {note}")
    return rows


def say_how_splits_relate(
    rows: Mapping[str, Rows], names: Sequence[str] | None, watch: Watch, *, tokens: bool
) -> dict[str, int]:
    """Say which rows stand in several splits, by their keys, and which classes the training rows lack, by their hard labels;
    `names` are the classes', and rows of `tokens` have no such labels. Returns what `leaks` counts.
    """
    shared = leaks({name: each.keys for name, each in rows.items()})
    counts = {name: len(each.keys) for name, each in rows.items()}
    lines = leak_lines(shared, counts)
    for target in () if tokens else next(iter(rows.values())).hard:
        labels: dict[str, Any] = {name: each.hard[target] for name, each in rows.items() if target in each.hard}
        if all(each.dtype.kind == "i" and each.itemsize > 1 for each in labels.values()):  # classes, and no flags
            title, own = f"{target}: " if target else "", next(iter(rows.values())).only(target).class_names
            lines += [f"{title}{line}" for line in unseen_lines(labels, own if target else names)]
    for line in lines:
        watch.say(one_line(line, None))
    return shared


def _rows(
    store: Store, transfer_set: TransferSetConfig | None, split: str, watch: Watch
) -> TransferRows | EmbeddedRows:
    if "input" in store.columns:
        if transfer_set is not None:
            watch.warn(f"{split}: rows and inputs come from {store.path}; the recipe's transfer_set is not read")
        return EmbeddedRows(store)
    if transfer_set is None:
        raise ConfigError(
            f"this store holds no inputs: {store.path} keeps labels only (inputs: reference), and no transfer_set is named",
            remedy=f"give --config=RECIPE with the transfer_set {store.spec.transfer_set.name!r}, or a store that embeds its "
            "inputs (labels.inputs=embed)",
        )
    rows = load_rows(as_stored(transfer_set, store.spec.preprocessing), split, watch)
    _require_same_classes(store, rows)
    if line := _other_preparation(store, rows):
        watch.warn(f"{split}: {line}")
    return rows


def _other_preparation(store: Store, rows: TransferRows) -> str:
    """What to say where the inputs are not prepared as those that the store's teacher saw, else ""."""
    theirs = store.spec.preprocessing
    if not theirs.function:
        return ""
    ours = prepared_by(rows.prepare.class_path, rows.prepare.init_args, rows.inputs)
    there, here = (
        renamed({"prepare": each.function, "init_args": plain_json(each)["arguments"]}) for each in (theirs, ours)
    )
    if different := [leaf.said("the teacher's", "here") for leaf in differences(there, here)]:
        return f"inputs are prepared differently from those that the store's teacher saw ({'; '.join(different)})"
    same_rows = keys_digest(rows.keys) == store.spec.transfer_set.content_keys
    if same_rows and theirs.sample and theirs.sample != ours.sample:
        return (
            f"{ours.function} has the same name and arguments as for the store's teacher, but gives other rows: the function, "
            "or code that it uses, has changed"
        )
    return ""


def _require_same_classes(store: Store, rows: TransferRows) -> None:
    for target in (name for name in rows.hard if name in store.targets):
        own, there = rows.only(target).class_names, store.only(target).class_names
        if there and own and there != own:
            ours, theirs = (f"{some(names)} ({len(names)})" for names in (own, there))
            with naming_target(target):
                raise (OtherLabels if sorted(there) == sorted(own) else ClassMismatch)(
                    f"the classes of {rows.name} are {ours}, those of {store.path} {theirs}",
                    remedy="use the transfer set that the store was made for, or a store of these classes",
                )


def _require_one_teacher(stores: Mapping[str, Store]) -> None:
    """Raise SpecMismatch where splits were not labelled by the same teacher over the same classes, naming the fields."""
    facts = {name: _facts(store) for name, store in stores.items()}
    first, *others = facts
    for other in others:
        different = [leaf.said(f"in {first}", f"in {other}") for leaf in differences(facts[first], facts[other])]
        if different:
            raise SpecMismatch(
                f"the splits {first} and {other} come from different teachers ({'; '.join(different)})",
                remedy="make them with one recipe, or import them with the same --teacher_name, --classes, --weights and "
                "--floor; or give the path of one split",
            )


def _facts(store: Store) -> dict[str, Any]:
    spec = renamed(plain_json(store.spec))
    if "targets" in spec:
        reduced = [{**each, "encoding": {"reduce": each["encoding"]["reduce"]}} for each in spec["targets"]]
        return {"teacher": spec["teacher"], "targets": reduced}
    return {name: spec[name] for name in ("teacher", "label_space")} | {"reduce": spec["encoding"]["reduce"]}


def training_split(splits: Mapping[str, Split]) -> Split:
    """The one that is trained on. Raises ConfigError where there is none."""
    if "train" not in splits:
        raise ConfigError(
            f"the store has no split 'train', only {', '.join(splits)}", remedy="give a store that has one"
        )
    return splits["train"]


def training_batches(
    splits: Mapping[str, Split], training: StudentTraining, part: Part | None = None
) -> tuple[Loader, Loader | None]:
    """What to train on, and what to judge epochs on: the validation split, or rows cut from the training rows; `part` of each
    batch.
    """
    train = training_split(splits)
    chosen = _chosen(train, training)
    share = 0.0 if "validation" in splits else training.validation
    is_held_out = validation_rows(train.rows.keys[chosen], share, training.seed)
    shuffled: dict[str, Any] = {"seed": training.seed, "block": training.block, "part": part}
    train_batches = all_batches(train, training.batch_size, chosen[~is_held_out], **shuffled)
    if "validation" in splits:
        return train_batches, all_batches(splits["validation"], training.batch_size, part=part)
    if not is_held_out.any():
        return train_batches, None
    return train_batches, all_batches(train, training.batch_size, selection=chosen[is_held_out], part=part)


def held_out_batches(splits: Mapping[str, Split], training: StudentTraining) -> tuple[str, Loader]:
    """What to judge on, and its name: the test split; without one the validation rows. Raises ConfigError without any."""
    if "test" in splits:
        return "test", all_batches(splits["test"], training.batch_size)
    validation = training_batches(splits, training)[1]
    if validation is None:
        raise ConfigError(
            "there is no split to evaluate students on: the store has no test split and validation is 0",
            remedy="give a store with a test split, or --validation=0.1",
        )
    return "validation", validation


def all_batches(
    split: Split,
    batch_size: int,
    selection: np.ndarray | None = None,
    *,
    seed: int | None = None,
    block: int | None = None,
    part: Part | None = None,
) -> Loader:
    """The rows of a split with all hard labels that they have: as they stand, or shuffled by a `seed`; `part` of each batch."""
    return Loader(
        split.rows,
        split.store,
        batch_size=batch_size,
        seed=seed or 0,
        selection=selection,
        shuffle=seed is not None,
        block=block,
        missing=split.missing,
        members=split.members,
        weights=split.weights,
        targets=split.targets,
        part=part,
    )


def _chosen(train: Split, training: StudentTraining) -> np.ndarray:
    """Numbers of the training rows that a run uses. Raises ConfigError when there are none."""
    is_chosen = chosen_rows(train.rows.keys, training.row_fraction, training.seed)
    if training.only_classes is not None:
        if [*train.kinds.values()] != ["softmax"] or train.store.positions is not None:
            raise ConfigError(
                f"only_classes selects rows by their class, and the rows of {train.store.path} have no single one",
                remedy="drop only_classes",
            )
        [one] = train.each.values()
        strangers = [number for number in training.only_classes if not 0 <= number < one.store.classes]
        if strangers:
            raise ConfigError(
                f"only_classes names {', '.join(map(str, strangers))}, and the store has {one.store.classes} classes",
                remedy=f"give numbers from 0 to {one.store.classes - 1}",
            )
        is_chosen &= np.isin(one.rows.hard[""], training.only_classes)
    if not is_chosen.any():
        raise ConfigError(
            f"only_classes={training.only_classes}, row_fraction={training.row_fraction} leave no training row",
            remedy="name classes that the rows have, by number, or raise row_fraction",
        )
    return np.flatnonzero(is_chosen)
