"""A student's model within the one module that several processes wrap, and the cut of a part of a batch.

A wrapper around the model itself would hide its hidden states and output matrix, of which the fused loss is made, and asking
the model for them would pass the wrapper by. Around the loss it sees the whole step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

from torch import nn

T = TypeVar("T")


class Step(nn.Module):
    """`forward(act)` is `act(model)`: the loss of a part of a batch, or what is asked of the model's answers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, act: Callable[[nn.Module], T]) -> T:
        """What `act` makes of the model."""
        return act(self.model)


def cuts(rows: int, micro_batch: int, *, size: int, world: int) -> list[slice]:
    """The micro-batches of a part of so many rows of a batch of `size`: as many on each of `world` ranks, since all compute
    together. Where that takes more than `micro_batch` = 1 row, some have 2.
    """
    if world == 1:
        return [slice(start, start + micro_batch) for start in range(0, rows, micro_batch)]
    most = math.ceil(size / world)
    count = max(1, min(math.ceil(most / micro_batch), size // world))
    return [slice(rows * n // count, rows * (n + 1) // count) for n in range(count)]
