"""Logits to the column of the sigmoid encoding, where the logits are, and what was lost.

n positions of a block, M members, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from softlabels.errors import LogitsOverflow, NanLogits, NoPossibleClass
from softlabels.labels.base import Encoded
from softlabels.labels.blocks import OVERFLOW, Block, rounded
from softlabels.labels.fidelity import FidelitySums
from softlabels.labels.lost import Lost

_MEASURED_BYTES = 1 << 22  # of float64 logits that are measured at a time: they stay in the cache


def sigmoid_logits(block: Block) -> None:
    """Raise `NanLogits` where a logit is NaN; any other is one."""
    block.refuse(block.logits.isnan().any(dim=-1), "logits are NaN", OVERFLOW, NanLogits)


@dataclass(frozen=True)
class SigmoidEncoder:
    """Blocks to columns. `dtype` is that of the column, `temperatures` are those at which the loss is measured.

    Raises `LogitsOverflow` for a finite logit that `dtype` does not hold, `NoPossibleClass` for a mean of -inf and +inf.
    """

    dtype: torch.dtype
    temperatures: tuple[float, ...]

    def __call__(self, block: Block) -> Encoded:
        block.refuse(
            block.logits.isnan().any(dim=-1),
            "the mean logit does not exist: one member gives a class probability 0 and another 1",
            "keep all members (reduce: none)",
            NoPossibleClass,
        )
        stored = rounded(block.logits, self.dtype)
        block.refuse(
            (stored.isinf() & ~block.logits.isinf()).any(dim=-1),
            f"a finite logit lies beyond {torch.finfo(self.dtype).max:g}, the largest {str(self.dtype).removeprefix('torch.')}",
            "mark impossible classes with -inf instead of a large negative number, certain ones with +inf",
            LogitsOverflow,
        )
        exact, kept = block.logits[block.real], stored[block.real]
        lost = Lost(fidelity=measure_sigmoid(exact, kept, self.temperatures))
        return {"logits": stored.cpu().numpy()}, lost


def measure_sigmoid(exact: Tensor, stored: Tensor, temperatures: tuple[float, ...]) -> tuple[FidelitySums, ...]:
    """Compare logits (n, M, C) with those that are stored, a temperature at a time, in float64: the KL is the sum over the
    classes, and a distribution agrees where every class's decision z > 0 does.
    """
    classes = exact.shape[-1]
    exact, stored = exact.reshape(-1, classes), stored.reshape(-1, classes)
    step = max(1, _MEASURED_BYTES // (8 * classes))
    parts = [
        _compared(z.double(), s.double(), temperatures)
        for z, s in zip(torch.split(exact, step), torch.split(stored, step), strict=True)
    ]
    agreed, *kl = torch.cat(parts, dim=1)
    return tuple(FidelitySums.of(t, each, agreed) for t, each in zip(temperatures, kl, strict=True))


def _compared(z: Tensor, stored: Tensor, temperatures: tuple[float, ...]) -> Tensor:
    """Of some rows (n, C): whether all decisions are the same, and below it the KL at each temperature."""
    agreed = ((z > 0) == (stored > 0)).all(dim=-1)
    return torch.stack([agreed.double(), *(bernoulli_kl(z / t, stored / t).sum(dim=-1) for t in temperatures)])


def bernoulli_kl(z: Tensor, stored: Tensor) -> Tensor:
    """KL(sigma(z) || sigma(s)) of logits of any shape, in float64: log(1 + r (exp(d) - 1)) - r d, where r is the probability of
    the less probable outcome under z, and d by how much its logit grew. So written it keeps its digits when the two are nearly
    equal. Infinite where s rules out what z does not.
    """
    rare = torch.sigmoid(-z.abs())
    grown = torch.where(z > 0, z - stored, stored - z).masked_fill(z == stored, 0.0)
    kl = (torch.log1p(rare * torch.expm1(grown)) - rare * grown).clamp_min(0.0)
    return torch.where(rare == 0, torch.where(grown > 0, grown, 0.0), kl)
