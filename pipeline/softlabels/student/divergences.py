"""Soft terms that compare two distributions as wholes: forward and reverse KL, Jensen-Shannon, cross-entropy; and the squared
distance of logits, which is their limit at high temperature.

Each takes (student, soft, labels, the `LossSpec`, weights, its own arguments) and gives the sum over the batch's rows, each
times its weight (B,) where there are weights, a float32 scalar; `labels` plays no part here. p is the teacher's distribution at
T, q = softmax(z / T) the student's.

Two rules for classes whose logit is -inf (probability 0): 0 * log 0 = 0, and a class that is -inf on both sides does not
count.

B batch (positions), C classes; z the student's logits (B, C) float32, v the teacher's.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from softlabels.errors import LogitsError
from softlabels.labels.dense_soft import LOWEST
from softlabels.labels.soft import SoftLabels
from softlabels.student.loss_spec import LossSpec


def forward_kl(
    student: Tensor, soft: SoftLabels, labels: Tensor | None, spec: LossSpec, weights: Tensor | None
) -> Tensor:
    """T^2 * KL(p || q) (Hinton, Vinyals, Dean 2015, section 2). +inf where z is -inf and the teacher has mass."""
    log_p = soft.log_probs(spec.temperature, spec.mean)
    p = log_p.exp()
    log_q = torch.log_softmax(student / spec.temperature, dim=-1)
    value = summed(p * (log_p - log_q).masked_fill(p == 0, 0.0), weights) + _left_over(log_q.exp(), p, weights)
    return spec.temperature**2 * value


def soft_ce(student: Tensor, soft: SoftLabels, labels: Tensor | None, spec: LossSpec, weights: Tensor | None) -> Tensor:
    """T^2 * cross-entropy of q under p: `forward_kl` plus T^2 times the teacher's entropy, with the same gradients."""
    p = soft.log_probs(spec.temperature, spec.mean).exp()
    log_q = torch.log_softmax(student / spec.temperature, dim=-1)
    return -(spec.temperature**2) * summed(p * log_q.masked_fill(p == 0, 0.0), weights)


def reverse_kl(
    student: Tensor, soft: SoftLabels, labels: Tensor | None, spec: LossSpec, weights: Tensor | None
) -> Tensor:
    """T^2 * KL(q || p).

    Infinite with no gradient that would mend it where the teacher's probability is 0 and the student's is not, which is
    therefore refused (LogitsError): a student must have -inf there too.
    """
    log_p = soft.log_probs(spec.temperature, spec.mean)
    impossible = torch.isneginf(student)
    if bool((torch.isneginf(log_p) & ~impossible).any()):
        raise LogitsError(
            "reverse_kl is infinite: a class that is impossible to the teacher (-inf) is possible to the student",
            remedy="use loss=forward_kl or loss=js, or give the student -inf for such classes",
        )
    log_q = torch.log_softmax(student / spec.temperature, dim=-1).masked_fill(impossible, 0.0)
    q = log_q.exp()
    value = summed((q * (log_q - log_p.masked_fill(impossible, 0.0))).masked_fill(impossible, 0.0), weights)
    return spec.temperature**2 * (value + _left_over(log_p.exp(), q.masked_fill(impossible, 0.0), weights))


def js(
    student: Tensor, soft: SoftLabels, labels: Tensor | None, spec: LossSpec, weights: Tensor | None, beta: float = 0.5
) -> Tensor:
    """T^2 * (beta KL(p || m) + (1 - beta) KL(q || m)) with m = beta p + (1 - beta) q, for 0 < beta < 1.

    The generalised Jensen-Shannon divergence of GKD (Agarwal et al. 2024, arXiv 2306.13649, equation 1); with beta = 1/2 the
    usual one, symmetric and at most T^2 log 2. Divided by beta it tends to T^2 KL(p || q) for beta -> 0, divided by
    1 - beta to T^2 KL(q || p) for beta -> 1; at high T it is beta (1 - beta) times either. Classes that are impossible on
    one side alone are well defined: the term stays finite.
    """
    log_p = soft.log_probs(spec.temperature, spec.mean)
    log_q = torch.log_softmax(student / spec.temperature, dim=-1)
    log_q = log_q.masked_fill(torch.isneginf(student), LOWEST)  # as good as -inf here, and has a gradient: 0
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log1p(-beta))
    p, q = log_p.exp(), log_q.exp()
    of_teacher = p * (log_p - log_m).masked_fill(p == 0, 0.0)
    of_student = q * (log_q - log_m)
    value = summed(beta * of_teacher + (1 - beta) * of_student, weights)
    return spec.temperature**2 * (value + _left_over(log_m.exp(), beta * p + (1 - beta) * q, weights))


def summed(values: Tensor, weights: Tensor | None) -> Tensor:
    """The sum of (B, K) values, each row times its weight (B,) where there are weights."""
    return values.sum() if weights is None else (values * weights[:, None]).sum()


def _left_over(q: Tensor, p: Tensor, weights: Tensor | None) -> Tensor:
    """sum of q - p over all of two (B, C), without a gradient: 0 but for rounding. KL(p || q) with it is the sum of
    q - p - p log(q / p), terms of second order in q - p, so that an error in either's normalisation, which T^2 would blow up,
    cancels.
    """
    return summed(q.detach() - p.detach(), weights)


def logit_mse(
    student: Tensor, soft: SoftLabels, labels: Tensor | None, spec: LossSpec, weights: Tensor | None
) -> Tensor:
    """sum_i ((z_i - mean z) - (v_i - mean v))^2 / (2N), with v the members' mean logits; T and `mean` play no part.

    The limit of `forward_kl` for T -> infinity, in value and in gradient: T^2 * dKL/dz_i -> (z_i - v_i) / N for centred
    logits (Hinton et al. 2015, equation 4). N counts the classes that are finite on both sides, over which the means are
    taken too. A class that is -inf on one side alone has no squared distance and is refused (LogitsError).
    """
    target, student = centred(soft.mean_logits(shifted=False)), centred(student)
    impossible = torch.isneginf(target)
    if not torch.equal(impossible, torch.isneginf(student)):
        raise LogitsError(
            "logit_mse is undefined: a class is impossible (-inf) to the teacher or to the student alone",
            remedy="use loss=forward_kl, or give the student -inf for exactly the teacher's impossible classes",
        )
    finite = (~impossible).sum(dim=-1, keepdim=True)
    gap = student.masked_fill(impossible, 0.0) - target.masked_fill(impossible, 0.0)
    gap = (gap - gap.sum(dim=-1, keepdim=True) / finite).masked_fill(impossible, 0.0)
    return summed(gap.square() / (2 * finite), weights)


def centred(logits: Tensor) -> Tensor:
    """logits - max, which is exact where they lie close together, and which the loss does not see: a constant that is added to
    all of them would round the other side's away.
    """
    peak = logits.detach().amax(dim=-1, keepdim=True)
    return logits - torch.where(torch.isfinite(peak), peak, 0.0)
