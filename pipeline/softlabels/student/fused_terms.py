"""The distillation loss of one block of positions and its gradient at the logits, computed together (`fused` cuts the blocks).

`forward_kl` and `soft_ce` take few passes over the block's arrays, written out: their gradient is (q - p) T. Every other loss
that is a sum over positions goes through autograd, inside the block. Neighbour: `fused_topk` for labels of one model's largest
logits.

n positions of a block, C classes; z the student's logits, q = softmax(z / T), p the teacher's distribution at T.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from softlabels.errors import ConfigError
from softlabels.labels.ensemble import check_mean
from softlabels.labels.soft import SoftLabels
from softlabels.student.fused_topk import NOWHERE, compare_topk, dot_into, softmax_and_sum
from softlabels.student.loss_spec import LossSpec
from softlabels.student.losses import LOSSES, checked_args, weighted_sum


@dataclass(frozen=True)
class Part:
    """What is known of a block's n positions: the teacher's labels, and hard labels (n, ...), see `labels.hard`."""

    soft: SoftLabels | None
    labels: Tensor


# value, slope (n, C) or None, factor (n, 1): the gradient at z is slope * factor
Slope = tuple[Tensor, Tensor | None, Tensor]
BlockTerm = Callable[
    [Tensor, Part, bool], Slope
]  # of z (n, C), which may be overwritten; the slope only where asked for


def block_term(spec: LossSpec, soft: SoftLabels | None, *, impossible: bool) -> BlockTerm:
    """What gives a block's share in the loss.

    Args:
        spec: the loss, with the weights of one position.
        soft: the teacher's labels, if any, of which blocks have some.
        impossible: some class is -inf to the student at every position.

    Raises:
        ConfigError: a loss that is no sum over positions, an unknown one, or impossible arguments.
    """
    checked_args(spec)
    if spec.soft_weight > 0 and LOSSES[spec.loss].whole_batch:
        raise ConfigError(
            f"the loss {spec.loss} needs the whole batch, and the fused loss takes it in blocks of positions",
            remedy="use a loss that is a sum over positions, such as forward_kl",
        )
    plain = spec.class_weights is None and not spec.logit_standardization and not impossible
    if plain and soft is not None and spec.soft_weight > 0 and spec.loss in ("forward_kl", "soft_ce"):
        return partial(_cross_entropy, spec)
    return partial(_by_autograd, spec)


def _cross_entropy(spec: LossSpec, z: Tensor, part: Part, wants: bool) -> Slope:
    """T^2 KL(p || q), or T^2 CE(p, q), and the hard labels' cross-entropy."""
    assert part.soft is not None
    t, hard_weight, soft_weight = spec.temperature, spec.hard_weight, spec.soft_weight
    factor = soft_weight * t
    total = torch.zeros((), dtype=torch.float64, device=z.device)
    own = (part.labels >= 0)[:, None].to(z.dtype)  # (n, 1)
    hard, amount = None, own * (hard_weight / factor)
    if hard_weight > 0:
        hard = softmax_and_sum(z)
        total += nll(z, hard[1], part.labels, own) * hard_weight
    q, log_sum = hard if hard is not None and t == 1 else softmax_and_sum(z if t == 1 else z.div_(t))
    # where both terms have the same q, its factor is taken out of a position's slope: K numbers are scaled, and not C
    gain = 1 + amount if t == 1 else torch.ones_like(amount)
    found = _compare(spec, part.soft, z, q, log_sum, gain)
    if spec.loss == "forward_kl" and t != 1:
        found += q.sum(dim=-1).sum(dtype=torch.float64)  # of q - p, see `divergences`
    total += found * (soft_weight * t * t)
    if hard is not None and wants:
        q = q if t == 1 else q.addcmul_(hard[0], amount)
        take_at(q, part.labels, amount / gain)
    return total, q if wants else None, gain * factor


def _compare(spec: LossSpec, soft: SoftLabels, z: Tensor, q: Tensor, log_sum: Tensor, gain: Tensor) -> Tensor:
    """The sum over the positions of sum_i p_i (log p_i - log q_i), or of -sum_i p_i log q_i, float64.

    Args:
        soft: the teacher's labels.
        z: (n, C), the student's logits / T, overwritten. q: its softmax, becomes q - p / gain.
        log_sum: (n, 1) float64, the log-sum-exp of z.
        gain: (n, 1).
    """
    check_mean(spec.mean, soft.reduce)
    subtracts_entropy = spec.loss == "forward_kl"
    if soft.tail not in (None, "uniform") and soft.stored_members == 1:
        return compare_topk(soft, spec.temperature, z, q, log_sum, gain, subtracts_entropy=subtracts_entropy)
    u = _teacher_logits(soft, spec.temperature, spec.mean).to(z.dtype).clamp_min_(NOWHERE)
    p, log_sum_u = softmax_and_sum(u)
    q.addcdiv_(p, gain, value=-1)
    inner = log_sum[:, 0] - dot_into(z.sub_(u) if subtracts_entropy else z, p)
    return (inner - log_sum_u[:, 0] if subtracts_entropy else inner).sum(dtype=torch.float64)


def _teacher_logits(soft: SoftLabels, temperature: float, mean: str) -> Tensor:
    """(n, C), whose softmax is the teacher's distribution at T; a tensor of its own."""
    stored = soft.members.logits_of(0) if soft.stored_members == 1 else None
    if stored is not None:
        logits = stored.to(torch.float32, copy=True)
        return logits if temperature == 1 else logits.div_(temperature)
    return soft.log_probs(temperature, mean).add_(math.log(soft.classes))  # near 0, where float32 is fine


def _by_autograd(spec: LossSpec, z: Tensor, part: Part, wants: bool) -> Slope:
    """Any sum over positions; the slope holds the weights already."""
    with torch.set_grad_enabled(wants):
        z = z.detach().requires_grad_(wants)
        value = weighted_sum(z, part.soft, part.labels, spec)
        slope = torch.autograd.grad(value, z)[0] if value.requires_grad else None
        return value.detach().double(), slope, torch.ones_like(z[:, :1])


def nll(z: Tensor, log_sum: Tensor, labels: Tensor, own: Tensor) -> Tensor:
    """Sum of -log softmax(z)(label) over the positions that have one, float64; of (n, C), (n, 1), (n,), (n, 1)."""
    of_label = log_sum - z.gather(1, labels.clamp_min(0)[:, None])
    return of_label.masked_fill(own == 0, 0.0).sum(dtype=torch.float64)


def take_at(q: Tensor, labels: Tensor, amount: Tensor) -> None:
    """q[i, labels[i]] -= amount[i] of (n, C), (n,), (n, 1); `amount` is 0 where there is no label."""
    at = labels.clamp_min(0)[:, None]
    q.scatter_(1, at, q.gather(1, at) - amount)
