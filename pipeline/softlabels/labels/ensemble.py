"""The distribution of an ensemble at a temperature, in float64 numpy: the reference, and what reads a store without torch.

Three different things are called "the average" of members m with weights w_m (summing to 1):

==============  ====================================================
arithmetic      sum_m w_m softmax(z_m / T)
geometric       softmax(sum_m w_m z_m / T)
tempered        softmax(log(sum_m w_m softmax(z_m)) / T)
==============  ====================================================

They agree for one member, and arithmetic and tempered agree at T = 1; elsewhere they differ. `soft` is the same in torch.

M members, C classes; a class whose logit is -inf has probability 0.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from softlabels.errors import ConfigError, MeanUnavailable, NoPossibleClass

MEANS = ("arithmetic", "geometric", "tempered")
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 2.0**-10, 2.0**10


def check_temperature(temperature: float) -> None:
    """Raise `ConfigError` unless `temperature` is a number above 0 that float32 reaches: 1/1024 to 1024.

    Logits a nat apart have log-probabilities 1/T apart, which float32 keeps to about 1e-6: at T = 1024 losses are right to a
    thousandth, and far above they are rounding. Labels keep a logit to about 5e-4 (float16), which is half a nat at T = 1/1024;
    and far below T^2, by which losses are multiplied, is 0.
    """
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ConfigError(
            f"temperature must be a finite number above 0, not {temperature}", remedy="give such a number"
        )
    if not LOWEST_TEMPERATURE <= temperature <= HIGHEST_TEMPERATURE:
        raise ConfigError(
            f"temperature {temperature:g} is beyond the range of float32: logits one nat apart would differ by "
            f"{1 / temperature:.1g}",
            remedy=f"give a number from {LOWEST_TEMPERATURE:g} to {HIGHEST_TEMPERATURE:g}; loss=logit_mse is the limit of a "
            "high T",
        )


def check_known(temperature: float, known_at: float | None) -> None:
    """Raise `ConfigError` where labels are known at one temperature alone, which is another."""
    if known_at not in (None, temperature):
        raise ConfigError(
            f"the labels are known at temperature {known_at:g} only, not at {temperature:g}: they were made from "
            "probabilities at that temperature",
            remedy=f"give temperature={known_at:g}; of topk labels tail_bound=true gives a bound at higher ones",
        )


def check_mean(mean: str, reduce: str = "none", *, tail: str | None = None, members: int = 1) -> None:
    """Raise unless `mean` is one of `MEANS` and labels can give it.

    Args:
        mean: as asked for.
        reduce: how the labels' members were reduced, "none" or "geometric".
        tail: of labels that leave classes out, None for others (`tail_of`).
        members: how many have a weight above 0.

    Raises:
        ConfigError: an unknown mean.
        MeanUnavailable: a mean that the labels cannot give.
    """
    if mean not in MEANS:
        raise ConfigError(f"there is no mean of members {mean!r}", remedy=f"choose one of {', '.join(MEANS)}")
    if reduce == "geometric" and mean != "geometric":
        raise MeanUnavailable(
            f"the store keeps only the members' mean logits (reduce: geometric), which cannot give the {mean} mean",
            remedy="ask for mean=geometric, or label the transfer set again with reduce: none",
        )
    if mean == "geometric" and tail == "renormalised" and members > 1:
        raise MeanUnavailable(
            f"the geometric mean of {members} members needs each one's probability of every class, and a renormalised top-k "
            "gives probability 0 to all that are not stored",
            remedy="ask for mean=arithmetic, or label the transfer set with tail lowrank",
        )


def no_common_class(where: str) -> NoPossibleClass:
    """The error for a geometric mean that does not exist, `where` a row or position."""
    return NoPossibleClass(
        f"the geometric mean does not exist: the members have no possible class in common ({where})",
        remedy="ask for mean=arithmetic (or tempered)",
    )


def normalised_weights(weights: ArrayLike | None, members: int) -> NDArray[np.float64]:
    """Member weights (M,) that sum to 1; all alike when `weights` is None. Raises `ConfigError` on negative, non-finite,
    all-zero or miscounted weights.
    """
    if weights is None:
        return np.full(members, 1.0 / members)
    array = np.asarray(weights, np.float64)
    with np.errstate(over="ignore"):  # a sum that overflows is refused
        total = array.sum()
    if array.shape != (members,) or not np.isfinite(total) or (array < 0).any() or total <= 0:
        raise ConfigError(
            f"{members} members need {members} finite weights >= 0 that are not all 0, not {np.asarray(weights).tolist()}",
            remedy="give one weight a member",
        )
    return np.asarray(array / total)


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """log softmax over the last axis; -inf stays -inf."""
    centred = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(centred - np.log(np.exp(centred).sum(axis=-1, keepdims=True)))


def log_probs(
    logits: ArrayLike, temperature: float, mean: str = "arithmetic", weights: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Log-probabilities of an ensemble.

    Args:
        logits: (..., M, C), any float dtype; a constant added to a member's logits changes nothing.
        temperature: T > 0.
        mean: "arithmetic", "geometric" or "tempered" (see the module).
        weights: (M,), all alike by default; normalised here.

    Returns:
        (..., C) float64; -inf for classes of probability 0.

    Raises:
        NoPossibleClass: the geometric mean of members that have no possible class in common.

    Example:
        >>> from softlabels.labels.ensemble import log_probs
        >>> np.exp(log_probs([[2.0, 0.0], [0.0, 0.0]], temperature=1.0)).round(2).tolist()  # two members
        [0.69, 0.31]
    """
    check_temperature(temperature)
    check_mean(mean)
    exact = np.asarray(logits, np.float64)
    share = normalised_weights(weights, exact.shape[-2])
    exact, share = exact[..., share > 0, :], share[share > 0]
    if mean == "geometric":
        mean_logits = (exact * share[:, None]).sum(axis=-2)
        impossible = np.isneginf(mean_logits.max(axis=-1))
        if impossible.any():
            raise no_common_class(f"{', '.join(map(str, np.argwhere(impossible)[0]))} of those given")
        return log_softmax(mean_logits / temperature)
    inner = 1.0 if mean == "tempered" else temperature
    averaged = log_mean_exp(log_softmax(exact / inner), share)
    return log_softmax(averaged / temperature) if mean == "tempered" else averaged


