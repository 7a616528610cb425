"""Which fold a row is of: a pure function of its content key, so that no teacher of out-of-fold labels saw the row it labels.

There is neither a seed nor a list of folds. A row's fold does not depend on the rows beside it: it is the same when teachers
are trained and when they label, in whatever order the rows come, and after rows were added or taken away. Rows of one key share
a fold. R rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import ConfigError
from softlabels.stream.order import mix
from softlabels.transfer.keys import array_keys

_BLOCK = 4096  # rows whose inputs are hashed at a time
_FOLD = np.uint64(4)  # sets this hash apart from those of student/split.py


def fold_of(keys: NDArray[np.uint8], folds: int) -> NDArray[np.uint16]:
    """(R,) the fold, from 0 to folds - 1, of each row.

    With a and b the two little-endian 64-bit halves of the key, and `mix` of SplitMix64 (`softlabels.stream.order`), h = mix(b
    xor mix(a xor mix(4))), and the fold is the upper half of h times `folds`, divided by 2^32 and rounded down. So folds are of
    equal size except for chance: of 5,000 distinct keys, each of five folds has 1,000 ± 28.

    Args:
        keys: (R, 16) uint8 content keys.
        folds: from 2 to 65,536.

    Example:
        >>> from softlabels.stream.folds import fold_of
        >>> fold_of(array_keys(inputs), 5)[:4]
        array([0, 4, 2, 4], dtype=uint16)
    """
    halves = np.ascontiguousarray(keys).view("<u8").astype(np.uint64).reshape(len(keys), 2)
    hashes = mix(halves[:, 1] ^ mix(halves[:, 0] ^ mix(np.array([_FOLD]))))
    return (((hashes >> np.uint64(32)) * np.uint64(folds)) >> np.uint64(32)).astype(np.uint16)


def require_folds(keys: NDArray[np.uint8], folds: int) -> None:
    """Raise `ConfigError` where a fold has none of the rows of these keys (R, 16): its teacher would see all of them."""
    counts = np.bincount(fold_of(keys, folds), minlength=folds)
    if counts.all():
        return
    distinct, empty = len(np.unique(keys, axis=0)), np.flatnonzero(counts == 0)
    raise ConfigError(
        f"teacher.folds={folds}: of {distinct} distinct training rows with a hard label fold {empty[0]} has none",
        remedy="give fewer folds",
    )


def across_folds(keys: NDArray[np.uint8], inputs: NDArray[np.generic], folds: int) -> int:
    """How many rows have prepared inputs (R, ...) that a row of another fold has too, as rows of other ids (R, 16) may have."""
    starts = range(0, len(inputs), _BLOCK)
    contents = np.concatenate([array_keys(np.asarray(inputs[start : start + _BLOCK])) for start in starts])
    _, content = np.unique(contents, axis=0, return_inverse=True)
    content, fold = content.reshape(-1), fold_of(keys, folds).astype(np.int64)
    least, most = np.full(len(keys), folds), np.full(len(keys), -1)
    np.minimum.at(least, content, fold)
    np.maximum.at(most, content, fold)
    return int((least < most)[content].sum())
