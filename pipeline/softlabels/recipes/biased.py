"""A model with a constant added to each class's logit: a student that is corrected for other shares of the classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from softlabels.models.build import build_model
from softlabels.models.config import ModelConfig


class Biased(nn.Module):
    """`model(inputs) + bias`.

    Args:
        model: the model's class, by its dotted path.
        model_args: what the class is built with.
        classes: C. The bias, one number a class, is kept with the weights, and 0 before they are loaded.
    """

    def __init__(self, model: str, model_args: Mapping[str, Any], classes: int) -> None:
        super().__init__()
        self.model = build_model(ModelConfig(model, dict(model_args)))
        self.bias: Tensor
        self.register_buffer("bias", torch.zeros(classes))

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, C) of a batch."""
        logits: Tensor = self.model(inputs)
        return logits + self.bias
