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

from pipeline.labels.soft import DenseMembers, SoftLabels
from pipeline.labels.topk_soft import TopkMembers

NOWHERE = -1e30  # log of nothing, as a number: 0 * NOWHERE is 0


def compare_topk(
    soft: SoftLabels, temperature: float, q: Tensor, log_q: Tensor, gain: Tensor | None, *, subtracts_entropy: bool
) -> Tensor:
    """Sum over the positions of KL(p || q), or of the cross-entropy, float64.

    Args:
        soft: n positions of one member, of any tail but "uniform".
        temperature: of `q`.
        q: (n, C), becomes q * gain - p, the KL's gradient at the logits / T (with a bucket's own p).
        log_q: (n, C), overwritten.
        gain: (n, 1), or None for 1.
        subtracts_entropy: the KL, else -sum_i p_i log q_i.
    """
    ids, log_p, log_tail = soft.stored(temperature)
    p = log_p.exp()
    gap = -log_q.gather(1, ids)
    gap = gap + log_p if subtracts_entropy else gap
    total = (p * gap.masked_fill(p == 0, 0.0)).sum(dtype=torch.float64)
    scaled(q, gain)
    if soft.tail != "renormalised":
        total += _add_tail(soft, temperature, ids, log_tail, q, log_q, subtracts_entropy)
    q.scatter_(1, ids, q.gather(1, ids) - p.to(q.dtype))
    return total


def _add_tail(
    soft: SoftLabels,
    temperature: float,
    ids: Tensor,
    log_tail: Tensor,
    q: Tensor,
    log_q: Tensor,
    subtracts_entropy: bool,
) -> Tensor:
    """The tail's part of the sum; takes its probabilities off `q`, right at the classes that are not stored."""
    if soft.tail == "bucket":
        shape, log_sum = softmax_and_sum(log_q.scatter_(1, ids, NOWHERE))
        inner = -log_sum[:, 0]
    else:
        shape, log_shape = softmax_and_log(_tail_logits(soft.members, temperature).scatter_(1, ids, NOWHERE))
        gap = torch.sub(log_shape, log_q, out=log_q) if subtracts_entropy else log_q.neg_()
        shape = shape.to(gap.dtype)
        inner = dot(shape, gap)
    if subtracts_entropy:
        inner = inner + log_tail
    mass = log_tail.exp()
    q.addcmul_(shape, mass.to(q.dtype)[:, None], value=-1)
    return (mass * inner.masked_fill(mass == 0, 0.0)).sum(dtype=torch.float64)


def _tail_logits(members: DenseMembers | TopkMembers, temperature: float) -> Tensor:
    """z / T (n, C) float32 of the one member's tail, from prior and basis."""
    assert isinstance(members, TopkMembers)
    assert members.basis is not None
    basis = members.basis.float()
    prior = basis[0] / temperature
    if members.encoding.tail == "prior":
        return prior.repeat(len(members), 1)
    return torch.addmm(prior, members.coefficients()[:, 0] / temperature, basis[1:])


def softmax_and_sum(z: Tensor) -> tuple[Tensor, Tensor]:
    """softmax over the last axis of (n, C), and log sum exp z, (n, 1).

    The sum is read off the largest class, whose probability is at least 1 / C, and not gone through once more.
    """
    q = torch.softmax(z, dim=-1)
    return q, z.amax(dim=-1, keepdim=True) - q.amax(dim=-1, keepdim=True).log_()


def softmax_and_log(z: Tensor) -> tuple[Tensor, Tensor]:
    """softmax over the last axis of (n, C), and its logarithm in the memory of `z`."""
    q, log_sum = softmax_and_sum(z)
    return q, z.sub_(log_sum)


def scaled(q: Tensor, gain: Tensor | None) -> Tensor:
    """`q` (n, C) times `gain` (n, 1), in place; None is 1."""
    return q if gain is None else q.mul_(gain)


def dot(x: Tensor, y: Tensor) -> Tensor:
    """sum_i x_i y_i over the last axis of two (n, C): (n,), without an array of products."""
    return torch.bmm(x[:, None], y[:, :, None])[:, 0, 0]
