"""Rows alone, without their padding, and how far two answers of a model lie apart.

Rows of tokens have arrays (K, L) of which the last says where the row has tokens of its own: the attention mask of
`softlabels.transfer.tokenize`, the document numbers of `softlabels.transfer.sequences`.

n distributions, M members, C classes, K arrays, L tokens.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from softlabels.names import renamed
from softlabels.transfer.sequences import TOKEN_ROWS

_TOKENIZE = "softlabels.transfer.tokenize"

# What to do where outputs depend on the batch, and where on padding.
EVALUATION = "its forward must not drop out, sample or use batch statistics in evaluation mode"
PADDING = (
    "padding must not count: the mask must reach the network, and padding on the left moves absolute positions "
    '("padding_side": "right" in tokenizer_config.json)'
)
TRAINED_WITH = "trained_with_padding"  # an attribute of models that know no rows without


def is_padded(function: str) -> bool:
    """Whether the prepare function of this path makes rows of tokens with padding."""
    return renamed(function) in (TOKEN_ROWS, _TOKENIZE)  # by its name: what a store names is never imported


def takes_shorter(models: Iterable[nn.Module]) -> bool:
    """Whether rows without their padding may be asked of all models: none says that it was trained on rows with padding."""
    return not any(getattr(model, TRAINED_WITH, False) for model in models)


def lengths(rows: NDArray[np.generic]) -> NDArray[np.int64]:
    """How many tokens of its own each row (R, K, L) has."""
    return np.asarray((rows[:, -1] != 0).sum(axis=1), np.int64)


def unpadded(row: NDArray[np.generic]) -> NDArray[np.generic]:
    """A row (K, L) alone and without its padding: (1, K, n)."""
    return row[None, :, row[-1] != 0]


def apart(one: Tensor, other: Tensor) -> Tensor:
    """The largest |one - other| over classes, (n, M, C) -> (n, M) float32 on the CPU; infinite where only one is NaN."""
    same = (one == other) | (one.isnan() & other.isnan())
    return torch.where(same, 0.0, (one - other).abs().float().nan_to_num(nan=torch.inf)).amax(dim=-1).cpu()


def largest(logits: Tensor) -> Tensor:
    """The largest finite |logit|, (n, M, C) -> (n, M) float32 on the CPU."""
    return torch.where(torch.isfinite(logits), logits.abs(), 0.0).float().amax(dim=-1).cpu()
