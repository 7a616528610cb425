"""Forward KL between one model's sparse labels and a block of student distributions, in few passes over the block.

With K stored classes, a tail of mass m and shape s (sum over the tail of s_i = 1, p_i = m s_i there):

    KL(p || q) = sum over the stored classes of p_i (log p_i - log q_i)
               + m (log m + sum over the tail of s_i (log s_i - log q_i))

A renormalised top-k has no tail. A bucket is one outcome to both sides: the last sum is then -log of the student's mass of the
tail, which is the same as taking the student's own shape there for s.

n positions of a block, C classes, K stored ones; q the student's distribution.
"""

from __future__ import annotations

import torch
from torch import Tensor

from softlabels.labels.soft import SoftLabels

NOWHERE = -1e30  # log of nothing, as a number: 0 * NOWHERE is 0


def compare_topk(
    soft: SoftLabels,
    temperature: float,
    z: Tensor,
    q: Tensor,
    log_sum: Tensor,
    gain: Tensor,
    *,
    subtracts_entropy: bool,
) -> Tensor:
    """Sum over the positions of KL(p || q), or of the cross-entropy, float64.

    Args:
        soft: n positions of one member, of any tail but "uniform".
        temperature: T.
        z: (n, C), the student's logits / T, overwritten.
        q: (n, C), its softmax; becomes q - p / gain, with a bucket's own p: for gain 1 the KL's gradient at z.
        log_sum: (n, 1) float64, the log-sum-exp of z.
        gain: (n, 1).
        subtracts_entropy: the KL, else -sum_i p_i log q_i.
    """
    ids, log_p, log_tail = soft.stored(temperature)
    p = log_p.exp()
    gap = log_sum - z.gather(1, ids)
    gap = gap + log_p if subtracts_entropy else gap
    total = (p * gap.masked_fill(p == 0, 0.0)).sum(dtype=torch.float64)
    if soft.tail != "renormalised":
        mass = log_tail.exp()
        shape, inner = _tail(soft, temperature, ids, z, log_sum[:, 0], subtracts_entropy)
        inner = inner + log_tail if subtracts_entropy else inner
        total += (mass * inner.masked_fill(mass == 0, 0.0)).sum(dtype=torch.float64)
        q.addcmul_(shape, mass[:, None] / gain, value=-1)
    q.scatter_(1, ids, q.gather(1, ids) - p / gain)
    return total


def _tail(
    soft: SoftLabels, temperature: float, ids: Tensor, z: Tensor, log_sum: Tensor, subtracts_entropy: bool
) -> tuple[Tensor, Tensor]:
    """The tail's shape s (n, C), 0 at the stored classes, and sum over the tail of s_i (log s_i - log q_i), or of
    -s_i log q_i, (n,); overwrites `z`.
    """
    if soft.tail == "bucket":
        shape, of_tail = softmax_and_sum(z.scatter_(1, ids, NOWHERE))
        return shape, log_sum - of_tail[:, 0]
    u = soft.members.tail_logits(ids, temperature, NOWHERE).to(z.dtype)
    shape, of_tail = softmax_and_sum(u)
    if not subtracts_entropy:
        return shape, log_sum - dot_into(z, shape)
    return shape, log_sum - of_tail[:, 0] + dot_into(u.sub_(z), shape)


def softmax_and_sum(z: Tensor) -> tuple[Tensor, Tensor]:
    """softmax over the last axis of (n, C), and log sum exp z, (n, 1) float64.

    The sum is read off the largest class, whose probability is at least 1 / C, and not gone through once more.
    """
    q = torch.softmax(z, dim=-1)
    return q, z.amax(dim=-1, keepdim=True).double() - q.amax(dim=-1, keepdim=True).double().log_()


def dot_into(x: Tensor, y: Tensor) -> Tensor:
    """sum_i x_i y_i over the last axis of two (n, C): (n,); overwrites `x`. A batched product takes ten times as long."""
    return x.mul_(y).sum(dim=-1)
