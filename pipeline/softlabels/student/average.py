"""An exponential moving average of a model's weights, which often generalises better than the last weights themselves."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from softlabels.student.sharded import local


class WeightAverage:
    """average <- d * average + (1 - d) * weights after every step, with d = min(decay, (1 + n) / (10 + n)) after n steps,
    so that the first weights are soon forgotten. Floating buffers (batch statistics) are averaged too, others, and those that
    hold an infinity, are copied. Tied tensors move once.

    Args:
        model: the average begins as a copy of it.
        decay: between 0 and 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self._decay, self._steps = decay, 0
        distinct = {id(tensor): (name, tensor) for name, tensor in self.model.state_dict(keep_vars=True).items()}
        self._averaged, self._copied = list[str](), list[str]()
        for name, tensor in distinct.values():
            (self._averaged if _is_averaged(tensor) else self._copied).append(name)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after a step."""
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        self._steps += 1
        mine, new = self.model.state_dict(), model.state_dict()
        ours, theirs = ([local(of[name]) for name in self._averaged] for of in (mine, new))
        torch._foreach_lerp_(ours, theirs, 1 - decay)
        for name in self._copied:
            mine[name].copy_(new[name])

    def state(self) -> dict[str, Any]:
        """As plain values and tensors."""
        return {"model": self.model.state_dict(), "steps": self._steps}

    def load(self, state: dict[str, Any]) -> None:
        """Go back to where `state` was taken."""
        self.model.load_state_dict(state["model"])
        self._steps = state["steps"]


def _is_averaged(tensor: Tensor) -> bool:
    """Whether a tensor is averaged and not copied; inf - inf would make NaN of a mask that says -inf."""
    return tensor.is_floating_point() and not bool(torch.isinf(tensor).any())