def log_mean_exp(log_p: NDArray[np.float64], share: NDArray[np.float64]) -> NDArray[np.float64]:
    """log sum_m share_m exp(log_p_m): (..., M, C) -> (..., C)."""
    weighted = log_p + np.log(share)[:, None]
    peak = weighted.max(axis=-2)
    anchor = np.where(np.isfinite(peak), peak, 0.0)
    with np.errstate(divide="ignore"):  # a class that no member allows: log 0 = -inf is meant
        return np.asarray(anchor + np.log(np.exp(weighted - anchor[..., None, :]).sum(axis=-2)))


def largest_class(
    logits: NDArray[np.floating], weights: NDArray[np.float64], temperature: float = 1.0
) -> NDArray[np.int64]:
    """The class (n,) of the largest mean probability at a temperature, of members (n, M, C) with weights (M,) that sum to 1."""
    if logits.shape[1] == 1:
        return np.asarray(logits[:, 0].argmax(axis=-1), np.int64)
    total = np.zeros((len(logits), logits.shape[2]), np.float32)
    for number, weight in enumerate(weights.tolist()):
        z = logits[:, number].astype(np.float32) / np.float32(temperature)
        p = np.exp(z - z.max(axis=-1, keepdims=True))
        total += p * (weight / p.sum(axis=-1, keepdims=True))
    return np.asarray(total.argmax(axis=-1), np.int64)
