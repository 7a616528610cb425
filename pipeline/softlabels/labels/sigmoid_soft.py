"""The sigmoid encoding in torch: `SigmoidMembers`. The numpy reference is `bernoulli`.

N positions, M members, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from softlabels.labels.bernoulli import no_common_outcome
from softlabels.labels.members import OneTensor, weighted
from softlabels.labels.targets import Target


@dataclass(frozen=True)
class SigmoidMembers(OneTensor):
    """Each class's logit of M members (N, M, C), as stored; -inf and +inf for probabilities of 0 and 1."""

    target: ClassVar[Target] = "sigmoid"

    def averaged_logits(self, weights: Tensor, temperature: float, mean: str) -> Tensor:
        z = self.numbers.float()
        if self.shape[1] == 1:
            return z[:, 0] / temperature
        if mean == "geometric":
            return _existing(weighted(z, weights)) / temperature
        inner, outer = (1.0, temperature) if mean == "tempered" else (temperature, 1.0)
        share = weights.log()[:, None]
        yes, no = (torch.logsumexp(logsigmoid(sign * z / inner) + share, dim=1) for sign in (1, -1))
        return (yes - no) / outer


def _existing(mean_logits: Tensor) -> Tensor:
    """The same (N, C), unless one member says -inf and another +inf: `NoPossibleClass`."""
    undefined = mean_logits.isnan()
    if bool(undefined.any()):
        position, number = undefined.nonzero()[0].tolist()
        raise no_common_outcome(f"position {position} of {len(undefined)}, class {number}")
    return mean_logits
