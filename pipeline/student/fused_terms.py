"""The distillation loss of one block of positions and its gradient at the logits, computed together (`fused` cuts the blocks).

`forward_kl` and `soft_ce` take few passes over the block's arrays, written out: their gradient is (q - p) T. Every other loss
that is a sum over positions goes through autograd, inside the block. Neighbour: `fused_topk` for labels of one model's largest
logits.

n positions of a block, C classes; z the student's logits, q = softmax(z / T), p the teacher's distribution at T.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.labels.ensemble import check_temperature
from pipeline.labels.soft import SoftLabels
from pipeline.labels.topk_soft import TopkMembers
from pipeline.student.fused_topk import compare_topk, dot, scaled, softmax_and_log
from pipeline.student.losses import LOSSES, checked_args, distillation_loss


@dataclass(frozen=True)
class Part:
    """What is known of a block's n positions: the teacher's labels, and hard labels (n,) with -1 for none."""

    soft: SoftLabels | None
    labels: Tensor


Slope = tuple[Tensor, Tensor | None, float]  # value, slope (n, C) or None, factor: the gradient at z is slope * factor
BlockTerm = Callable[
    [Tensor, Part, bool], Slope
]  # of z (n, C), which may be overwritten; the slope only where asked for


def block_term(
    loss: str,
    loss_args: Mapping[str, float] | None,
    *,
    temperature: float,
    hard_weight: float,
    soft_weight: float,
    logit_standardization: bool,
    mean: str,
    has_soft: bool,
    impossible: bool,
) -> BlockTerm:
    """What gives a block's share in the loss.

    Args:
        loss, loss_args, temperature, logit_standardization, mean: as in `losses.distillation_loss`.
        hard_weight, soft_weight: of one position: the loss's, divided by how many positions count.
        has_soft: whether there are soft labels.
        impossible: some class is -inf to the student at every position.

    Raises:
        ConfigError: a loss that is no sum over positions, an unknown one, impossible arguments, or no soft labels.
    """
    check_temperature(temperature)
    args = checked_args(loss, loss_args)
    if soft_weight > 0 and LOSSES[loss].whole_batch:
        raise ConfigError(
            f"the loss {loss} looks at a batch as a whole, and the fused loss takes it in blocks of positions",
            remedy="use a loss that is a sum over positions, such as forward_kl",
        )
    if soft_weight > 0 and not has_soft:
        raise ConfigError(f"the loss {loss} needs soft labels and there are none", remedy="give a store, or alpha=0")
    if soft_weight == 0:
        return _Hard(hard_weight)
    if loss in ("forward_kl", "soft_ce") and not logit_standardization and not impossible:
        return _CrossEntropy(temperature, hard_weight, soft_weight, mean, subtracts_entropy=loss == "forward_kl")
    options = {"loss": loss, "loss_args": args, "logit_standardization": logit_standardization, "mean": mean}
    return _ByAutograd(temperature, hard_weight, soft_weight, options)


@dataclass(frozen=True)
class _Hard:
    """Cross-entropy with the hard labels."""

    hard_weight: float

    def __call__(self, z: Tensor, part: Part, wants: bool) -> Slope:
        q, log_q = softmax_and_log(z)
        value, own = nll(log_q, part.labels)
        if not wants:
            return value * self.hard_weight, None, 0.0
        take_at(q.mul_(own), part.labels, own)
        return value * self.hard_weight, q, self.hard_weight


@dataclass(frozen=True)
class _CrossEntropy:
    """T^2 KL(p || q), or T^2 CE(p, q), and the hard labels' cross-entropy."""

    temperature: float
    hard_weight: float
    soft_weight: float
    mean: str
    subtracts_entropy: bool

    def __call__(self, z: Tensor, part: Part, wants: bool) -> Slope:
        assert part.soft is not None
        t, factor = self.temperature, self.soft_weight * self.temperature
        q, log_q = softmax_and_log(z if t == 1 else z.div_(t))
        total, own = torch.zeros((), dtype=torch.float64, device=z.device), None
        hard_q, gain, ratio = None, None, self.hard_weight / factor
        if self.hard_weight > 0:
            hard_q, hard_log_q = (None, log_q) if t == 1 else softmax_and_log(log_q * t)
            value, own = nll(hard_log_q, part.labels)
            total += value * self.hard_weight
            own, gain = own * ratio, 1 + own * ratio if t == 1 else None
            del hard_log_q
        total += self._compare(part.soft, q, log_q, gain) * (self.soft_weight * t * t)
        if own is not None and wants:
            q = q if hard_q is None else q.addcmul_(hard_q, own)
            take_at(q, part.labels, own)
        return total, q if wants else None, factor

    def _compare(self, soft: SoftLabels, q: Tensor, log_q: Tensor, gain: Tensor | None) -> Tensor:
        """The sum over the positions of sum_i p_i (log p_i - log q_i), or of -sum_i p_i log q_i, float64.

        Turns `q` into q * gain - p (`gain` is (n, 1)), and overwrites `log_q`.
        """
        if isinstance(soft.members, TopkMembers) and soft.stored_members == 1 and soft.tail != "uniform":
            return compare_topk(soft, self.temperature, q, log_q, gain, subtracts_entropy=self.subtracts_entropy)
        log_p = soft.log_probs(self.temperature, self.mean)
        has_zeros = bool(torch.isneginf(log_p.amin()))
        gap = torch.sub(log_p, log_q, out=log_q) if self.subtracts_entropy else log_q.neg_()
        p = log_p.exp_().to(gap.dtype)
        if has_zeros:
            gap.masked_fill_(p == 0, 0.0)
        scaled(q, gain).sub_(p)
        return dot(p, gap).sum(dtype=torch.float64)


@dataclass(frozen=True)
class _ByAutograd:
    """Any sum over positions; the slope holds the weights already."""

    temperature: float
    hard_weight: float
    soft_weight: float
    options: Mapping[str, object]

    def __call__(self, z: Tensor, part: Part, wants: bool) -> Slope:
        with torch.set_grad_enabled(wants):
            z = z.detach().requires_grad_(wants)
            value = distillation_loss(
                z,
                part.soft,
                part.labels,
                temperature=self.temperature,
                hard_weight=self.hard_weight,
                soft_weight=self.soft_weight,
                positions=1,
                labelled=1,
                **self.options,  # type: ignore[arg-type]
            )
            return value.detach().double(), torch.autograd.grad(value, z)[0] if wants else None, 1.0


def nll(log_q: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of -log q(label) over the positions that have one, float64; and 1 where they do, else 0, (n, 1)."""
    own = (labels >= 0)[:, None]
    of_label = log_q.gather(1, labels.clamp_min(0)[:, None]).masked_fill_(~own, 0.0)
    return -of_label.sum(dtype=torch.float64), own.to(log_q.dtype)


def take_at(q: Tensor, labels: Tensor, amount: Tensor) -> None:
    """q[i, labels[i]] -= amount[i] of (n, C), (n,), (n, 1); `amount` is 0 where there is no label."""
    at = labels.clamp_min(0)[:, None]
    q.scatter_(1, at, q.gather(1, at) - amount)
