"""Whether a model's outputs for a row depend on what stands beside it: on the other rows of its batch, or on its padding.

The same rows were run twice, cut otherwise; what comes in is how far the two answers lie apart, what goes out which members are
off by more than rounding, and in how many rows. Who runs them: `softlabels.teacher.sentinels`, `softlabels.student.trial`.

n distributions, M members.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from softlabels.checks.rounding import TOLERANCE


class Dependent(NamedTuple):
    """A member whose outputs depend on it: its number, how many of the rows show it, and by how much at most."""

    member: int
    rows: int
    largest: float


class Dependence:
    """What was compared so far, of outputs in one precision. They may differ by so much, relative to the largest and `least`:
    1 of logits, which are near it, 0 of outputs that have a unit.
    """

    def __init__(self, members: int, precision: str, *, least: float = 1.0) -> None:
        self._tolerance, self._least = TOLERANCE[precision], least
        self._rows: list[npt.NDArray[np.int64]] = []
        self._apart: list[npt.NDArray[np.floating]] = []
        self._largest = np.zeros(members)

    def add(
        self, rows: npt.NDArray[np.int64], apart: npt.NDArray[np.floating], largest: npt.NDArray[np.floating]
    ) -> None:
        """More distributions: the row (n,) of each, the largest |difference| (n, M) of its two answers, and the largest finite
        |logit| (n, M).
        """
        if len(rows):
            self._rows.append(rows)
            self._apart.append(apart)
            self._largest = np.maximum(self._largest, largest.max(axis=0))

    def found(self) -> list[Dependent]:
        """The members that are off by more than rounding explains, in their order."""
        if not self._rows:
            return []
        rows, apart = np.concatenate(self._rows), np.concatenate(self._apart)
        off = apart > self._tolerance * (self._least + self._largest)
        return [
            Dependent(int(member), len(np.unique(rows[off[:, member]])), float(apart[:, member].max()))
            for member in np.flatnonzero(off.any(axis=0))
        ]


def spread(total: int, count: int) -> npt.NDArray[np.int64]:
    """`count` numbers below `total`, or all, evenly spread."""
    return np.arange(min(count, total), dtype=np.int64) * total // max(1, min(count, total))


def of_all_lengths(lengths: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Numbers, ascending, of `count` rows: the shortest, the longest, and some between."""
    order = np.argsort(lengths, kind="stable")
    return np.sort(order[np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(np.int64))])
