"""The values encoding in torch: `ValuesMembers`.

N positions, M members, D values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import torch
from torch import Tensor

from softlabels.labels.members import Members
from softlabels.labels.targets import Target


@dataclass(frozen=True)
class ValuesMembers(Members):
    """The values of M members (N, M, D), as stored."""

    values: Tensor

    target: ClassVar[Target] = "values"

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.values.shape  # type: ignore[return-value]  # of three axes

    def each(self, change: Callable[[Tensor], Tensor]) -> ValuesMembers:
        return ValuesMembers(change(self.values))

    def mean_values(self, weights: Tensor) -> Tensor:
        # Values are finite: one of weight 0 adds 0. A member at a time is several times faster than all in one array.
        parts = (self.values[:, number].float() * weight for number, weight in enumerate(weights.unbind()))
        return reduce(torch.add, parts) if len(weights) > 1 else self.values[:, 0].float()
