"""Logits to the column of the sigmoid encoding, where the logits are, and what was lost.

n positions of a block, M members, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from softlabels.errors import LogitsOverflow, NanLogits, NoPossibleClass
from softlabels.labels.base import Encoded
from softlabels.labels.blocks import OVERFLOW, Block, compared, rounded
from softlabels.labels.lost import Lost


def sigmoid_logits(block: Block) -> None:
    """Raise `NanLogits` where a logit is NaN; any other is one."""
    block.refuse(block.logits.isnan().any(dim=-1), "logits are NaN", OVERFLOW, NanLogits)


def encode_sigmoid(dtype: str, temperatures: Sequence[float], block: Block) -> Encoded:
    """The column of a block, and what it lost at its positions that count, at some temperatures. Raises as `stored_logits`."""
    stored = stored_logits(dtype, block)
    lost = Lost(fidelity=compared(block.logits[block.real], stored[block.real], temperatures, _compared))
    return {"logits": stored.cpu().numpy()}, lost


def stored_logits(dtype: str, block: Block) -> Tensor:
    """The logits as they are stored. Raises `NoPossibleClass` for a mean of -inf and +inf, `LogitsOverflow` for a finite one
    that `dtype` does not hold.
    """
    what = "the mean logit does not exist: one member gives a class probability 0 and another 1"
    block.refuse(block.logits.isnan().any(dim=-1), what, "keep all members (reduce: none)", NoPossibleClass)
    stored = rounded(block.logits, getattr(torch, dtype))
    what = f"a finite logit lies beyond {torch.finfo(stored.dtype).max:g}, the largest {dtype}"
    remedy = "mark impossible classes with -inf instead of a large negative number, certain ones with +inf"
    block.refuse((stored.isinf() & ~block.logits.isinf()).any(dim=-1), what, remedy, LogitsOverflow)
    return stored


def _compared(z: Tensor, stored: Tensor, temperatures: Sequence[float]) -> Tensor:
    """Of some rows (n, C): whether all decisions z > 0 are the same, and below it the KL, summed over the classes, at each
    temperature.
    """
    agreed = ((z > 0) == (stored > 0)).all(dim=-1)
    return torch.stack([agreed.double(), *(bernoulli_kl(z / t, stored / t).sum(dim=-1) for t in temperatures)])


def bernoulli_kl(z: Tensor, stored: Tensor) -> Tensor:
    """KL(sigma(z) || sigma(s)) of logits of any shape, in float64; infinite where s rules out what z does not.

    With r the probability of the outcome that is the less probable one under z, and d by how much its logit grew, it is
    log(1 + r (exp(d) - 1)) - r d. So written it keeps its digits when the two are nearly equal; where d is large, it is
    log(1 + exp(s')) - log(1 + exp(-|z|)) - r d with s' that outcome's stored logit, which cannot overflow.
    """
    rare = torch.sigmoid(-z.abs())
    theirs = torch.where(z > 0, -stored, stored)
    grown = (theirs + z.abs()).masked_fill(z == stored, 0.0)
    drift = torch.where(rare > 0, rare * grown, 0.0)
    near = torch.log1p(rare * torch.expm1(grown.clamp(-1, 1))) - drift
    far = logsigmoid(z.abs()) - logsigmoid(-theirs) - drift
    kl = torch.where(grown.abs() < 1, near, far).clamp_min(0.0)
    return kl.masked_fill((rare > 0) & grown.isinf(), torch.inf)
