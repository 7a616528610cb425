"""The positions of rows: what mask, labels and document numbers must say, and how rows of different length are kept.

A row of L tokens has P = L - 1 positions; position p is the distribution of token p + 1 given the tokens up to p. `document`
is the number of the document that token p belongs to (1, 2, ... inside the row, 0 for padding, which stands only at the end);
`position_mask` is 1 where tokens p and p + 1 belong to the same document.

Positions that are no tokens (frames, anchors, pixels, nodes) have a mask, in which at least one counts, and no documents.

In a ragged store a row keeps the positions whose token is no padding, or those up to the last that counts, and `positions` says
how many they are. Arrays in memory are (R, P, ...) all the same: what is not kept has mask 0, document 0, no label and the
values of `Encoding.blank`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from softlabels.labels import NO_LABEL
from softlabels.labels.hard import NONE, are_labelled
from softlabels.labels.stored import require
from softlabels.store.columns import LABEL, Column, bare, stored_name
from softlabels.store.rules import labelled
from softlabels.store.spec import Spec

Arrays = Mapping[str, NDArray[np.generic]]


def check_positions(spec: Spec, arrays: Arrays, *, first_row: int = 0) -> None:
    """Raise `ValueError`, naming the row, unless labels, mask and documents (and positions) agree with each other."""
    if spec.of_tokens:
        _check_tokens(spec, arrays, first_row)
    elif spec.positions is not None:
        _check_mask(spec, arrays, first_row)


def _check_tokens(spec: Spec, arrays: Arrays, first_row: int) -> None:
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
    for name in labelled(spec):
        none = arrays[stored_name(name, LABEL)] == NO_LABEL
        require(none, "the label is not -1: the tokens of a sequence are its labels", first_row)
    if "positions" in arrays:
        require(
            (arrays["positions"] == real.sum(axis=1)) & real[:, 0],
            "positions is not the number of tokens that are no padding, or is 0",
            first_row,
        )


def _check_mask(spec: Spec, arrays: Arrays, first_row: int) -> None:
    """Of what the mask may hold `values` says more."""
    counts = arrays["position_mask"] == 1  # (R, P)
    if "positions" in arrays:
        given, most = arrays["positions"].astype(np.int64), counts.shape[1]
        require((given >= 1) & (given <= most), f"the number of its positions is not 1 to {most}", first_row)
        beyond = counts & ~_held(most, given)
        require(~beyond.any(axis=1), "the mask is 1 beyond the number of its positions", first_row)
    for target in spec.targets:
        label = arrays.get(stored_name(target.name, LABEL))
        if label is not None:
            what = f"{target.titled}a position that the mask leaves out has a hard label"
            require((counts | ~are_labelled(label, target.encoding.target)).all(axis=1), what, first_row)


def count_positions(spec: Spec, own: Arrays) -> NDArray[np.int32]:
    """How many positions ragged rows keep (R,): those of tokens that are no padding, or up to the last that counts."""
    if spec.of_tokens:
        return np.asarray(np.count_nonzero(own["document"], axis=-1), np.int32)
    counts = own["position_mask"] != 0
    return np.asarray(counts.shape[1] - counts[:, ::-1].argmax(axis=1), np.int32)


def _held(most: int, positions: NDArray[np.generic]) -> NDArray[np.bool_]:
    """(R, P): which positions are among the first so many of each row."""
    return np.asarray(np.arange(most) < positions[:, None])  # type: ignore[operator]  # int32


def kept(values: NDArray[np.generic], positions: NDArray[np.int32]) -> NDArray[np.generic]:
    """The positions that ragged rows keep, one row behind the other: (R, P, ...) -> (sum of `positions`, ...)."""
    found = _whole(values, 2)[_held(values.shape[1], positions)]
    return found.view(values.dtype).reshape(-1, *values.shape[2:])


def padded(
    spec: Spec, column: Column, values: NDArray[np.generic], positions: NDArray[np.int32]
) -> NDArray[np.generic]:
    """What `kept` gave, as (R, P, ...) again."""
    out = np.empty((len(positions), *column.shape), column.numpy_dtype)
    owner, name, blank = spec.owner(column.name), bare(column.name), np.zeros(column.shape[1:], column.numpy_dtype)
    if owner is not None and name == LABEL:
        blank[...] = NONE[owner.encoding.target]
    elif owner is not None:
        blank = owner.encoding.blank(name, column.shape[1:], column.numpy_dtype)
    held, whole = _held(column.shape[0], positions), _whole(out, 2)
    whole[held], whole[~held] = _whole(values, 1), _whole(blank[None], 1)
    return out


def _whole(values: NDArray[np.generic], lead: int) -> NDArray[np.void]:
    """The same with the axes behind the first `lead` as one item, which numpy moves as a whole; not copied where it lies in one
    piece.
    """
    count = math.prod(values.shape[lead:])
    flat = np.ascontiguousarray(values).reshape(*values.shape[:lead], count)
    return flat.view(f"V{count * values.itemsize}")[..., 0]


def check_counts(positions: NDArray[np.int32], most: int) -> None:
    """Raise `ValueError` unless each of the stored numbers of positions lies between 1 and P: memory is taken by them."""
    if positions.size and not 1 <= positions.min() <= positions.max() <= most:
        raise ValueError(f"says that a row has {positions.min()} to {positions.max()} positions, not 1 to {most}")
