"""Soft terms that treat the row's own class (its hard label) apart from the others: DKD and NKD. Every row needs a label.

With t the row's class, p the teacher's distribution at T and q = softmax(z / T) the student's: p^ and q^ are the same
distributions among the other classes, p^_i = p_i / (1 - p_t). Then KL(p || q) = TCKD + (1 - p_t) NCKD, where TCKD compares the
pairs (p_t, 1 - p_t) and (q_t, 1 - q_t), and NCKD = KL(p^ || q^).

Of sparse labels p_t follows from the label's own stored logit, whatever the tail's shape says of it.

Signature, sums and the rules for -inf are those of `divergences`. Where the teacher allows no class but t there is no p^, and
the terms of the other classes are 0.

B batch (positions), C classes; z the student's logits (B, C) float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from softlabels.labels.soft import SoftLabels
from softlabels.student.divergences import expected
from softlabels.student.loss_spec import LossSpec


def dkd(
    student: Tensor,
    soft: SoftLabels,
    labels: Tensor,
    spec: LossSpec,
    weights: Tensor | None,
    alpha: float = 1.0,
    beta: float = 8.0,
) -> Tensor:
    """T^2 * (alpha TCKD + beta NCKD) (Zhao et al. 2022, arXiv 2203.08679).

    0 when student and teacher agree. `forward_kl` is alpha = 1 and, in place of beta, 1 - p_t of each row. The authors' code
    computes p^ by subtracting 1000 from z_t / T and 1 - p_t by summing probabilities, which is the same until they round to 0;
    it also scales the term by min(epoch / 20, 1), which is a schedule of soft_weight here.
    """
    p_pair, p_others = _apart(soft.log_probs(spec.temperature, spec.mean, labels), labels)
    q_pair, q_others = _apart(torch.log_softmax(student / spec.temperature, dim=-1), labels)
    tckd, nckd = (
        expected(log_p.exp(), log_p - log_q, weights) for log_p, log_q in ((p_pair, q_pair), (p_others, q_others))
    )
    return spec.temperature**2 * (alpha * tckd + beta * nckd)


def nkd(
    student: Tensor, soft: SoftLabels, labels: Tensor, spec: LossSpec, weights: Tensor | None, gamma: float = 1.5
) -> Tensor:
    """-p_t(1) log q_t(1) - gamma T^2 sum over i != t of p^_i log q^_i (Yang et al. 2023, arXiv 2303.13005).

    p_t(1) and q_t(1) are at T = 1 and carry no T^2; p^ and q^ are at T. The authors add it to the cross-entropy with the hard
    label, both with weight 1. It is a cross-entropy, not a divergence: its minimum is at q_t = 1 and q^ = p^, with the value
    gamma T^2 H(p^), so it pulls a student that agrees with its teacher on towards the label, by p_t(1).
    """
    own = labels[:, None]
    p_own = soft.log_probs(1.0, spec.mean, labels).gather(1, own).exp()
    log_q_own = torch.log_softmax(student, dim=-1).gather(1, own)
    of_own = -expected(p_own, log_q_own, weights)
    p_others = _apart(soft.log_probs(spec.temperature, spec.mean, labels), labels)[1].exp()
    log_q_others = _apart(torch.log_softmax(student / spec.temperature, dim=-1), labels)[1]
    of_others = -expected(p_others, log_q_others, weights)
    return of_own + gamma * spec.temperature**2 * of_others


def _apart(log_p: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """log (p_t, 1 - p_t), (B, 2), and log p^, (B, C) with -inf at t; in log space all the way: 1 - p_t must not round to 0."""
    own = labels[:, None]
    others = log_p.scatter(1, own, -torch.inf)
    none = torch.isneginf(others).all(dim=-1, keepdim=True)
    mass = others.masked_fill(none, 0.0).logsumexp(
        dim=-1, keepdim=True
    )  # of finite numbers, so that its gradient is too
    pair = torch.cat([log_p.gather(1, own), mass.masked_fill(none, -torch.inf)], dim=-1)
    return pair, others - mass
