"""`label`: a teacher's logits of a transfer set, one store a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from softlabels.errors import UserError
from softlabels.jobs.labelled import Labelled
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
from softlabels.system.places import Place, folder_of
from softlabels.teacher.assign import assigned
from softlabels.teacher.config import LabelsConfig
from softlabels.teacher.ensemble import Ensemble
from softlabels.transfer import TransferRows, TransferSetConfig
from softlabels.transfer.sequences import as_stored

Rows = TransferSetConfig | TransferRows | Sequence[TransferRows]  # of the splits that are labelled


def label(
    transfer_set: Rows,
    teacher: Ensemble,
    labels: LabelsConfig,
    store: Place,
    *,
    watch: Watch = LOGGED,
) -> dict[str, Manifest]:
    """Run a teacher over the splits of a transfer set and store its logits, one store a split: STORE/train, ... .

    ::

        rows = TransferSetConfig(name="digits", source="./data/digits", inputs=("image",), label="label", prepare=scaled)
        label(rows, Ensemble.of([model]), LabelsConfig(inputs="embed"), "stores/digits")["train"].digest

    The same call goes on where it was stopped, however it was stopped. When it is done, the teacher is not needed again.

    Args:
        transfer_set: what it is; or its prepared rows, inputs (R, ...), of one split or of several.
        teacher: models that take a batch of inputs (B, ...) and give logits (B, C), of rows of positions (B, P, C), of L tokens
            (B, L - 1, V); or, of several targets, a mapping of such by name.
        labels: how the stores are written: encoding, layout, cut.
        store: the folder for the stores; a new one, or one that the same call began.
        watch: is told what is done, and asked whether to stop.

    Returns:
        The manifest of each split's store: digest, fidelity, specification.

    Raises:
        TeacherError, LogitsError, ClassMismatch: the teacher's outputs for a row depend on its batch, are no logits, or are of
            other classes; nothing is written.
        SpecMismatch and its kinds, OtherLabels: the store was begun with other rows, weights or settings.
        Interrupted: `watch` asked to stop; the same call goes on. DiskFull, StorageError: of the disk.
    """
    root = folder_of(store)
    splits = list(transfer_set.splits) if isinstance(transfer_set, TransferSetConfig) else [*_by_split(transfer_set)]
    require_root(root, tuple(splits))
    begun = next(filter(is_begun, map(root.within, splits)), None)
    rows = rows_of(transfer_set, None if begun is None else read_json(begun, PLAN, Plan).spec, watch)
    folders = {split: root.within(split) for split in rows}
    found = Labelled(folders=folders, watch=watch, **asked_of(teacher, rows, labels)).fill()
    write_root(root)
    return found


class Asked(TypedDict):
    """What a teacher is asked, and of which rows: see `Labelled`."""

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
