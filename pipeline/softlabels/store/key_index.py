"""From content keys to rows: a sorted index over a store's keys."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class KeyIndex:
    """Looks up 128-bit keys. Keys are compared whole; a key that stands in several rows leads to the first of them."""

    def __init__(self, keys: NDArray[np.uint8]) -> None:
        """`keys`: (R, 16)."""
        high, low = _words(keys)
        self._rows = np.argsort(high, kind="stable")  # equal keys stay in row order
        self._high, self._low = high[self._rows], low[self._rows]

    def find(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """(Q, 16) -> (Q,) row of each key, -1 where there is none."""
        high, low = _words(keys)
        found = np.full(len(high), -1, np.int64)
        at = np.searchsorted(self._high, high)
        open_ = np.arange(len(high))
        while open_.size:  # runs of equal first words: one step for nearly all keys
            open_ = open_[at[open_] < len(self._high)]
            open_ = open_[self._high[at[open_]] == high[open_]]
            hit = self._low[at[open_]] == low[open_]
            found[open_[hit]] = self._rows[at[open_[hit]]]
            open_ = open_[~hit]
            at[open_] += 1
        return found


def _words(keys: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    pairs = np.ascontiguousarray(keys).view(np.uint64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]
