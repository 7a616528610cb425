"""Outputs that contradict: rows of one content key with outputs of another distribution. Rows meet their labels by key, so
that all of them would get the first one's.

Equal rows in other batches differ by rounding. Two rows contradict where the classes whose logits differ by more than `verify`
explains by rounding differ in their probability at T = 1 by more than `LEAST` in all. n pairs of rows, M members, C classes,
K stored classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabels.checks.rounding import HALF, tolerance
from softlabels.errors import ContradictingOutputs, some
from softlabels.labels.encoding import TopkEncoding
from softlabels.labels.topk import stored_log_probs

LEAST = 1e-3
_BYTES = 1 << 25  # of rows that are compared at a time
_BLOCKS = (
    8  # of rows; of more, such as are evenly spread: rows of a key may stand anywhere, and a block may read every chunk
)
REMEDY = (
    "give each row a key of its own: name the column that says which row it is (transfer_set.key; --key of import; of a "
    "graph's nodes their number: key: node), or keep one row of each key; of outputs that were computed in float16 or bfloat16 "
    "say so (--precision of import; precision of TeacherSpec)"
)

Columns = Mapping[str, NDArray[Any]]
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
    keys: NDArray[np.uint8], read: Callable[[NDArray[np.int64]], Columns], apart: Apart, *, row_bytes: int, where: str
) -> None:
    """Raise `ContradictingOutputs`, which counts and names them, where rows of one key contradict each other. Of very many such
    rows some are looked at, so that no split is read more than `_BLOCKS` times.

    Args:
        keys: (R, 16), of all rows of a split.
        read: gives the columns of some rows.
        apart: see `dense_apart` and `topk_apart`.
        row_bytes: of the columns of one row; bounds what is held.
        where: what the rows are of, for the message.
    """
    rows, firsts = repeats(keys)
    step, wrong, looked_at, example = max(1, _BYTES // max(row_bytes, 1)), 0, 0, list[str]()
    starts = np.arange(0, len(rows), step)
    for start in starts[
        np.arange(min(len(starts), _BLOCKS)) * len(starts) // max(1, min(len(starts), _BLOCKS))
    ].tolist():
        these, those = rows[start : start + step], firsts[start : start + step]
        known, at = np.unique(those, return_inverse=True)
        standing = read(known)
        gap = apart(read(these), {name: values[at] for name, values in standing.items()})
        bad = np.flatnonzero(gap > 0)
        wrong, looked_at = wrong + len(bad), looked_at + len(these)
        example += [f"row {these[n]} (as row {those[n]}, a probability off by {gap[n]:.3g})" for n in bad[:5].tolist()]
    if wrong:
        raise ContradictingOutputs(
            f"{wrong} of the {looked_at} rows of {where} whose content key stands in an earlier row have outputs of another "
            f"distribution: {some(example + [''] * (wrong - len(example)))}; all rows of a key would get the first one's",
            remedy=REMEDY,
        )


def dense_apart(one: Columns, other: Columns, *, precision: str) -> NDArray[np.floating]:
    """How far a probability is off in each of n pairs that contradict, 0 in others: of columns `logits` (n, [P,] M, C),
    z - max(z), `shift` (n, [P,] M), and `position_mask` (n, P) of rows of positions.
    """
    a, b = (side["logits"].astype(np.float32) for side in (one, other))
    peak = np.maximum(np.abs(one["shift"]), np.abs(other["shift"]))[..., None]
    own = np.maximum(_size(a), _size(b))
    allowed = 2 * tolerance(precision) * (1 + np.maximum(peak, own)) + 2 * own * HALF
    with np.errstate(invalid="ignore"):
        far = np.where(a == b, 0.0, np.abs(a - b)) > allowed
    return _largest(far, np.abs(_softmax(a) - _softmax(b)), one, other)


def topk_apart(
    one: Columns, other: Columns, *, precision: str, encoding: TopkEncoding, classes: int
) -> NDArray[np.floating]:
    """The same of topk columns, compared over the classes that either side stores: what one side leaves out is no larger than
    the least that it stores.
    """
    first, second = (
        stored_log_probs(side, encoding, classes, max(1.0, 1 / encoding.beta_max)) for side in (one, other)
    )
    found = []
    for mine, theirs, own, others in ((first, second, one, other), (second, first, other, one)):
        z, z_other = own["top_logit"].astype(np.float32), others["top_logit"].astype(np.float32)
        at, is_there = _places(mine[0], theirs[0], classes)
        p, p_other = np.exp(mine[1]), np.exp(theirs[1])
        their_p = np.where(is_there, np.take_along_axis(p_other, at, -1), p_other.min(axis=-1, keepdims=True))
        their_z = np.where(is_there, np.take_along_axis(z_other, at, -1), z_other.min(axis=-1, keepdims=True))
        gap, apart = p - their_p, np.where(z == their_z, 0.0, z - their_z)
        gap, apart = (np.where(is_there, np.abs(v), np.maximum(v, 0.0)) for v in (gap, apart))
        size = np.maximum(_size(z), _size(z_other))
        far = apart > 2 * tolerance(precision) * (1 + size) + 2 * size * HALF
        found.append(_largest(far, gap, one, other))
    return np.asarray(np.maximum(found[0], found[1]))


def _places(
    ids: NDArray[np.int64], among: NDArray[np.int64], classes: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where each of ids (..., K) stands among those (..., K) of the other side, and whether it does; both ascend."""
    count = ids.shape[-1]
    offset = np.arange(ids[..., 0].size).reshape(*ids.shape[:-1], 1) * classes
    flat = (among + offset).reshape(-1)
    at = np.minimum(np.searchsorted(flat, ids + offset), flat.size - 1)
    return at % count, flat[at] == ids + offset


def _size(z: NDArray[np.float32]) -> NDArray[np.float32]:
    """The largest finite |z| of each distribution, (..., 1)."""
    return np.asarray(np.where(np.isfinite(z), np.abs(z), 0.0).max(axis=-1, keepdims=True))


def _softmax(z: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of z - max(z)."""
    p = np.exp(z)
    return np.asarray(p / p.sum(axis=-1, keepdims=True))


def _largest(far: NDArray[np.bool_], gap: NDArray[np.floating], one: Columns, other: Columns) -> NDArray[np.floating]:
    """The largest gap (n,) of pairs whose classes that are far off differ in probability by more than `LEAST` in all, over all
    positions that count on both sides; 0 of other pairs.
    """
    gap = np.where((gap * far).sum(axis=-1) > LEAST, gap.max(axis=-1), 0.0)
    if "position_mask" in one:
        gap = gap * (one["position_mask"] * other["position_mask"])[..., None]
    return np.asarray(gap.reshape(len(gap), -1).max(axis=-1, initial=0.0))
