"""Hard labels of each kind of target, in numpy.

=======  =======  ========  ==========================================
kind     dtype    shape     values
=======  =======  ========  ==========================================
softmax  int64    ([P])     a class, or -1 for none
sigmoid  int8     ([P,] C)  0 or 1 a class, or -1 where it is unknown
values   float32  ([P,] D)  a vector, or NaN throughout for none
=======  =======  ========  ==========================================

R rows, P positions of a row, C classes, D numbers of a vector.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from softlabels.labels import NO_LABEL
from softlabels.labels.targets import Target

Labels = NDArray[np.generic]
Flags = NDArray[np.bool_]
DTYPES: dict[Target, type[np.generic]] = {"softmax": np.int64, "sigmoid": np.int8, "values": np.float32}
NONE: dict[Target, float] = {"softmax": NO_LABEL, "sigmoid": NO_LABEL, "values": np.nan}


def no_labels(kind: Target, shape: tuple[int, ...]) -> Labels:
    """Labels of this shape where there are none; they take no memory."""
    return np.broadcast_to(DTYPES[kind](NONE[kind]), shape)


def kind_of(labels: Labels, positions: int | None) -> Target:
    """The kind of target that labels (R, [P,] ...) are of, where nothing else says it."""
    if labels.dtype.kind == "f":
        return "values"
    return "softmax" if labels.ndim <= (1 if positions is None else 2) else "sigmoid"


def are_labelled(labels: Labels, kind: Target) -> Flags:
    """Which rows (R,), or positions (R, P), have a label, a known flag or a vector."""
    known = ~np.isnan(labels) if kind == "values" else labels >= 0  # type: ignore[operator]  # integers
    return np.asarray(known if kind == "softmax" else known.any(axis=-1))


def are_missing(labels: Labels, kind: Target) -> Flags:
    """Which entries of labels are none."""
    return np.asarray(np.isnan(labels) if kind == "values" else labels < 0)  # type: ignore[operator]  # integers


def are_wrong(labels: Labels, kind: Target, classes: int | None) -> Flags:
    """Which of labels (R, ...) cannot be true, of vectors (R, [P]): no class (of `classes`, where that is known) and not -1, no
    flag, infinite or NaN in a part.
    """
    if kind == "values":
        missing = np.isnan(labels)
        return np.asarray(np.isinf(labels).any(axis=-1) | (missing.any(axis=-1) & ~missing.all(axis=-1)))
    most = 2 if kind == "sigmoid" else classes
    return np.asarray((labels < NO_LABEL) | (False if most is None else labels >= most))  # type: ignore[operator]  # integers


def reordered(labels: Labels, kind: Target, order: NDArray[np.int64]) -> Labels:
    """The same labels where class i (or number i of a vector) is what was `order[i]`."""
    if kind != "softmax":
        return np.asarray(labels[..., order])
    new = np.append(np.argsort(order), NO_LABEL)  # the last is found by -1
    return np.asarray(new[labels].astype(labels.dtype))


def joined(one: Labels, other: Labels, kind: Target) -> tuple[Labels, Flags]:
    """The labels of the same rows (R, ...), each known where either knows it; and which rows (R,) both know otherwise."""
    missing, also = are_missing(one, kind), are_missing(other, kind)
    apart = ~missing & ~also & (one != other)
    return np.where(missing, other, one), np.asarray(apart.reshape(len(apart), -1).any(axis=1))
