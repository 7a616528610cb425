"""Classes that are impossible to the teacher (-inf): losses that they make infinite are refused before anything is trained."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from softlabels.errors import LogitsError
from softlabels.labels.encoding import TopkEncoding
from softlabels.models.device import resolve_device
from softlabels.store import Store
from softlabels.student.learner import Student
from softlabels.student.outputs import batch_loss, outputs_of
from softlabels_stages.splits import Split, all_batches

LOSSES = ("logit_mse", "reverse_kl")
_TRIED = 4096  # rows with such classes on which the loss is tried


def require_possible(student: Student, split: Split, used: NDArray[np.int64]) -> None:
    """Raise `LogitsError` where the student's loss is not finite for the labels of the rows `used` (numbers of the split's), as
    that of a class which is impossible to the teacher alone.
    """
    config, store = student.config, split.store
    if config.loss not in LOSSES or isinstance(store.encoding, TopkEncoding):
        return
    keys = np.asarray(split.rows.keys)
    labelled_by = store.find(keys[used])
    rows = used[(labelled_by >= 0) & impossible(store)[labelled_by]]
    if not len(rows):
        return
    device = resolve_device(config.device)
    model, training = student.model.to(device).eval(), student.model.training
    try:
        with torch.inference_mode():
            for batch in all_batches(split, min(256, len(rows)), selection=rows[:_TRIED]).epoch(0):
                moved = batch.to(device)
                batch_loss(
                    outputs_of(model, moved), moved, loss=config.loss, soft_weight=1.0, hard_weight=0.0,
                    temperature=config.temperature_at(0.0), mean=config.mean, loss_args=config.loss_args,
                    logit_standardization=config.logit_standardization,
                )  # fmt: skip
    except LogitsError as error:
        raise LogitsError(
            f"{len(rows):,} of {len(used):,} rows have a class that is impossible to the teacher (-inf), and {error.what}",
            remedy=f"{error.remedy}; probabilities are imported without zeros with --floor",
        ) from error
    finally:
        model.train(training)


def impossible(store: Store) -> NDArray[np.bool_]:
    """(R,) which rows of a dense store hold a class of probability 0."""
    chunks = (store.read_chunk("logits", chunk).astype(np.float16, copy=False) for chunk in range(store.chunks))
    return np.concatenate([np.isneginf(chunk).reshape(len(chunk), -1).any(axis=1) for chunk in chunks])
