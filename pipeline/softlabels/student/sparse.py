"""What losses make of sparse labels: which of them can be had, and those that see K + 1 outcomes in place of C classes.

With the tails `lowrank`, `prior` and `uniform` a loss sees the full distribution, rebuilt. A bucket's tail is one outcome: both
sides become the K stored classes and all others together. A renormalised top-k says that all others have probability 0; where
the loss only ever weighs them by it, they are one outcome too, and its terms need K gathered logits of the student's and the
sum of the rest.

N positions, C classes, K stored ones; z the student's logits.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from softlabels.errors import ConfigError
from softlabels.labels.soft import SoftLabels
from softlabels.student.loss_spec import LossSpec

COARSE = ("forward_kl", "reverse_kl", "js", "soft_ce")  # losses that compare outcomes, whatever they are
OUTCOMES = ("bucket", "renormalised")  # tails of which they see one outcome

_ONE_OUTCOME = "a bucket is one outcome, in which no class has a probability of its own"
_NOTHING = "a renormalised top-k gives every other class probability 0, which its teacher did not"
_LOGITS = "only the largest logits are stored"
_REASONS: Mapping[str, Mapping[str, str]] = {
    "bucket": {"dkd": _ONE_OUTCOME, "nkd": _ONE_OUTCOME},
    "renormalised": {"dkd": _NOTHING, "nkd": _NOTHING, "reverse_kl": f"it is infinite: {_NOTHING}"},
}
_NEVER = {
    "dist": f"it correlates the probabilities of all classes over the batch, and {_LOGITS}",
    "logit_mse": f"it compares the logits of all classes, and {_LOGITS}",
}


def require_sparse(spec: LossSpec, tail: str) -> None:
    """Raise `ConfigError`, with the reason, where sparse labels with this tail cannot serve a loss."""
    loss = spec.loss
    reason = _NEVER.get(loss) or _REASONS.get(tail, {}).get(loss)
    if reason is not None:
        raise ConfigError(
            f"the loss {loss} is not available for labels with encoding topk, tail {tail}: {reason}",
            remedy="use loss=forward_kl or loss=js, or label the transfer set with "
            + ("encoding dense" if loss in _NEVER else "tail lowrank"),
        )
    if spec.logit_standardization:
        raise ConfigError(
            f"logit_standardization needs the mean and deviation of all logits, and {_LOGITS} (encoding: topk)",
            remedy="set logit_standardization=false, or label the transfer set with encoding dense",
        )


def outcomes(student: Tensor, soft: SoftLabels, temperature: float) -> tuple[Tensor, SoftLabels]:
    """Both sides with K + 1 outcomes: the stored classes, and last all others together; as logits and dense labels that
    have these log-probabilities at `temperature`.

    The mass of the others is summed with the stored ones left out, never by taking the stored ones from 1.

    Args:
        student: (N, C) float32 raw logits.
        soft: sparse labels of one member.
        temperature: T.
    """
    ids, log_p, log_tail = soft.stored(temperature)
    scaled = student / temperature
    others = scaled.scatter(1, ids, -torch.inf)
    none = torch.isneginf(others).all(dim=-1, keepdim=True)
    rest = others.masked_fill(none, 0.0).logsumexp(dim=-1, keepdim=True).masked_fill(none, -torch.inf)
    coarse = torch.cat([scaled.gather(1, ids), rest], dim=-1) * temperature
    teacher = torch.cat([log_p, log_tail[:, None]], dim=-1)[:, None] * temperature
    shift = torch.zeros_like(teacher[..., 0])
    return coarse, SoftLabels.dense(teacher, shift, torch.ones_like(soft.weights[:1]), soft.reduce)
