"""How far stored distributions are apart, class by class: what `checks.contradictions` weighs.

n pairs of rows, [P positions,] M members, C classes, K stored classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from softlabels.labels.asked import Gap
from softlabels.labels.decoder import Columns

_LEAST = 1e-3  # of the largest usual size: any smaller one
Stored = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]  # what `stored_log_probs` gives


def dense_gap(one: Columns, other: Columns, temperature: float) -> Gap:
    """Of columns `logits` (n, [P,] M, C), z - max(z), and `shift` (n, [P,] M); p at a temperature."""
    a, b = (side["logits"].astype(np.float32) for side in (one, other))
    at = np.float32(temperature)
    peak = np.maximum(np.abs(one["shift"]), np.abs(other["shift"]))[..., None]
    own = np.maximum(_size(a), _size(b))
    with np.errstate(invalid="ignore"):
        apart = np.where(a == b, 0.0, np.abs(a - b))
    return Gap(apart, np.abs(_softmax(a / at) - _softmax(b / at)), own, np.maximum(peak, own))


def topk_gap(one: Columns, other: Columns, mine: Stored, theirs: Stored, classes: int) -> Gap:
    """Of topk columns over the classes that `one` stores: what the other side leaves out is no larger than the least that it
    stores.
    """
    z, z_other = one["top_logit"].astype(np.float32), other["top_logit"].astype(np.float32)
    at, is_there = _places(mine[0], theirs[0], classes)
    p, p_other = np.exp(mine[1]), np.exp(theirs[1])
    their_p = np.where(is_there, np.take_along_axis(p_other, at, -1), p_other.min(axis=-1, keepdims=True))
    their_z = np.where(is_there, np.take_along_axis(z_other, at, -1), z_other.min(axis=-1, keepdims=True))
    gap, apart = p - their_p, np.where(z == their_z, 0.0, z - their_z)
    gap, apart = (np.where(is_there, np.abs(v), np.maximum(v, 0.0)) for v in (gap, apart))
    size = np.maximum(_size(z), _size(z_other))
    return Gap(apart, gap, size, size)


def sigmoid_gap(one: Columns, other: Columns, temperature: float) -> Gap:
    """Of a column `logits` (n, [P,] M, C): each class by itself; p at a temperature."""
    a, b = (side["logits"].astype(np.float32) for side in (one, other))
    at = np.float32(temperature)
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.where(a == b, 0.0, np.abs(a - b))
        p = np.abs(1 / (1 + np.exp(-a / at)) - 1 / (1 + np.exp(-b / at)))
    own = np.where(np.isfinite(a) & np.isfinite(b), np.maximum(np.abs(a), np.abs(b)), 0.0)
    return Gap(apart, p, own, np.maximum(_size(a), _size(b)))


def values_gap(one: Columns, other: Columns) -> Gap:
    """Of a column `values` (n, [P,] M, D), each in its output's usual size; for `p` in parts of the pair's largest, where that
    is more.
    """
    a, b = (side["values"].astype(np.float64) for side in (one, other))
    both = np.stack([a, b])
    if "position_mask" in one:
        both = both * (one["position_mask"] * other["position_mask"])[..., None, None]
    unit = _usual_size(np.abs(both).reshape(-1, a.shape[-1]))
    a, b = a / unit, b / unit
    apart, own = np.abs(a - b), np.maximum(_size(a), _size(b))
    return Gap(apart, apart / np.maximum(own, 1.0), own, own)


def _usual_size(sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each output of (N, D) what three quarters of those that are not 0 do not exceed: a few large rows do not decide it. An
    output that is far below the others may be no more than their rounding.
    """
    sizes = np.where(np.isfinite(sizes) & (sizes > 0), sizes, np.nan)
    known = ~np.isnan(sizes).all(axis=0)
    usual = np.zeros(sizes.shape[-1])
    usual[known] = np.nanquantile(sizes[:, known], 0.75, axis=0, method="lower")
    return np.maximum(usual, max(_LEAST * usual.max(), np.finfo(np.float64).tiny))


def _places(
    ids: NDArray[np.int64], among: NDArray[np.int64], classes: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where each of ids (..., K) stands among those (..., K) of the other side, and whether it does; both ascend."""
    count = ids.shape[-1]
    offset = np.arange(ids[..., 0].size).reshape(*ids.shape[:-1], 1) * classes
    flat = (among + offset).reshape(-1)
    at = np.minimum(np.searchsorted(flat, ids + offset), flat.size - 1)
    return at % count, flat[at] == ids + offset


def _size(z: NDArray[np.floating]) -> NDArray[np.floating]:
    """The largest finite |z| of each distribution, (..., 1)."""
    return np.asarray(np.where(np.isfinite(z), np.abs(z), 0.0).max(axis=-1, keepdims=True))


def _softmax(z: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of z - max(z)."""
    p = np.exp(z)
    return np.asarray(p / p.sum(axis=-1, keepdims=True))
