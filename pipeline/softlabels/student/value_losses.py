"""The losses of real vectors (targets of kind values): mse, huber, cosine. There is no temperature and no distribution. The
same distance is the soft term, to what the teacher says, and the hard term, to the row's own vector where it has one.

B batch (positions), D values; s the student's vector, v the one that it is to learn; both (B, D) float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from softlabels.labels.soft import SoftLabels
from softlabels.student.loss_spec import LossSpec

SMALL = 1e-3  # of the teacher's norm: below it a student's vector is taken as that long by `cosine`


def mse(student: Tensor, wanted: Tensor) -> Tensor:
    """The sum over the rows of sum_i (s_i - v_i)^2 / D."""
    return functional.mse_loss(student, wanted, reduction="sum") / student.shape[1]


def huber(student: Tensor, wanted: Tensor, delta: float = 1.0) -> Tensor:
    """The sum over the rows of (1 / D) sum_i h(s_i - v_i), h(x) = x^2 / 2 up to |x| = delta, delta (|x| - delta / 2) beyond
    (Huber 1964).
    """
    return functional.huber_loss(student, wanted, reduction="sum", delta=delta) / student.shape[1]


def cosine(student: Tensor, wanted: Tensor) -> Tensor:
    """The sum over the rows of 1 - s.v / (|s| |v|).

    Its gradient grows as 1 / |s|: a student's vector shorter than |v| / 1000 counts as that long, so that the gradient is at
    most 1000 / |v|, and of s = 0 points along v, where the loss is 1. v = 0 has no direction: the row counts 0.
    """
    length = _norm(wanted)
    own = torch.maximum(_norm(student), SMALL * length)
    agree = (student / own.clamp_min(_TINY) * (wanted / length.clamp_min(_TINY))).sum(dim=-1)
    return (1 - agree).masked_fill(length[:, 0] == 0, 0.0).sum()


DISTANCES: Mapping[str, Callable[..., Tensor]] = {"mse": mse, "huber": huber, "cosine": cosine}
_TINY = torch.finfo(torch.float32).tiny


def to_teacher(
    student: Tensor, soft: SoftLabels, labels: Tensor | None, spec: LossSpec, weights: Tensor | None, **args: float
) -> Tensor:
    """The sum over the rows of the distance that the spec names to the teacher's vectors."""
    return DISTANCES[spec.loss](student, soft.values(), **args)


def to_labels(student: Tensor, labels: Tensor, loss: str, args: Mapping[str, float]) -> Tensor:
    """The same to hard labels (B, D), NaN where a row has none, over the rows that have one."""
    known = ~labels.isnan().any(dim=-1)
    return DISTANCES[loss](student[known], labels[known], **args)


def _norm(x: Tensor) -> Tensor:
    """|x| of each row, (B, 1): of any size that float32 holds, and with a gradient of 0 at 0."""
    peak = x.detach().abs().amax(dim=-1, keepdim=True)
    scale = torch.where(peak > 0, peak, 1.0)
    length: Tensor = torch.linalg.vector_norm(x / scale, dim=-1, keepdim=True)
    return length * scale
