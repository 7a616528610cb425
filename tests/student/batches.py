"""Batches of one target without a name, and what a model says of them."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from softlabels.labels.soft import SoftLabels
from softlabels.stream.batch import Batch, TargetBatch
from softlabels.student.outputs import StudentOutputs, answers_of


def plain(
    inputs: Tensor,
    labels: Tensor,
    soft: SoftLabels | None,
    rows: np.ndarray,
    mask: Tensor | None = None,
    classes: int | None = None,
) -> Batch:
    return Batch(inputs, {"": TargetBatch(labels, soft, classes)}, rows, mask)


def outputs_of(model: nn.Module, batch: Batch) -> StudentOutputs:
    return answers_of(model, batch, {"": ""})[""]
