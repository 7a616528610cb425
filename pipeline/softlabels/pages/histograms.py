"""Histograms, and means, of curves over the temperature, at each stop of a page's slider.

W voices, N positions, J temperatures of the curves, S stops, B bins.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabels.pages.distributions import weights_at
from softlabels.pages.numbers import numbers

BINS = 32
MOST = 65_535  # positions that uint16 counts
_AT_ONCE = 1 << 22  # numbers


def interpolation(stops: NDArray[np.float64], nodes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(S, J), by which curves at the nodes become those at the stops."""
    return np.stack([weights_at(temperature, nodes) for temperature in stops.tolist()])


def histograms(curves: NDArray[np.float32], most: float, by: NDArray[np.float64]) -> dict[str, Any]:
    """Of curves (W, N, J) between 0 and `most`, for a page: `counts` (W, S, B) uint16 in bins of equal width, `means` (W, S).

    Args:
        curves: of at most `MOST` positions.
        most: the end of the last bin.
        by: (S, J), see `interpolation`.
    """
    voices, count, _ = curves.shape
    assert count <= MOST, f"{count} positions"
    counts, means = np.zeros((voices, len(by), BINS), np.uint16), np.zeros((voices, len(by)), np.float32)
    step = max(1, _AT_ONCE // max(count, 1))
    for voice in range(voices):
        for start in range(0, len(by), step):
            values = by[start : start + step].astype(np.float32) @ curves[voice].T  # (stops, N)
            stops = len(values)
            bins = np.clip(values * (BINS / most), 0, BINS - 1).astype(np.int64) + BINS * np.arange(stops)[:, None]
            counts[voice, start : start + stops] = np.bincount(bins.reshape(-1), minlength=BINS * stops).reshape(
                -1, BINS
            )
            means[voice, start : start + stops] = values.mean(axis=1, dtype=np.float64) if count else 0
    return {"counts": numbers(counts), "means": numbers(means), "most": most, "bins": BINS}
