"""A soft term that asks for correlation in place of equality: DIST. It looks at the batch as a whole.

Signature and the rules for -inf are those of `divergences`, but for weights: a correlation is not of one row.

B batch (positions), C classes; z the student's logits (B, C) float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from softlabels.labels.soft import SoftLabels
from softlabels.student.loss_spec import LossSpec

FLAT = 1e-6  # a standard deviation this small beside the values is rounding error: float32 softmax is good to 1e-7
TINY = 1e-30  # values that are smaller throughout are nothing: their inverse would overflow


def dist(
    student: Tensor,
    soft: SoftLabels,
    labels: Tensor | None,
    spec: LossSpec,
    weights: None,
    beta: float = 1.0,
    gamma: float = 1.0,
) -> Tensor:
    """B * (beta inter + gamma intra) (Huang et al. 2022, arXiv 2205.10536, equations 8 and 9).

    inter = 1 - Pearson(p_b, q_b) over the classes, averaged over the rows b; intra = 1 - Pearson(p_c, q_c) over the rows,
    averaged over the classes c; p and q are the distributions at T. Both lie in [0, 2], and are 0 where q is a p + b with
    a > 0. The factor B makes "sum over rows, divided by rows" the batch's value; over a split, batches are averaged by their
    rows.

    No T^2: a correlation has no scale, so gradients keep their size at any T without it. The paper's equations have none
    either; the authors' ImageNet code multiplies by T^2, which beta = gamma = T^2 gives. Theirs adds 1e-8 to the product of the
    norms, which mutes rare classes; here every class counts alike. Where one side does not vary (a single row, a uniform
    student, a class below 1e-30 in every row) there is no correlation: it counts as 0 and passes no gradient. An entry that is
    impossible on both sides does not count.
    """
    log_p = soft.log_probs(spec.temperature, spec.mean)
    p, q = log_p.exp(), torch.softmax(student / spec.temperature, dim=-1)
    counted = ~(torch.isneginf(log_p) & torch.isneginf(student))
    inter = 1 - _pearson(p, q, counted).mean()
    of_class = _pearson(p.t(), q.t(), counted.t())
    possible = counted.any(dim=0)
    intra = 1 - (of_class * possible).sum() / possible.sum()
    return len(student) * (beta * inter + gamma * intra)


def _pearson(x: Tensor, y: Tensor, counted: Tensor) -> Tensor:
    """Correlation along the last axis over the entries that `counted` marks: three (N, K) -> (N,)."""
    count = counted.sum(dim=-1, keepdim=True).clamp_min(1)
    return (_unit(x, counted, count) * _unit(y, counted, count)).sum(dim=-1)


def _unit(values: Tensor, counted: Tensor, count: Tensor) -> Tensor:
    """Centred and of length 1 along the last axis; 0 where the values do not vary."""
    largest = values.detach().amax(dim=-1, keepdim=True)
    scaled = values / largest.clamp_min(TINY)  # squares of small ones would underflow
    centred = (scaled - scaled.sum(dim=-1, keepdim=True) / count) * counted
    square = centred.square().sum(dim=-1, keepdim=True)
    flat = (largest < TINY) | (square <= FLAT**2 * scaled.detach().square().sum(dim=-1, keepdim=True))
    return (centred * square.masked_fill(flat, 1.0).rsqrt()).masked_fill(flat, 0.0)
