"""The positions of sequence rows: what mask and document numbers must say, and how rows of different length are kept.

A row of L tokens has P = L - 1 positions; position p is the distribution of token p + 1 given the tokens up to p. `document`
is the number of the document that token p belongs to (1, 2, ... inside the row, 0 for padding, which stands only at the end);
`position_mask` is 1 where tokens p and p + 1 belong to the same document.

In a ragged store a row keeps the positions whose token is no padding, and `positions` says how many they are. Arrays in
memory are (R, P, ...) all the same: what is not kept has mask 0, document 0 and the values of `Encoding.blank`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from softlabels.labels import NO_LABEL
from softlabels.labels.stored import require
from softlabels.store.columns import Column
from softlabels.store.spec import Spec


def check_positions(arrays: Mapping[str, NDArray[np.generic]], *, first_row: int = 0) -> None:
    """Raise `ValueError`, naming the row, unless labels, mask and documents (and positions) agree with each other."""
    document = arrays["document"].astype(np.int64)  # (R, P)
    mask, real = arrays["position_mask"].astype(np.int64), document > 0
    step = np.diff(document, axis=1, prepend=0)
    same = (np.diff(document, axis=1) == 0) & real[:, 1:]
    require(
        ((document == 0) | (step == 0) | (step == 1)).all(axis=1) & (real[:, :-1] >= real[:, 1:]).all(axis=1),
        "document numbers do not run 1, 2, ... with 0 only at the end",
        first_row,
    )
    require(
        (mask[:, :-1] == same).all(axis=1) & (mask[:, -1] <= real[:, -1]),
        "the mask is not 1 just where this token and the next are of one document",
        first_row,
    )
    require(arrays["label"] == NO_LABEL, "the label is not -1: the tokens of a sequence are its labels", first_row)
    if "positions" in arrays:
        require(
            (arrays["positions"] == real.sum(axis=1)) & real[:, 0],
            "positions is not the number of tokens that are no padding, or is 0",
            first_row,
        )


def kept(values: NDArray[np.generic], positions: NDArray[np.int32]) -> NDArray[np.generic]:
    """The positions that ragged rows keep, one row behind the other: (R, P, ...) -> (sum of `positions`, ...)."""
    return values[np.arange(values.shape[1]) < positions[:, None]]


def padded(
    spec: Spec, column: Column, values: NDArray[np.generic], positions: NDArray[np.int32]
) -> NDArray[np.generic]:
    """What `kept` gave, as (R, P, ...) again."""
    out = np.empty((len(positions), *column.shape), column.numpy_dtype)
    out[:] = spec.encoding.blank(column.name, column.shape[1:], column.numpy_dtype)
    out[np.arange(column.shape[0]) < positions[:, None]] = values
    return out


def check_counts(positions: NDArray[np.int32], most: int) -> None:
    """Raise `ValueError` unless each of the stored numbers of positions lies between 1 and P: memory is taken by them."""
    if positions.size and not 1 <= positions.min() <= positions.max() <= most:
        raise ValueError(f"says that a row has {positions.min()} to {positions.max()} positions, not 1 to {most}")
