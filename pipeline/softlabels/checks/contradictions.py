"""Outputs that contradict: rows of one content key with other outputs. Rows meet their labels by key, so that all of
them would get the first one's.

Equal rows in other batches differ by rounding. Two rows contradict where the classes whose logits differ by more than `verify`
explains by rounding differ in their probability at T = 1, or next to it where they are known, by more than `LEAST` in all; of
values, in parts of their usual sizes.

n pairs of rows, M members, C classes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from softlabels.checks.dependence import spread
from softlabels.checks.rounding import HALF, tolerance
from softlabels.errors import ContradictingOutputs, some
from softlabels.labels.base import EncodingBase
from softlabels.labels.decoder import Columns
from softlabels.labels.encoding import Encoding

LEAST = 1e-3
_BYTES = 1 << 25  # of rows that are compared at a time
# Of rows; of more, such as are evenly spread: rows of a key may stand anywhere, and a block may read every chunk.
_BLOCKS = 8
REMEDY = (
    "give each row a key of its own: name the column that says which row it is (transfer_set.key; --key of import; of a "
    "graph's nodes their number: key: node), or keep one row of each key; of outputs that were computed in float16 or bfloat16 "
    "say so (--precision of import; precision of TeacherSpec)"
)

Apart = Callable[[Columns, Columns], NDArray[np.floating]]


def repeats(keys: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of (R, 16) whose key stands in an earlier row, and the first row of that key: (n,) and (n,), by the latter."""
    words = np.ascontiguousarray(keys).view(np.uint64).reshape(-1, 2)
    order = np.lexsort((words[:, 1], words[:, 0]))
    is_first = np.ones(len(order), np.bool_)
    is_first[1:] = (words[order[1:]] != words[order[:-1]]).any(axis=1)
    firsts = order[is_first][np.cumsum(is_first) - 1]
    rows, firsts = order[~is_first], firsts[~is_first]
    by_first = np.lexsort((rows, firsts))
    return rows[by_first], firsts[by_first]


def require_consistent(
    keys: NDArray[np.uint8],
    read: Callable[[NDArray[np.int64]], Columns],
    compare: Apart,
    *,
    row_bytes: int,
    where: str,
    off: str = EncodingBase.off,
) -> None:
    """Raise `ContradictingOutputs`, which counts and names them, where rows of one key contradict each other. Of very many such
    rows some are looked at, so that no split is read more than `_BLOCKS` times.

    Args:
        keys: (R, 16), of all rows of a split.
        read: gives the columns of some rows.
        compare: `apart`, of the columns that are read.
        row_bytes: of the columns of one row; bounds what is held.
        where: what the rows are of, for the message.
        off: how it says how far they are apart.
    """
    rows, firsts = repeats(keys)
    step, wrong, looked_at, example = max(1, _BYTES // max(row_bytes, 1)), 0, 0, list[str]()
    starts = np.arange(0, len(rows), step)
    for start in starts[spread(len(starts), _BLOCKS)].tolist():
        these, those = rows[start : start + step], firsts[start : start + step]
        known, at = np.unique(those, return_inverse=True)
        standing = read(known)
        gap = compare(read(these), {name: values[at] for name, values in standing.items()})
        bad = np.flatnonzero(gap > 0)
        wrong, looked_at = wrong + len(bad), looked_at + len(these)
        example += [f"row {these[n]} (as row {those[n]}, {off.format(gap[n])})" for n in bad[:5].tolist()]
    if wrong:
        raise ContradictingOutputs(
            f"{wrong} of the {looked_at} rows of {where} whose content key an earlier row has, too, have other outputs: "
            f"{some(example + [''] * (wrong - len(example)))}; all rows of a key would get the first one's",
            remedy=REMEDY,
        )


def apart(one: Columns, other: Columns, *, encoding: Encoding, classes: int, precision: str) -> NDArray[np.floating]:
    """How far a probability is off in each of n pairs that contradict, 0 in others: of an encoding's columns (n, [P,] M, ...),
    and `position_mask` (n, P) of rows of positions.
    """
    found = []
    for gap in encoding.gaps(one, other, classes):
        far = gap.z > 2 * tolerance(precision) * (1 + gap.scale) + 2 * gap.size * HALF
        found.append(_largest(far, gap.p, one, other))
    return np.asarray(np.max(found, axis=0))


def _largest(far: NDArray[np.bool_], gap: NDArray[np.floating], one: Columns, other: Columns) -> NDArray[np.floating]:
    """The largest gap (n,) of pairs whose classes that are far off differ in probability by more than `LEAST` in all, over all
    positions that count on both sides; 0 of other pairs.
    """
    gap = np.where((gap * far).sum(axis=-1) > LEAST, gap.max(axis=-1), 0.0)
    if "position_mask" in one:
        gap = gap * (one["position_mask"] * other["position_mask"])[..., None]
    return np.asarray(gap.reshape(len(gap), -1).max(axis=-1, initial=0.0))
