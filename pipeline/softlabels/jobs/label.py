"""`label`: a teacher's logits of a transfer set, one store a split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypedDict

from softlabels.errors import UnsealedStore, UserError
from softlabels.jobs.filling import Filling
from softlabels.jobs.labelled import ByEnsemble, Labelled, say_store
from softlabels.jobs.served import by_server
from softlabels.jobs.shards import ALL, Shards
from softlabels.jobs.splits import load_rows
from softlabels.jobs.stores import is_begun
from softlabels.jobs.teacher_checks import checked_classes
from softlabels.jobs.watch import LOGGED, Watch
from softlabels.labels.encoding import Encoding
from softlabels.store.json_files import read_json
from softlabels.store.paths import PLAN
from softlabels.store.records import Manifest
from softlabels.store.root import require_root, write_root
from softlabels.store.spec import Plan, Spec
from softlabels.store.writer import StoreWriter
from softlabels.system.places import Target, folder_of
from softlabels.teacher.assign import assigned
from softlabels.teacher.config import LabelsConfig
from softlabels.teacher.ensemble import Ensemble
from softlabels.teacher.served import Served
from softlabels.transfer import TransferRows, TransferSetConfig
from softlabels.transfer.stored import as_stored

Rows = TransferSetConfig | TransferRows | Sequence[TransferRows]  # of the splits that are labelled


def label(
    transfer_set: Rows,
    teacher: Ensemble | Served,
    labels: LabelsConfig,
    store: Target,
    *,
    shards: Shards = ALL,
    watch: Watch = LOGGED,
) -> dict[str, Manifest]:
    """Run a teacher over the splits of a transfer set and store its logits, one store per split: STORE/train, ... .

    The same call resumes, however it was stopped. Afterwards the teacher is not needed again. Several workers that make the
    same call on one store share its shards (docs/scaling.md).

    Args:
        transfer_set: its description; or its prepared rows, inputs (R, ...), of one split or of several.
        teacher: models that take a batch of inputs (B, ...) and give logits (B, C), for rows of positions (B, P, C), for L
            tokens (B, L - 1, V); for several targets, a mapping of these by name. Or a model behind a server (docs/served.md).
        labels: how the stores are written: encoding, layout, cut.
        store: the folder for the stores; a new one, or one that the same call began.
        shards: which of them this worker computes; by default all that no other live worker has claimed.
        watch: gets the messages, and is asked whether to stop.

    Returns:
        The manifest of each split's store: digest, fidelity, specification. Of a worker with shards of its own only those that
        are whole.

    Raises:
        TeacherError, LogitsError, ClassMismatch: the teacher's outputs for a row depend on its batch, are not logits, or are of
            other classes; nothing is written.
        SpecMismatch and its kinds, OtherLabels: the store was begun with other rows, weights or settings.
        Interrupted: `watch` asked to stop; the same call resumes. DiskFull, StorageError: from the disk.

    Example:
        >>> made = label(states, teacher, LabelsConfig(inputs="embed"), "stores/states")
        >>> made["train"].spec.rows, made["test"].spec.rows
        (160, 40)
    """
    with at_work(transfer_set, teacher, labels, store, shards, watch) as worker:
        found = worker.run()
    write_root(folder_of(store))
    return found


@contextmanager
def at_work(
    transfer_set: Rows, teacher: Ensemble | Served, labels: LabelsConfig, store: Target, shards: Shards, watch: Watch
) -> Iterator[Filling]:
    """A worker of `label`, its stores open."""
    root = folder_of(store)
    splits = list(transfer_set.splits) if isinstance(transfer_set, TransferSetConfig) else [*_by_split(transfer_set)]
    require_root(root, tuple(splits))
    begun = next(filter(is_begun, map(root.within, splits)), None)
    rows = rows_of(transfer_set, None if begun is None else read_json(begun, PLAN, Plan).spec, watch)
    folders = {split: root.within(split) for split in rows}
    with ExitStack() as stack:
        job: Labelled[Any]
        if isinstance(teacher, Served):
            _require_alike(rows)
            stack.enter_context(teacher.at_work(watch.should_stop))
            job = by_server(teacher, rows, labels, folders, watch)
        else:
            job = ByEnsemble(folders=folders, watch=watch, **asked_of(teacher, rows, labels))
        yield stack.enter_context(job.opened(shards))


class Asked(TypedDict):
    """What an ensemble is asked, and of which rows: see `Labelled`."""

    rows: dict[str, TransferRows]
    classes: dict[str, dict[str, int]]
    teacher: Ensemble
    encodings: dict[str, Encoding]
    labels: LabelsConfig


def asked_of(teacher: Ensemble, given: Mapping[str, TransferRows], labels: LabelsConfig) -> Asked:
    """The same, once a few rows of each split have shown that the teacher can be asked. Raises as `label` does."""
    encodings = labels.encodings(len(teacher.models))
    kinds = {name: encoding.target for name, encoding in encodings.items()}
    rows = {split: assigned(each, kinds, labels.names) for split, each in given.items()}
    _require_alike(rows)
    first = next(iter(rows.values()))
    teacher.expect(first.sequence, positions=first.positions, targets=encodings)
    classes = {split: checked_classes(each, teacher) for split, each in rows.items()}
    for name, encoding in encodings.items():
        encoding.check(1 if encoding.is_reduced else len(teacher.models), min(each[name] for each in classes.values()))
    return Asked(rows=rows, classes=classes, teacher=teacher, encodings=encodings, labels=labels)


def label_shards(
    transfer_set: Rows,
    teacher: Ensemble | Served,
    labels: LabelsConfig,
    store: Target,
    shards: Mapping[str, Iterable[int]],
    *,
    watch: Watch = LOGGED,
) -> dict[str, Manifest]:
    """`label` for a worker of an engine that distributes the work: `{"train": [0, 3]}` are the shards that it computes, except
    those that are written already. It ignores other workers; the one that writes the last shard of a split seals it.

    Example:
        >>> [*label_shards(states, teacher, LabelsConfig(), "stores/handed", {"train": [0], "test": [0]})]
        ['train', 'test']
    """
    return label(transfer_set, teacher, labels, store, shards=Shards(named=shards), watch=watch)


def seal(store: Target, splits: Sequence[str] = (), *, watch: Watch = LOGGED) -> dict[str, Manifest]:
    """Seal the stores of these splits (by default of all that were begun) below `store`, if all their shards are there; no
    teacher is needed. Returns their manifests.

    Raises:
        UnsealedStore: shards of a split are missing; the others are sealed.
        UserError: a split was not begun.

    Example:
        >>> made = label(states, teacher, LabelsConfig(), "stores/sealed", shards=Shards(named={"train": [0]}))
        >>> [*seal("stores/sealed", ["train"])]
        ['train']
    """
    root, found, unsealed = folder_of(store), dict[str, Manifest](), list[UnsealedStore]()
    begun = [folder.name for folder in root.folders() if folder.exists(PLAN)]
    for split in splits or begun or ("train",):
        if split not in begun:
            raise UserError(f"there is no store at {root.within(split)}", remedy="run teacher-logits first")
        plan = read_json(root.within(split), PLAN, Plan)
        with StoreWriter(root.within(split), plan.spec, about=plan.about) as writer:
            try:
                found[split] = writer.seal()
            except UnsealedStore as error:
                unsealed.append(error)
                continue
        for line in writer.said:
            watch.say(f"{split}: {line}")
        say_store(split, found[split], watch.say)
    write_root(root)
    if unsealed:
        raise unsealed[0]
    return found


def _require_alike(rows: Mapping[str, TransferRows]) -> None:
    """Raise `UserError` where splits have other positions."""
    found = {split: (each.positions, each.sequence and each.sequence.positions) for split, each in rows.items()}
    if len({*found.values()}) > 1:
        said = ", ".join(f"{split} {positions or tokens}" for split, (positions, tokens) in found.items())
        raise UserError(f"the rows of the splits have other positions ({said})", remedy="prepare them alike")


def rows_of(given: Rows, like: Spec | None, watch: Watch) -> dict[str, TransferRows]:
    """The rows of each split. Those of tokens begin as those that a store with the specification `like` labels."""
    if not isinstance(given, TransferSetConfig):
        return _by_split(given)
    config = given if like is None else as_stored(given, like.preprocessing)
    return {split: load_rows(config, split, watch) for split in config.splits}


def _by_split(given: TransferRows | Sequence[TransferRows]) -> dict[str, TransferRows]:
    every = [given] if isinstance(given, TransferRows) else given
    splits = {rows.split: rows for rows in every}
    if not splits or len(splits) < len(every):
        said = ", ".join(rows.split for rows in every) or "none"
        raise UserError(f"the splits to label are {said}", remedy="give the rows of one or more, each split once")
    return splits
