"""Expected calibration error: the mean over 15 equal bins of confidence of |share that is right - confidence|, each bin counted
by its rows (Guo et al. 2017). Bins are (rows, confidence, right), (15, 3) float64 on the CPU, where adding into them is
deterministic.
"""

from __future__ import annotations

import torch
from torch import Tensor

BINS = 15


def empty_bins() -> Tensor:
    """Bins with nothing in them."""
    return torch.zeros(BINS, 3, dtype=torch.float64)


def add_to_bins(bins: Tensor, confidence: Tensor, right: Tensor) -> None:
    """Add rows: how sure of something (n,), and whether it was so (n,), both float64 on the CPU."""
    at = (confidence * BINS).ceil().long().clamp(1, BINS) - 1  # (lower, upper]
    bins.index_add_(0, at, torch.stack([torch.ones_like(confidence), confidence, right], dim=1))


def calibration_error(bins: Tensor) -> float:
    """Of all that was added."""
    gaps = (bins[:, 2] - bins[:, 1]).abs()  # a bin's |share - confidence| times its rows
    return gaps.sum().item() / int(bins[:, 0].sum())
