"""`SoftLabels`: a batch of stored teacher outputs in torch, from which any temperature's distribution is computed on the
device. The numpy reference is `ensemble`; the losses that consume it are in `pipeline.student`.

B batch, M members, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import MeanUnavailable
from pipeline.labels.ensemble import check_mean, check_temperature
from pipeline.labels.standardise import standardise

LOWEST = torch.finfo(torch.float32).min


@dataclass(frozen=True)
class SoftLabels:
    """Teacher outputs for a batch, as stored.

    Attributes:
        logits: (B, M, C) z - max(z), float16 as stored, or wider; -inf for a class of probability 0.
        shift: (B, M) float32, max(z), so that z = logits + shift.
        weights: (M,) float32, the members' weights, summing to 1.
        reduce: "none", or "geometric" where the one stored member is the members' mean logits.
    """

    logits: Tensor
    shift: Tensor
    weights: Tensor
    reduce: str = "none"

    def __len__(self) -> int:
        return self.logits.shape[0]

    def __getitem__(self, index: slice | Tensor) -> SoftLabels:
        """The rows that `index` selects along B."""
        return SoftLabels(self.logits[index], self.shift[index], self.weights, self.reduce)

    def to(self, device: torch.device | str) -> SoftLabels:
        """The same labels on `device`."""
        return SoftLabels(self.logits.to(device), self.shift.to(device), self.weights.to(device), self.reduce)

    def log_probs(self, temperature: float, mean: str = "arithmetic") -> Tensor:
        """Log-probabilities (B, C) float32 of the ensemble at `temperature`; -inf for classes of probability 0.

        `mean` is "arithmetic", "geometric" or "tempered", defined in `pipeline.labels.ensemble`. The geometric mean of
        members that have no possible class in common does not exist: NaN.

        Raises:
            ConfigError: temperature <= 0 or not finite, or no such mean.
            MeanUnavailable: a mean that reduced labels cannot give.
        """
        check_temperature(temperature)
        check_mean(mean, self.reduce)
        one = self.logits.shape[1] == 1
        if mean == "geometric" and not one:
            return torch.log_softmax(self._weighted(self.logits.float()) / temperature, dim=-1)
        members = _log_softmax(self.logits, 1.0 if mean == "tempered" and not one else temperature)  # (B, M, C)
        if one:
            return members[:, 0]
        members += self.weights.log()[:, None]
        peak = members.amax(dim=1).clamp_min_(LOWEST)  # a class that no member allows: log 0 = -inf is meant
        averaged = (members - peak[:, None]).exp_().sum(dim=1).log_() + peak
        return torch.log_softmax(averaged / temperature, dim=-1) if mean == "tempered" else averaged

    def standardised(self) -> SoftLabels:
        """The same labels with each member's logits standardised, see `pipeline.labels.standardise`.

        Raises:
            MeanUnavailable: only the members' mean logits are stored, from which no member can be standardised.
        """
        if self.reduce != "none":
            raise MeanUnavailable(
                "logit_standardization scales each member's logits, and the labels keep only the members' mean "
                f"(reduce: {self.reduce})",
                remedy="train without it, or label the transfer set again with reduce: none",
            )
        scaled = standardise(self.logits)
        shift = scaled.amax(dim=-1)
        return SoftLabels(scaled - shift[:, :, None], shift, self.weights, self.reduce)

    def mean_logits(self) -> Tensor:
        """The members' weighted mean of z, (B, C) float32; -inf where a member of weight > 0 says -inf."""
        return self._weighted(self.logits.float() + self.shift[:, :, None])

    def _weighted(self, logits: Tensor) -> Tensor:
        """sum_m w_m logits_m: (B, M, C) -> (B, C); a member of weight 0 does not count, not even its -inf."""
        weights = self.weights[:, None]
        return torch.where(weights > 0, weights * logits, 0.0).sum(dim=1)


def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    """log softmax(logits / T) over the last axis in float32; for few classes several times faster than torch's own."""
    scaled = logits.float() / temperature
    scaled -= scaled.amax(dim=-1, keepdim=True)
    scaled -= scaled.exp().sum(dim=-1, keepdim=True).log_()
    return scaled
