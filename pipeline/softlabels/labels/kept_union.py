"""The classes that any of several members keeps, each once, and sums over the members that keep one.

N positions, M members, K classes that each keeps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class KeptUnion:
    """Of ids (N, M, K), ascending in each member.

    Attributes:
        ids: (N, M K), ascending; a class that several keep stands there as often.
        first: (N, M K), True once for each class.
    """

    def __init__(self, ids: NDArray[np.int64]) -> None:
        count, self._members, _ = ids.shape
        flat = ids.reshape(count, -1)
        self._order = np.argsort(flat, axis=1, kind="stable") if self._members > 1 else None
        self.ids = self._sorted(flat)
        self.first = np.diff(self.ids, axis=1, prepend=-1) != 0

    def sums(self, values: Floats) -> Floats:
        """Of values (N, M, K) the sums (N, M K) over the members that keep a class, where it is the first; 0 elsewhere."""
        each = self._sorted(values.reshape(len(values), -1))
        total = each.copy()
        for step in range(1, self._members):
            total[:, :-step] += np.where(self.ids[:, step:] == self.ids[:, :-step], each[:, step:], 0.0)
        return np.where(self.first, total, 0.0)

    def _sorted(self, flat: NDArray[Any]) -> NDArray[Any]:
        return flat if self._order is None else np.take_along_axis(flat, self._order, axis=1)
