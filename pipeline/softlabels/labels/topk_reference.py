"""The top-k encoding decoded in float64 numpy: the reference for `topk_soft`, and what reads a sparse store without torch.

Of a distribution are kept the K largest logits, the tail's mass at any temperature (`tail_mass`) and, with the store's
prior and basis, the tail's shape: a class of the tail has probability

    p_i(T) = tail mass(T) * softmax over the tail of (z_i / T),    z = prior + coefficients @ basis

where the tail is every class that is not stored. With the tails "uniform" and "bucket" z is 0 (all alike; losses may treat
a bucket as one outcome), with "prior" there are no coefficients. "renormalised" has no tail: the K probabilities sum to 1.

N positions (any number of leading axes), M members, C classes, K stored classes, n tail nodes, r basis vectors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from softlabels.labels.class_ids import widen
from softlabels.labels.decoder import Columns
from softlabels.labels.stored import IMPOSSIBLE
from softlabels.labels.tail_mass import CURVE_STEPS, check_beta, curve_weights
from softlabels.labels.topk_fields import COARSE, FINE, TopkFields


def stored_log_probs(
    columns: Columns, encoding: TopkFields, classes: int, temperature: float
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Ids (N, M, K) and log-probabilities (N, M, K) of the stored classes, and the log mass (N, M) of the tail.

    Raises:
        ConfigError: the temperature is not above 0, or below 1 / beta_max, where the tail is not known.
    """
    beta = check_beta(encoding, temperature)
    logits = columns["top_logit"].astype(np.float64)
    stored = _log_sum_exp(beta * logits)
    tail = np.full_like(stored, -np.inf)
    if encoding.tail != "renormalised":
        tail = _tail_log_sum(columns, logits, encoding, beta)
    total = np.logaddexp(stored, tail)
    return widen(columns, classes), beta * logits - total[..., None], tail - total


def topk_log_probs(
    columns: Columns, encoding: TopkFields, classes: int, basis: NDArray[np.float16] | None, temperature: float
) -> NDArray[np.float64]:
    """Log-probabilities (N, M, C) of each member; -inf for probability 0.

    Args:
        columns: of the store, leading axes as they are.
        encoding: of the store.
        classes: C.
        basis: (1 + r, C), the prior and the basis; None where the tail has none.
        temperature: T >= 1 / beta_max.

    Raises:
        ConfigError: see `stored_log_probs`.
    """
    ids, log_p, log_tail = stored_log_probs(columns, encoding, classes, temperature)
    z = _tail_logits(columns, ids, encoding, classes, basis) / temperature
    if ids.shape[-1] < classes:
        z = z - _log_sum_exp(z)[..., None] + log_tail[..., None]
    np.put_along_axis(z, ids, log_p, axis=-1)
    return z


def _tail_log_sum(
    columns: Columns, logits: NDArray[np.float64], encoding: TopkFields, beta: float
) -> NDArray[np.float64]:
    """g(beta) (N, M) from the columns and the logits (N, M, K) among them; -inf where there is no tail."""
    odds = columns["tail_odds"].astype(np.float64)
    empty = np.isneginf(odds[..., 0])
    odds = np.where(empty[..., None], 0.0, odds)
    first = odds[..., 0] + np.log(np.isfinite(logits).sum(axis=-1))
    last = odds[..., 1] + _log_sum_exp(encoding.beta_max * logits)
    along = beta / encoding.beta_max
    weights = np.array(curve_weights(beta, encoding.nodes, encoding.beta_max), np.float64)
    g = (1 - along) * first + along * last + columns["tail_curve"].astype(np.float64) / CURVE_STEPS @ weights
    return np.where(empty, -np.inf, g)


def _tail_logits(
    columns: Columns, ids: NDArray[np.int64], encoding: TopkFields, classes: int, basis: NDArray[np.float16] | None
) -> NDArray[np.float64]:
    """z (N, M, C) that says the tail's shape, each position up to a constant; -inf at the stored classes `ids` (N, M, K) and at
    those that the prior holds for impossible. Where it holds a whole tail for impossible, that tail's classes are alike.
    """
    z = np.zeros((*ids.shape[:-1], classes))
    if encoding.tail in ("lowrank", "prior"):
        assert basis is not None
        wide = basis.astype(np.float64)
        z += wide[0]
        if encoding.tail == "lowrank":
            z += coefficients(columns, encoding) @ wide[1:]
        possible = np.broadcast_to(wide[0] != IMPOSSIBLE, z.shape).copy()
        np.put_along_axis(possible, ids, False, axis=-1)
        z = np.where(possible.any(axis=-1, keepdims=True), np.where(possible, z, -np.inf), 0.0)
    np.put_along_axis(z, ids, -np.inf, axis=-1)
    return z


def coefficients(columns: Columns, encoding: TopkFields) -> NDArray[np.float64]:
    """Coefficients (N, M, r) of the basis vectors."""
    scale, parts = columns["tail_scale"].astype(np.float64), []
    if encoding.fine:
        parts.append(columns["tail_fine"].astype(np.float64) * scale[..., :1] / FINE)
    if encoding.coarse:
        parts.append(_unpacked(columns["tail_coarse"])[..., : encoding.coarse] * scale[..., -1:] / COARSE)
    return np.concatenate(parts, axis=-1)


def _unpacked(pairs: NDArray[np.generic]) -> NDArray[np.float64]:
    """Coefficients (..., 2 n) in steps, -7 to 7, of pairs (..., n): the first of a pair in its low 4 bits."""
    high, low = np.divmod(pairs.astype(np.float64), 16)
    steps = np.stack([low, high], axis=-1).reshape(*pairs.shape[:-1], -1)
    return np.where(steps > COARSE, steps - 16, steps)


def _log_sum_exp(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the last axis; -inf where all are -inf."""
    peak = z.max(axis=-1, initial=-np.inf)
    anchor = np.where(np.isfinite(peak), peak, 0.0)
    with np.errstate(divide="ignore"):  # log 0 = -inf is meant
        return np.asarray(anchor + np.log(np.exp(z - anchor[..., None]).sum(axis=-1)))
