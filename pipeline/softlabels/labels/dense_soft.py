"""The dense encoding in torch: `DenseMembers`. The numpy reference is `ensemble`.

N positions, M members, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from softlabels.labels.members import Members, existing, weighted
from softlabels.labels.standardise import standardise

LOWEST = torch.finfo(torch.float32).min


@dataclass(frozen=True)
class DenseMembers(Members):
    """Every class's logit of M members, as stored.

    Attributes:
        logits: (N, M, C) z - max(z), float16 as stored, or wider; -inf for a class of probability 0.
        shift: (N, M) float32, max(z), so that z = logits + shift.
    """

    logits: Tensor
    shift: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.logits.shape  # type: ignore[return-value]  # of three axes

    def each(self, change: Callable[[Tensor], Tensor]) -> DenseMembers:
        return DenseMembers(change(self.logits), change(self.shift))

    def averaged(self, weights: Tensor, temperature: float, mean: str, labels: Tensor | None = None) -> Tensor:
        one = self.shape[1] == 1
        if mean == "geometric" and not one:
            return torch.log_softmax(existing(weighted(self.logits.float(), weights)) / temperature, dim=-1)
        members = _log_softmax(self.logits, 1.0 if mean == "tempered" and not one else temperature)  # (N, M, C)
        if one:
            return members[:, 0]
        members += weights.log()[:, None]
        peak = members.amax(dim=1).clamp_min_(LOWEST)  # a class that no member allows: log 0 = -inf is meant
        averaged = (members - peak[:, None]).exp_().sum(dim=1).log_() + peak
        return torch.log_softmax(averaged / temperature, dim=-1) if mean == "tempered" else averaged

    def logits_of(self, number: int) -> Tensor:
        return self.logits[:, number]

    def mean_logits(self, weights: Tensor, *, shifted: bool) -> Tensor:
        logits = self.logits.float()
        return weighted(logits + self.shift[:, :, None] if shifted else logits, weights)

    def standardised(self) -> DenseMembers:
        scaled = standardise(self.logits)
        shift = scaled.amax(dim=-1)
        return DenseMembers(scaled - shift[:, :, None], shift)


def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    """log softmax(logits / T) over the last axis in float32; for few classes several times faster than torch's own."""
    scaled = logits.float() / temperature
    scaled -= scaled.amax(dim=-1, keepdim=True)
    scaled -= scaled.exp().sum(dim=-1, keepdim=True).log_()
    return scaled
