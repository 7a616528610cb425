"""The Bernoullis of an ensemble at a temperature, one a class, in float64 numpy: the reference, and what reads a store without
torch. `sigmoid_soft` is the same in torch.

Of members m with weights w_m that sum to 1 the probability of a class is:

==============  ====================================================
arithmetic      sum_m w_m sigma(z_m / T)
geometric       sigma(sum_m w_m z_m / T)
tempered        sigma(logit(sum_m w_m sigma(z_m)) / T)
==============  ====================================================

What is computed is its logit, log p - log(1 - p), each of the two to all its digits: neither end is lost to rounding.

M members, C classes; -inf and +inf are probabilities of 0 and 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from softlabels.errors import NoPossibleClass
from softlabels.labels.ensemble import check_mean, check_temperature, log_mean_exp, normalised_weights


def mean_logits(
    logits: ArrayLike, temperature: float, mean: str = "arithmetic", weights: ArrayLike | None = None
) -> NDArray[np.float64]:
    """The logit (..., C) of the ensemble's probability at `temperature`, of members' logits (..., M, C); -inf and +inf where
    that is 0 and 1. `weights` (M,), all alike by default, are normalised here.

    Raises:
        ConfigError: an impossible temperature or mean.
        NoPossibleClass: the geometric mean of members one of which gives a class probability 0 and another 1.
    """
    check_temperature(temperature)
    check_mean(mean)
    exact = np.asarray(logits, np.float64)
    share = normalised_weights(weights, exact.shape[-2])
    exact, share = exact[..., share > 0, :], share[share > 0]
    if mean == "geometric" or len(share) == 1:
        with np.errstate(invalid="ignore"):  # inf - inf is refused
            found = (exact * share[:, None]).sum(axis=-2)
        if np.isnan(found).any():
            raise no_common_outcome(f"{', '.join(map(str, np.argwhere(np.isnan(found))[0]))} of those given")
        return np.asarray(found / temperature)
    inner, outer = (1.0, temperature) if mean == "tempered" else (temperature, 1.0)
    yes, no = (log_mean_exp(log_sigmoid(sign * exact / inner), share) for sign in (1, -1))
    return np.asarray((yes - no) / outer)


def no_common_outcome(where: str) -> NoPossibleClass:
    """The error for a geometric mean that does not exist, `where` a row and class."""
    return NoPossibleClass(
        f"the geometric mean does not exist: one member gives a class probability 0 and another 1 ({where})",
        remedy="ask for mean=arithmetic (or tempered)",
    )


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-z)), small ones to all their digits."""
    return np.asarray(np.exp(log_sigmoid(logits)))


def log_sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """log sigma(z), -inf of -inf."""
    return np.asarray(np.minimum(logits, 0.0) - np.log1p(np.exp(-np.abs(logits))))
