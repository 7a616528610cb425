"""Logit standardization: each distribution's logits to mean 0 and standard deviation 1, before the temperature is applied, so
that a student has to match the shape of its teacher's logits but not their range (Sun et al. 2024, arXiv 2403.01733).

C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-7  # added to the standard deviation, as in the authors' code


def standardise(logits: Tensor) -> Tensor:
    """(z - mean z) / (std z + 1e-7) over the last axis of (..., C) logits, in float32.

    The standard deviation divides by the number of classes, as in the paper (section 3.4, algorithm 2). The authors' code
    divides by one less; that is the same as our T times sqrt(C / (C - 1)).

    Classes that are -inf stay -inf and count neither in the mean nor in the deviation. A row whose logits are all alike has
    no shape: it gives 0 and passes no gradient, where the formula's gradient would be 1e7. NaN where all classes are -inf.
    """
    wide = logits.float()
    gap = wide - wide.detach().amax(dim=-1, keepdim=True)  # exactly 0 where all are alike, however large they are
    impossible = torch.isneginf(wide)
    count = (~impossible).sum(dim=-1, keepdim=True)
    centred = gap.masked_fill(impossible, 0.0)
    centred = (centred - centred.sum(dim=-1, keepdim=True) / count).masked_fill(impossible, 0.0)
    variance = centred.square().sum(dim=-1, keepdim=True) / count
    flat = variance == 0
    scaled = (centred / (variance.masked_fill(flat, 1.0).sqrt() + EPSILON)).masked_fill(flat, 0.0)
    return scaled.masked_fill(impossible, -torch.inf)
