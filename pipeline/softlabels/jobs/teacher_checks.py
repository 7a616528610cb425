"""What is asked of a teacher before its pass over a split: a few rows, its classes, and the hard labels beside them."""

from __future__ import annotations

import numpy as np

from softlabels.errors import ClassMismatch, UserError
from softlabels.labels.targets import Target, titled
from softlabels.models.alone import is_padded
from softlabels.teacher.assign import names_of, require_width
from softlabels.teacher.ensemble import Ensemble
from softlabels.teacher.expected import hard_of, mask_of
from softlabels.teacher.seen import require_unseen
from softlabels.teacher.sentinels import check_sentinels, token_classes
from softlabels.transfer import TransferRows
from softlabels.transfer.sequences import require_known_tokens


def checked_classes(rows: TransferRows, teacher: Ensemble) -> dict[str, int]:
    """C of each target, of a teacher whose outputs do not depend on its batches. Of rows that folds label the members of each
    fold are asked.

    Raises `TeacherError`, `LogitsError`, `ClassMismatch`; `LabelError` of a token that has no output; `WeightsError` of a fold
    whose members saw its rows.
    """
    _require_counted(rows)
    for fold, each in enumerate(teacher.asked(rows)):
        for file in each.files:
            require_unseen(file, rows.keys, fold, len(teacher.of_fold))
    found, *_ = [_checked(rows, asked) for asked in teacher.asked(rows)]
    return found


def _checked(rows: TransferRows, teacher: Ensemble) -> dict[str, int]:
    """Of the members, or of those of one fold."""
    if rows.sequence is not None:
        require_known_tokens(rows.name, rows.inputs, rows.sequence, token_classes(teacher, rows.inputs))
    kinds = {name: encoding.target for name, encoding in teacher.expected.targets.items()}
    hard = {} if rows.sequence is not None else hard_of(rows, kinds)
    classes = check_sentinels(
        teacher,
        rows.inputs,
        labels={name: labels for name, labels in hard.items() if kinds[name] == "softmax"},
        names={name: names_of(rows, name) for name in kinds},
        mask=rows.mask,
        padded=is_padded(rows.prepare.class_path),
    )
    for name, count in classes.items():
        _check_classes(rows, name, kinds[name], count)
        if name in hard:
            require_width(name, hard[name], count, rows.positions)
    if "" in classes:
        teacher.check_class_names(rows.class_names, whose=f"the transfer set {rows.name}")
    return classes


def _require_counted(rows: TransferRows) -> None:
    """Raise `UserError` where a row has no position that counts."""
    if rows.positions is None:
        return
    mask, shape = mask_of(rows), (len(rows.keys), rows.positions)
    if mask.shape != shape or mask.dtype != np.uint8:
        raise UserError(
            f"the mask of {rows.name} is {mask.dtype} {mask.shape}, and its rows have {rows.positions} positions",
            remedy=f"give uint8 {shape}, 1 where a position counts",
        )
    none = np.flatnonzero(~np.asarray(mask.any(axis=1)))
    if none.size:
        raise UserError(
            f"row {none[0]} of {rows.name} has no position that counts ({none.size} of {len(mask)} rows)",
            remedy="leave such rows out",
        )


def _check_classes(rows: TransferRows, name: str, kind: Target, classes: int) -> None:
    if classes < 2 and kind == "softmax":
        raise ClassMismatch(
            f"{titled(name)}the teacher has one output, and a distribution has two classes or more",
            remedy="of a score z for yes or no make the logits (0, z), or keep it as it is (labels.kind: sigmoid)",
        )
    names = names_of(rows, name)
    if names is not None and len(names) != classes:
        where = f"labels.targets.{name}.classes" if name else "transfer_set.classes"
        raise ClassMismatch(
            f"{titled(name)}the teacher has {classes} classes and the transfer set {rows.name} {len(names)}",
            remedy=f"give the teacher of this label space, or name its classes in {where}",
        )
