"""The losses of a Bernoulli a class (targets of kind sigmoid): `bce`, and the hard term of known flags.

With p the teacher's probability of a class at T and q = sigma(z / T) the student's, the cross-entropy of a class is

    BCE(q, p) = -p log q - (1 - p) log(1 - q),    d BCE / dz = (q - p) / T,

and for large T, where q - p tends to (z - v) / 4T with v the teacher's logit, that is (z - v) / 4T^2: so T^2, as for
distributions, keeps the gradient's size at any T. It tends to (z - v) / 4 then: no constant of the logits is free.

q, 1 - q, p and 1 - p are each computed from their logit, so that neither end is lost to rounding: the gradient vanishes where
student and teacher agree, and where both are sure of a class.

B batch (positions), C classes; z the student's logits (B, C) float32.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from softlabels.labels.soft import SoftLabels
from softlabels.student.loss_spec import LossSpec


def bce(student: Tensor, soft: SoftLabels, labels: Tensor | None, spec: LossSpec, weights: Tensor | None) -> Tensor:
    """T^2 * sum over rows and classes of BCE(q, p), each times its class's weight (C,) where there are weights.

    A cross-entropy: at agreement it is the teacher's entropy, with a gradient of 0. +inf where the student excludes (z
    infinite) what the teacher does not.
    """
    teacher = soft.logits(spec.temperature, spec.mean)
    value = _cross_entropy(student / spec.temperature, teacher.sigmoid(), (-teacher).sigmoid())
    return spec.temperature**2 * _weighted(value, weights)


def hard_bce(student: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """Sum of BCE at T = 1 over the known flags of labels (B, C), which are 0, 1 or -1, with the same weights."""
    return _weighted(_cross_entropy(student, (labels == 1).float(), (labels == 0).float()), weights)


def _cross_entropy(x: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """-yes log sigma(x) - no log(1 - sigma(x)) of each; what has no weight does not count, not even if it is infinite."""
    of_yes, of_no = softplus(-x).masked_fill(yes == 0, 0.0), softplus(x).masked_fill(no == 0, 0.0)
    return yes * of_yes + no * of_no


def _weighted(values: Tensor, weights: Tensor | None) -> Tensor:
    return values.sum() if weights is None else (values * weights).sum()
