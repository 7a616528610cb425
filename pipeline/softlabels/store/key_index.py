"""From content keys to rows: a sorted index over a store's keys, and which rows of two stores are the same."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]
Missing = Literal["error", "skip"]  # what is done where keys are not there: rows without them are left out
Repeated = Literal["error", "first"]  # and where a key stands in several rows: the first is kept

# Keys that are looked up together: in ascending order, which leads from one place in the index to the next.
AT_ONCE = 1 << 20


class KeyIndex:
    """Looks up 128-bit keys. Keys are compared whole; a key that stands in several rows leads to the first of them.

    It takes 24 bytes a row, and 8 more while it is made; looking up takes 8 bytes a key for the answer, and some 50 MB.
    """

    def __init__(self, keys: NDArray[np.uint8]) -> None:
        """`keys`: (R, 16)."""
        high, low = _words(keys)
        self._rows = np.argsort(high, kind="stable")  # equal keys stay in row order
        self._high = high[self._rows]
        if (self._high[1:] == self._high[:-1]).any():  # rows of one key, or keys that somebody made alike
            self._rows = np.lexsort((low, high))  # stable too
        self._low = low[self._rows]

    def find(self, keys: NDArray[np.uint8]) -> Ints:
        """(Q, 16) -> (Q,) row of each key, -1 where there is none."""
        found = np.full(len(keys), -1, np.int64)
        for start in range(0, len(keys), AT_ONCE):
            high, low = _words(keys[start : start + AT_ONCE])
            order = np.argsort(high)
            found[start + order] = self._find(high[order], low[order])
        return found

    def _find(self, high: Words, low: Words) -> Ints:
        """Of keys whose first words ascend."""
        found = np.full(len(high), -1, np.int64)
        at = np.searchsorted(self._high, high)
        open_ = np.flatnonzero(at < len(self._high))
        open_ = open_[self._high[at[open_]] == high[open_]]
        hit = self._low[at[open_]] == low[open_]  # nearly all, and their first row
        found[open_[hit]] = self._rows[at[open_[hit]]]
        open_ = open_[~hit]
        # The others are not there, or not the first of a run of equal first words, in which second words ascend.
        start = at[open_]
        end = stop = np.searchsorted(self._high, high[open_], side="right")
        while (start < stop).any():
            middle = (start + stop) // 2
            before = self._low[np.minimum(middle, end - 1)] < low[open_]
            start, stop = np.where(before & (start < stop), middle + 1, start), np.where(before, stop, middle)
        hit = start < end
        hit[hit] = self._low[start[hit]] == low[open_[hit]]
        found[open_[hit]] = self._rows[start[hit]]
        return found


def met(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> tuple[Ints, tuple[Ints, Ints]]:
    """Of content keys (R, 16) of two stores the rows (n, 2) of one key, in the order of the first, and those that only one has.
    Of a key that stands in several rows the first meets the first, the second the second.
    """
    words = np.ascontiguousarray(np.concatenate([one, other])).view(np.uint64).reshape(-1, 2)
    order = np.lexsort((words[:, 1], words[:, 0]))  # stable: of one key those of the first store in front
    ours, new = order < len(one), np.append(True, (words[order[1:]] != words[order[:-1]]).any(axis=1))
    group = np.cumsum(new) - 1
    count, size = (np.bincount(group, each).astype(np.int64)[group] for each in (ours, None))
    rank = np.arange(len(order)) - np.flatnonzero(new)[group]
    paired = np.where(ours, rank < size - count, rank - count < count)
    at = np.flatnonzero(paired & ours)
    pairs = np.stack([order[at], order[at + count[at]] - len(one)], axis=-1)
    alone = np.sort(order[~paired & ours]), np.sort(order[~paired & ~ours]) - len(one)
    return pairs[np.argsort(pairs[:, 0])], alone


def _words(keys: NDArray[np.uint8]) -> tuple[Words, Words]:
    pairs = np.ascontiguousarray(keys).view(np.uint64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]
