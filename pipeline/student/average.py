"""An exponential moving average of a model's weights, which often generalises better than the last weights themselves."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


class WeightAverage:
    """average <- d * average + (1 - d) * weights after every step, with d = min(decay, (1 + n) / (10 + n)) after n steps,
    so that the first weights are soon forgotten. Floating buffers (batch statistics) are averaged too, others are copied.

    Args:
        model: the average begins as a copy of it.
        decay: between 0 and 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self._decay, self._steps = decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after a step."""
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        self._steps += 1
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        floating = [(mine, new) for mine, new in pairs if mine.is_floating_point()]
        torch._foreach_lerp_([mine for mine, _ in floating], [new for _, new in floating], 1 - decay)
        for mine, new in pairs:
            if not mine.is_floating_point():
                mine.copy_(new)

    def state(self) -> dict[str, Any]:
        """As plain values and tensors."""
        return {"model": self.model.state_dict(), "steps": self._steps}

    def load(self, state: dict[str, Any]) -> None:
        """Go back to where `state` was taken."""
        self.model.load_state_dict(state["model"])
        self._steps = state["steps"]
