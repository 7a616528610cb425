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
from softlabels.student.heads import Head, heads_of, naming_target
from softlabels.student.learner import Student
from softlabels.student.losses import LOSSES
from softlabels.student.outputs import answers_of, batch_loss

_TRIED = 4096  # rows with such classes on which the loss is tried


def require_possible(students: Sequence[Student], split: Split, used: NDArray[np.int64]) -> None:
    """Raise `LogitsError` where a student's loss is not finite for the labels of the rows `used` (numbers of the split's), as
    that of a class which is impossible to the teacher alone. The store is read once, whatever the number of students.
    """
    for name, one in split.each.items():
        heads = [(student, head) for student in students if (head := heads_of(student.config).get(name)) is not None]
        asked = [
            (student, head)
            for student, head in heads
            if head.config.is_soft and LOSSES[head.config.loss].needs_possible
        ]
        if asked and one.store.encoding.keeps_all:
            with naming_target(name):
                _require_possible(asked, one, used)


def _require_possible(asked: Sequence[tuple[Student, Head]], split: Split, used: NDArray[np.int64]) -> None:
    """The same of one target."""
    labelled_by = split.store.find(np.asarray(split.rows.keys)[used])
    store = split.store
    chunks = (store.read_chunk("logits", chunk).astype(np.float16, copy=False) for chunk in range(store.chunks))
    impossible = np.concatenate([np.isneginf(chunk).reshape(len(chunk), -1).any(axis=1) for chunk in chunks])  # (R,)
    rows = used[(labelled_by >= 0) & impossible[labelled_by]]
    if not len(rows):
        return
    for student, head in asked:
        try:
            _try(student, head, split, rows[:_TRIED])
        except LogitsError as error:
            raise LogitsError(
                f"{len(rows):,} of {len(used):,} rows have a class that is impossible to the teacher (-inf), and {error.what}",
                remedy=f"{error.remedy}; probabilities are imported without zeros with --floor",
            ) from error


def _try(student: Student, head: Head, split: Split, rows: NDArray[np.int64]) -> None:
    """Compute a student's loss of these rows, and train nothing. Raises what the loss raises."""
    spec = dataclasses.replace(head.config.loss_at(0.0), hard_weight=0.0, soft_weight=1.0)
    device = resolve_device(student.config.device)
    training = student.model.training
    model = student.model.to(device).eval()
    try:
        with torch.inference_mode():
            for batch in all_batches(split, min(256, len(rows)), selection=rows).epoch(0):
                moved = batch.to(device)
                [answer] = answers_of(model, moved, {head.name: head.output}).values()
                batch_loss(answer, moved, spec)
    finally:
        model.train(training)
