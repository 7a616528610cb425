"""The values encoding in torch: `ValuesMembers`.

N positions, M members, D values.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import torch
from torch import Tensor

from softlabels.labels.members import OneTensor
from softlabels.labels.targets import Target


@dataclass(frozen=True)
class ValuesMembers(OneTensor):
    """The values of M members (N, M, D), as stored."""

    target: ClassVar[Target] = "values"

    def mean_values(self, weights: Tensor) -> Tensor:
        # Values are finite: one of weight 0 adds 0. A member at a time is several times faster than all in one array.
        parts = (self.numbers[:, number].float() * weight for number, weight in enumerate(weights.unbind()))
        return reduce(torch.add, parts) if len(weights) > 1 else self.numbers[:, 0].float()
