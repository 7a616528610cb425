"""The dense encoding: every class's logit, as z - max(z) in float16 beside max(z) in float32.

float16 is finest near 0, which is where this puts the classes that hold the mass: a logit 8 below the maximum is off by at
most 0.004, one within 1 by 0.0005. Stored logits, unlike stored probabilities, do not underflow, so softmax((z - max)/T)
is right at any T. What is lost is measured by `fidelity`.

R rows, M members, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import InfiniteLogits, LogitsError, LogitsOverflow, NanLogits, NoPossibleClass
from softlabels.labels.ensemble import normalised_weights


@dataclass(frozen=True)
class DenseLabels:
    """`logits` (R, M, C) float16 = z - max(z) and `shift` (R, M) float32 = max(z)."""

    logits: NDArray[np.float16]
    shift: NDArray[np.float32]


def encode_dense(logits: NDArray[np.floating], *, first_row: int = 0) -> DenseLabels:
    """Encode raw logits.

    Args:
        logits: (R, M, C) float16, float32 or float64; -inf marks a class of probability 0.
        first_row: the number of the first row, for messages.

    Raises:
        NanLogits, NoPossibleClass: NaN, or -inf in every class.
        InfiniteLogits: +inf, or a maximum beyond float32.
        LogitsOverflow: a finite logit more than 65,504 below its row's maximum (it would become -inf in float16).
        Each names row and member. LogitsError: no floats of three axes.
    """
    check_logits(logits, first_row=first_row)
    wide = logits if logits.dtype == np.float64 else logits.astype(np.float32, copy=False)
    peak = wide.max(axis=-1, keepdims=True)
    with np.errstate(over="ignore"):  # an overflow is found, and named, right below
        stored = (wide - peak).astype(np.float16)
        shift = peak[..., 0].astype(np.float32)
    _refuse(
        LogitsOverflow,
        np.isneginf(stored) & np.isfinite(wide),
        first_row,
        "a finite logit lies more than 65504 below the largest of its row, which float16 cannot hold",
        "mark impossible classes with -inf instead of a large negative number",
    )
    _refuse(
        InfiniteLogits,
        np.isinf(shift),
        first_row,
        "the largest logit lies beyond float32",
        "scale the teacher's outputs down",
    )
    return DenseLabels(stored, shift)


def check_logits(logits: NDArray[np.floating], *, first_row: int = 0) -> None:
    """Raise `LogitsError`, naming row and member, unless every row of (R, M, C) is a distribution's logits."""
    if logits.ndim != 3 or logits.dtype not in (np.float16, np.float32, np.float64):
        raise LogitsError(
            f"logits must be floats of shape (rows, members, classes), not {logits.dtype} of shape {logits.shape}",
            remedy="give one float logit a class",
        )
    peak = logits.max(axis=-1)  # NaN where any is NaN, -inf where all are
    if np.isfinite(peak).all():
        return
    fix = "mend the teacher's outputs for this row"
    overflow = f"{fix}: NaN inputs or an overflow in half precision is the usual cause"
    _refuse(NanLogits, np.isnan(peak), first_row, "logits are NaN", overflow)
    _refuse(InfiniteLogits, np.isposinf(peak), first_row, "a logit is +inf", overflow)
    impossible = "the logits of all classes are -inf"
    _refuse(NoPossibleClass, np.isneginf(peak), first_row, impossible, f"{fix}: no class is possible")


def _refuse(kind: type[LogitsError], bad: NDArray[np.bool_], first_row: int, what: str, remedy: str) -> None:
    if bad.any():
        index = np.argwhere(bad)[0]
        raise kind(f"{what} (row {first_row + index[0]}, member {index[1]})", remedy=remedy)


def reduce_geometric(logits: NDArray[np.floating], weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """The members' weighted mean logits: (R, M, C) -> (R, 1, C) float64, all that a geometric mean needs."""
    share = normalised_weights(weights, logits.shape[1])
    keep = share > 0
    return np.asarray((logits[:, keep].astype(np.float64) * share[keep, None]).sum(axis=1, keepdims=True))
