"""Logits to the columns of the dense encoding, where the logits are, and what was lost.

N positions, M members, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from softlabels.labels.base import Encoded
from softlabels.labels.blocks import Block, compared, rounded
from softlabels.labels.fidelity import TEMPERATURES, FidelitySums
from softlabels.labels.lost import Lost


def encode_dense(temperatures: Sequence[float], block: Block) -> Encoded:
    """The columns of a block, and what they lost at its positions that count, at some temperatures."""
    stored = rounded(block.below)
    columns = {"logits": stored.cpu().numpy(), "shift": block.peak[..., 0].float().cpu().numpy()}
    return columns, Lost(fidelity=measure_dense(block.logits[block.real], stored[block.real], temperatures))


def measure_dense(
    exact: Tensor, stored: Tensor, temperatures: Sequence[float] = TEMPERATURES
) -> tuple[FidelitySums, ...]:
    """Compare raw logits (n, M, C) with their dense encoding (n, M, C), a temperature at a time, in float64."""
    return compared(exact, stored, temperatures, _compared)


def _compared(z: Tensor, stored: Tensor, temperatures: Sequence[float]) -> Tensor:
    """Of some distributions (n, C): whether the largest class is the same, and below it the KL at each temperature."""
    z = z - z.amax(dim=-1, keepdim=True)
    delta = (stored - z).masked_fill_(z.isneginf(), 0.0)
    agreed = z.argmax(dim=-1) == stored.argmax(dim=-1)
    return torch.stack([agreed.double(), *(_kl(z, delta, temperature) for temperature in temperatures)])


def _kl(z: Tensor, delta: Tensor, temperature: float) -> Tensor:
    """KL(softmax(z/T) || softmax((z + delta)/T)) = log E_p[exp(d)] with d = delta/T - E_p[delta/T], per row; written so,
    it keeps its digits when the two are nearly equal. Infinite where a possible class has a delta of -inf.
    """
    p = torch.softmax(z / temperature, dim=-1)
    d = delta / temperature
    d -= (p * d).sum(dim=-1, keepdim=True)  # a delta of -inf makes the row NaN
    kl = torch.log1p((p * d.expm1_()).sum(dim=-1)).clamp_min_(0.0)
    return torch.where(kl.isnan(), torch.inf, kl)
