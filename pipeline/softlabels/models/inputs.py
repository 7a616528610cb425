"""What the models here ask of their inputs: the dtype of their weights, never cast in silence."""

from __future__ import annotations

import torch
from torch import Tensor

from softlabels.errors import ConfigError


def check_dtype(inputs: Tensor, *, expected: torch.dtype, model: str) -> None:
    """Raise `ConfigError` unless `inputs` have the dtype of the weights."""
    if inputs.dtype != expected:
        raise ConfigError(
            f"{model} takes {str(expected).removeprefix('torch.')} inputs, not {str(inputs.dtype).removeprefix('torch.')}",
            remedy="set prepare to a function that gives them, such as softlabels.transfer.vector or scale",
        )
