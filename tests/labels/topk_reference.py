"""The top-k encoding written again from its definition in docs/format.md, one position at a time in float64, sharing no code
with `softlabels.labels`; and the synthetic distributions that the tests encode.
"""

from __future__ import annotations

import math

import numpy as np

SHAPES = ("gaussian", "zipf", "one-peaked", "flat", "two-peaked")


def some_logits(rng: np.random.Generator, shape: str, positions: int, members: int, classes: int) -> np.ndarray:
    """(N, M, C) float64 of one of `SHAPES`."""
    z = rng.normal(size=(positions, members, classes))
    if shape == "gaussian":
        z *= 2.5
    elif shape == "zipf":
        ranks = np.argsort(np.argsort(-z, axis=-1), axis=-1)
        z = -1.1 * np.log(ranks + 2.7) + 0.3 * rng.normal(size=z.shape)
    elif shape == "one-peaked":
        z[..., rng.integers(classes)] += 18
    elif shape == "flat":
        z *= 0.01
    else:
        z[..., : classes // 3] += 7
    return z + 10 * rng.normal(size=(positions, members, 1))


def lse(values: np.ndarray | list[float]) -> float:
    finite = [float(value) for value in values if value > -math.inf]
    if not finite:
        return -math.inf
    peak = max(finite)
    return peak + math.log(math.fsum(math.exp(value - peak) for value in finite))


def log_softmax(z: np.ndarray) -> np.ndarray:
    return np.array(z, np.float64) - lse(z)


def encode_one(z: np.ndarray, k: int, nodes: int, beta_max: float) -> dict[str, np.ndarray]:
    """ids (K,), logit (K,) float16, odds (2,) float16 and curve (n - 1,) int16 of one position's logits (C,); the lowest ids
    where logits tie.
    """
    z = np.array(z, np.float64)
    z -= z.max()
    order = sorted(range(len(z)), key=lambda i: (-z[i], i))
    ids = np.array(sorted(order[:k]))
    rest = [float(z[i]) for i in order[k:] if z[i] > -math.inf]
    logit = z[ids].astype(np.float16)
    if not rest or nodes == 0:
        odds, curve = np.full(2, -np.inf, np.float16), np.zeros(max(nodes - 1, 0), np.int16)
        return {"ids": ids, "logit": logit, "odds": odds, "curve": curve}
    kept = [float(value) for value in logit if value > -math.inf]
    places = [beta_max / 2 * (1 - math.cos(math.pi * j / (nodes - 1))) for j in range(nodes)]
    g = [lse([b * value for value in rest]) for b in places]
    ends = {j: np.float16(g[j] - lse([places[j] * value for value in kept])) for j in (0, nodes - 1)}
    g_ends = [float(ends[j]) + lse([places[j] * value for value in kept]) for j in (0, nodes - 1)]
    line = [g_ends[0] + (g_ends[1] - g_ends[0]) * b / beta_max for b in places]
    curve = [round(2048 * (g[j] - line[j])) for j in range(1, nodes)]
    odds = np.array([ends[0], ends[nodes - 1]], np.float16)
    return {"ids": ids, "logit": logit, "odds": odds, "curve": np.array(curve, np.int16)}


def columns_of(z: np.ndarray, k: int, nodes: int, beta_max: float) -> dict[str, np.ndarray]:
    """`ids` (N, M, K) int64, `top_logit`, `tail_odds` and `tail_curve` of logits (N, M, C)."""
    each = [[encode_one(row, k, nodes, beta_max) for row in position] for position in z]
    names = {"ids": "ids", "logit": "top_logit", "odds": "tail_odds", "curve": "tail_curve"}
    return {names[key]: np.array([[one[key] for one in position] for position in each]) for key in names}


def decode_one(
    ids: np.ndarray,
    logit: np.ndarray,
    tail: tuple[np.ndarray, np.ndarray] | None,
    shape: np.ndarray,
    beta_max: float,
    temperature: float,
) -> np.ndarray:
    """Log-probabilities (C,) of one position at T; `tail` its odds (2,) and curve (n - 1,), None where there is none;
    `shape` (C,) the tail's logits.
    """
    beta, classes = 1 / temperature, len(shape)
    log_p = np.full(classes, -np.inf)
    logit = logit.astype(np.float64)
    h = lse(beta * logit)
    g = -math.inf
    if tail is not None and tail[0][0] > -math.inf:
        odds, curve = tail
        n = 1 + len(curve)
        places = [beta_max / 2 * (1 - math.cos(math.pi * j / (n - 1))) for j in range(n)]
        finite = logit[np.isfinite(logit)]
        first, last = float(odds[0]) + math.log(len(finite)), float(odds[1]) + lse(beta_max * finite)
        values = [first + (last - first) * b / beta_max for b in places]
        for j in range(1, n):
            values[j] += int(curve[j - 1]) / 2048
        g = lagrange(places, values, beta)
    total = lse([h, g])
    log_p[ids] = beta * logit - total
    rest = [i for i in range(classes) if i not in set(ids.tolist())]
    if rest and g > -math.inf:
        log_p[rest] = g - total + log_softmax(beta * shape[rest])
    return log_p


def lagrange(places: list[float], values: list[float], at: float) -> float:
    """The polynomial through (places, values), by Lagrange's formula."""
    terms = []
    for j, value in enumerate(values):
        others = [place for i, place in enumerate(places) if i != j]
        terms.append(value * math.prod((at - place) / (places[j] - place) for place in others))
    return math.fsum(terms)
