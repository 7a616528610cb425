"""What the values of a stored column must be, a column at a time: docs/format.md. A store is somebody else's data, and digests
that fit say who changed it last, not that it makes sense. `store.chunks` asks when a chunk is first read, so reading and
`verify` refuse the same; writers ask before anything is written. The columns of distributions are their `EncodingBase`'s.

N rows, C classes.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]
BLOCK = 1 << 20  # numbers that are looked at in one go: they stay in the cache, and whatever is made of them is small
IMPOSSIBLE = -65504.0  # the prior of a class that no position of a sample allows: float16's lowest finite number
_NEG_INF = 0xFC00  # the bits of float16's -inf; those of NaN with a sign lie above
_FEW = 32  # classes up to which a maximum a class is faster than one a distribution


def require(holds: NDArray[np.bool_], what: str, first_row: int, kind: type[ValueError] = ValueError) -> None:
    """Raise, naming the first row of (N, ...) that does not hold."""
    if not holds.all():
        raise kind(f"row {first_row + int(np.argwhere(~holds)[0, 0])}: {what}")


def require_below_peak(values: Values, first_row: int) -> None:
    """Of z - max(z) (N, ..., C) float16: the largest is 0. As integers of the same bits they are compared in a fraction of the
    time; only where the one 0 is a -0 this does not do.
    """
    bits = np.ascontiguousarray(values).view("<i2").reshape(-1, values.shape[-1])
    if (_largest(bits) == 0).all() and bits.view("<u2").max(initial=0) <= _NEG_INF:
        return
    what = "the largest of a distribution's logits is not 0, or one is NaN"
    require(values.max(axis=-1) == 0, what, first_row)  # NaN is not 0 either


def _largest(rows: NDArray[np.int16]) -> NDArray[np.int16]:
    """The maximum of each of some rows (N, C), without numpy's overhead of one reduction a row."""
    count = rows.shape[1]
    if count <= _FEW or not rows.size:
        return reduce(np.maximum, rows.T)
    return np.asarray(np.maximum.reduceat(rows.reshape(-1), np.arange(0, rows.size, count)))
