"""Classes that are impossible to the teacher (-inf): losses that they make infinite are refused before anything is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from softlabels.errors import LogitsError
from softlabels.jobs.splits import Split, all_batches
from softlabels.models.device import resolve_device
from softlabels.student.learner import Student
from softlabels.student.losses import LOSSES
from softlabels.student.outputs import batch_loss, outputs_of

_TRIED = 4096  # rows with such classes on which the loss is tried


def require_possible(students: Sequence[Student], split: Split, used: NDArray[np.int64]) -> None:
    """Raise `LogitsError` where a student's loss is not finite for the labels of the rows `used` (numbers of the split's), as
    that of a class which is impossible to the teacher alone. The store is read once, whatever the number of students.
    """
    asked = [student for student in students if student.config.is_soft and LOSSES[student.config.loss].needs_possible]
    if not asked or not split.store.encoding.keeps_all:
        return
    labelled_by = split.store.find(np.asarray(split.rows.keys)[used])
    store = split.store
    chunks = (store.read_chunk("logits", chunk).astype(np.float16, copy=False) for chunk in range(store.chunks))
    impossible = np.concatenate([np.isneginf(chunk).reshape(len(chunk), -1).any(axis=1) for chunk in chunks])  # (R,)
    rows = used[(labelled_by >= 0) & impossible[labelled_by]]
    if not len(rows):
        return
    for student in asked:
        try:
            _try(student, split, rows[:_TRIED])
        except LogitsError as error:
            raise LogitsError(
                f"{len(rows):,} of {len(used):,} rows have a class that is impossible to the teacher (-inf), and {error.what}",
                remedy=f"{error.remedy}; probabilities are imported without zeros with --floor",
            ) from error


def _try(student: Student, split: Split, rows: NDArray[np.int64]) -> None:
    """Compute a student's loss of these rows, and train nothing. Raises what the loss raises."""
    spec = dataclasses.replace(student.config.loss_at(0.0), hard_weight=0.0, soft_weight=1.0)
    device = resolve_device(student.config.device)
    training = student.model.training
    model = student.model.to(device).eval()
    try:
        with torch.inference_mode():
            for batch in all_batches(split, min(256, len(rows)), selection=rows).epoch(0):
                moved = batch.to(device)
                batch_loss(outputs_of(model, moved), moved, spec)
    finally:
        model.train(training)
