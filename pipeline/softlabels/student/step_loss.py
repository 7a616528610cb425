"""A student's loss of a part of a batch as one module: what several processes wrap.

A wrapper around the model itself would hide its hidden states and output matrix, of which the fused loss is made, and asking
the model for them would pass the wrapper by. Around the loss it sees the whole step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class StepLoss(nn.Module):
    """`forward(...)` is `loss(model, ...)`.

    Args:
        model: whose weights are trained.
        loss: gives a scalar that depends on them.
    """

    def __init__(self, model: nn.Module, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model, self._loss = model, loss

    def forward(self, *what: Any, **more: Any) -> Tensor:
        """The loss."""
        return self._loss(self.model, *what, **more)
