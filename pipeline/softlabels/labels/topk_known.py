"""Top-k log-probabilities that somebody took at one temperature T, as columns of a `TopkEncoding`: the k classes, and the mass
of all others together, which is what the k leave of 1. numpy only; `topk_encode` makes columns of logits.

Nothing else is known of the tail, so its classes are alike ("uniform"), and two nodes hold its mass: at T as it is, at beta = 0
the number of its classes. The straight line between them lies above g (`tail_mass`), which is convex: what `bounded` serves.

N positions, C classes, K stored classes.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from softlabels.labels.class_ids import narrow
from softlabels.labels.decoder import Columns
from softlabels.labels.ensemble import check_temperature
from softlabels.labels.tail_mass import CURVE_STEPS
from softlabels.labels.topk import TopkEncoding

KnownTail = Literal["uniform", "renormalised"]
LEAST_REST = 1e-6  # of a tail: below, float32 does not know what its k numbers leave of 1
_LOWEST = float(np.finfo(np.float16).min)


def known_encoding(k: int, temperature: float, tail: KnownTail = "uniform") -> TopkEncoding:
    """The encoding of `k` log-probabilities that were taken at `temperature`; with the tail "renormalised" of such that were
    scaled to sum to 1, so that nobody knows what was left out. Raises `ConfigError` for an impossible temperature.
    """
    check_temperature(temperature)
    nodes = 0 if tail == "renormalised" else 2
    return TopkEncoding(k=k, tail=tail, nodes=nodes, beta_max=1 / temperature, known_at=temperature)


def known_columns(
    encoding: TopkEncoding, classes: int, ids: NDArray[np.int64], log_p: NDArray[np.float64], own: NDArray[np.float64]
) -> Columns:
    """The columns (N, 1, ...) of one member.

    Args:
        encoding: see `known_encoding`.
        classes: C.
        ids: (N, K) of the stored classes, in any order, no two alike. log_p: (N, K) finite, which sum to about 1 at most.
        own: (N,) log-probability of the hard label, NaN where it is not known.
    """
    temperature, order = encoding.near_1, np.argsort(ids, axis=-1)
    ids, log_p = np.take_along_axis(ids, order, axis=-1), np.take_along_axis(log_p, order, axis=-1)
    peak = log_p.max(axis=-1)
    top = np.maximum(temperature * (log_p - peak[:, None]), _LOWEST).astype(np.float16)
    found = {**narrow(ids, classes), "top_logit": top}
    if encoding.tail != "renormalised":
        found |= _mass(encoding, classes, top, np.exp(log_p).sum(axis=-1))
    found["label_logit"] = np.clip(temperature * (own - peak), _LOWEST, 0.0).astype(np.float16)
    return {name: values[:, None] for name, values in found.items()}


def _mass(
    encoding: TopkEncoding, classes: int, top: NDArray[np.float16], mass: NDArray[np.float64]
) -> dict[str, NDArray[np.generic]]:
    """`tail_odds` and `tail_curve` of stored logits (N, K) whose probabilities sum to `mass` (N,)."""
    rows, rest = len(top), classes - encoding.k
    if rest == 0:
        return {"tail_odds": np.full((rows, 2), -np.inf, np.float16), "tail_curve": np.zeros((rows, 1), np.int16)}
    last = np.log(np.maximum(1 - mass, LEAST_REST)) - np.log(mass)
    odds = np.stack([np.full(rows, math.log(rest / encoding.k)), last], axis=-1).astype(np.float16)
    curve = np.rint((last - odds[:, 1].astype(np.float64)) * CURVE_STEPS)  # what float16 rounded off
    return {"tail_odds": odds, "tail_curve": curve.astype(np.int16)[:, None]}
