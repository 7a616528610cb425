"""Which loss it is: what a config, or the keywords of `distillation_loss`, hand to all that compute it. `losses` says what it
comes to; which batch it is of, and how much of that, is no part of it. No torch at import.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from softlabels.errors import ConfigError
from softlabels.labels.ensemble import check_temperature

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)  # tensors have no equality that is one bool
class LossSpec:
    """The options of `losses.distillation_loss` of the same names, which explains them; the soft term alone by default.

    Raises:
        ConfigError: an impossible temperature or weight. Name and arguments of the loss are checked where it is computed.
    """

    temperature: float
    hard_weight: float = 0.0
    soft_weight: float = 1.0
    loss: str = "forward_kl"
    loss_args: Mapping[str, float] | None = None
    logit_standardization: bool = False
    mean: str = "arithmetic"
    class_weights: Tensor | None = None

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        if not (0 <= self.hard_weight < math.inf and 0 <= self.soft_weight < math.inf):
            raise ConfigError(
                f"weights must be finite numbers >= 0, not hard_weight={self.hard_weight}, soft_weight={self.soft_weight}",
                remedy="give such numbers",
            )

    def per_position(self, labels: Tensor, *, positions: int | None, labelled: int | None) -> LossSpec:
        """The same with the weights of one position, for sums: divided by how many the whole batch has, with a label
        (`labelled`) and in all (`positions`); where not given, those of `labels` (N,).
        """
        if labelled is None:
            labelled = int((labels >= 0).sum()) if self.hard_weight > 0 else 0
        hard_weight = self.hard_weight / max(labelled, 1)
        soft_weight = self.soft_weight / max(len(labels) if positions is None else positions, 1)
        return replace(self, hard_weight=hard_weight, soft_weight=soft_weight)
