"""Logit standardization: each distribution's logits to mean 0 and standard deviation 1, before the temperature is applied, so
that a student has to match the shape of its teacher's logits but not their range (Sun et al. 2024, arXiv 2403.01733).

C classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

EPSILON = 1e-7  # added to the standard deviation, as in the authors' code


def standardise(logits: Tensor) -> Tensor:
    """(z - mean z) / (std z + 1e-7) over the last axis of (..., C) logits, in float32.

    The standard deviation divides by the number of classes, so that a row's own deviation becomes 1. The authors' code
    divides by one less: to have their distributions at T, use T * sqrt(C / (C - 1)) here.

    Classes that are -inf stay -inf and count neither in the mean nor in the deviation. A row whose logits are all alike has
    no shape: it gives 0 and passes no gradient, where the formula's gradient would be 1e7.
    """
    scaled: Tensor = _Standardise.apply(logits.float())  # type: ignore[no-untyped-call]
    return scaled


class _Standardise(torch.autograd.Function):
    """The gradient is written out, since autograd would make thirty small operations of it: with c the centred logits, s
    their deviation and g the gradient at the outputs, (g - mean g - c mean(g c) / (s (s + eps))) / (s + eps).
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        impossible = torch.isneginf(logits)
        share = torch.ones_like(logits).masked_fill_(impossible, 0.0)
        share /= share.sum(dim=-1, keepdim=True)  # 1 / count at the possible classes
        centred = logits - logits.amax(dim=-1, keepdim=True)  # exactly 0 where all are alike, however large they are
        centred.masked_fill_(impossible, 0.0)
        centred -= (centred * share).sum(dim=-1, keepdim=True)
        deviation = (centred.square() * share).sum(dim=-1, keepdim=True).sqrt_()
        inverse = (deviation + EPSILON).reciprocal_().masked_fill_(deviation == 0, 0.0)
        ctx.save_for_backward(impossible, share, centred, deviation, inverse)
        return (centred * inverse).masked_fill_(impossible, -torch.inf)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        impossible, share, centred, deviation, inverse = ctx.saved_tensors
        gradient = gradient.masked_fill(impossible, 0.0)
        along = (gradient * centred * share).sum(dim=-1, keepdim=True) * inverse / deviation.clamp_min(1e-30)
        across = gradient - (gradient * share).sum(dim=-1, keepdim=True) - centred * along
        wanted: Tensor = (across * inverse).masked_fill_(impossible, 0.0)
        return wanted
