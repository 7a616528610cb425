"""Outputs that are no logits: rows that are all >= 0 and sum to 1, as what a softmax gives; of sigmoids, outputs that all lie
in [0, 1].

One row may sum to 1 by chance, most of 16 rows in sequence do not. Blocks of 16 rows are counted from the first row of the
data, and shards are whole blocks: the answer does not depend on how rows are cut. Log-probabilities are logits and pass.

Weak logits of a sigmoid may lie in [0, 1] in many rows, but then they cross its ends in others. So all rows at hand are asked
together: none crosses an end, though at 0 there is enough that a logit would have gone below, and some say yes.

R rows, P positions, M members, C classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import LogitsError
from softlabels.labels.targets import Target

BLOCK = 16  # rows that decide together
FEWEST = 8  # rows of the last block that decide; of fewer rows in all, all
MOST = 0.75  # of them that look so are enough: a row of zeros, or one that is cut off, hides no others
SUM = 1e-2  # how far a sum may be from 1: bfloat16 has 8 bits
REMEDY = "give what the softmax is taken of, or the logarithm of its values (log-probabilities are logits)"
REMEDIES = {"softmax": REMEDY, "sigmoid": "give what the sigmoid is taken of, or log(p / (1 - p))"}
# Of a sigmoid's row: its outputs lie in [0, 1]; one below `NEAR_0`; one above `YES`.
INSIDE, LOW, HIGH = 1, 2, 4
NEAR_0, YES = 0.05, 0.5
ENOUGH = 16  # rows with outputs near 0: logits there are as often below 0 as above


Looks = NDArray[np.bool_] | NDArray[np.uint8]


def looks(
    values: NDArray[np.floating], target: Target, mask: NDArray[np.generic] | None = None, *, rounding: float = 0.0
) -> NDArray[np.uint8]:
    """What shows of rows (..., C) of a target's outputs, (...): of a softmax 1 where they look like probabilities, see
    `are_probabilities`; of a sigmoid `INSIDE`, `LOW` and `HIGH`; of values nothing. With the `mask` (R, P) of rows of positions
    (R, P, M, C) what `rows_of_positions` says, (R, M).
    """
    if target == "softmax":
        found = are_probabilities(values, rounding=rounding).view(np.uint8)
    elif target == "sigmoid":
        found = looks_of(values.min(axis=-1), values.max(axis=-1))
    else:
        found = np.zeros(values.shape[:-1], np.uint8)
    return found if mask is None else rows_of_positions(found, mask, target)


def looks_of(lowest: NDArray[np.floating], highest: NDArray[np.floating]) -> NDArray[np.uint8]:
    """The same of a sigmoid's rows with this lowest and highest output."""
    inside = (lowest >= 0) & (highest <= 1)
    return np.asarray(inside * INSIDE | (lowest < NEAR_0) * LOW | (highest > YES) * HIGH, np.uint8)


def are_probabilities(values: NDArray[np.floating], *, rounding: float = 0.0) -> NDArray[np.bool_]:
    """Which rows of (..., C) are >= 0 and sum to 1; `rounding`: how far each value may be off. None where so many values may
    be off that zeros might sum to 1.
    """
    found: NDArray[np.bool_] = np.zeros(values.shape[:-1], np.bool_)
    if rounding * values.shape[-1] >= 0.5:
        return found
    wide = np.float64 if values.dtype == np.float64 else np.float32
    with np.errstate(invalid="ignore", over="ignore"):
        found[...] = np.abs(values.sum(axis=-1, dtype=wide) - 1) <= SUM + rounding * values.shape[-1]
    if found.any():  # never, of logits: one pass over them
        found[found] = ((values[found] >= -rounding) & (values[found] <= 1 + SUM + rounding)).all(axis=-1)
    return found


def rows_of_positions(found: Looks, mask: NDArray[np.generic], target: Target) -> NDArray[np.uint8]:
    """`looks` (R, M) of rows, of those of their positions (R, P, M) that count (`mask` (R, P)): what all of them show; of a
    sigmoid also `LOW` and `HIGH`, where one of them does. A row of which none counts shows nothing; of a sigmoid it is no
    exception.
    """
    counts = mask.astype(np.bool_)[..., None]
    every = np.bitwise_and.reduce(np.where(counts, found, INSIDE), axis=1) & INSIDE
    if target == "sigmoid":
        return np.asarray(every | np.bitwise_or.reduce(np.where(counts, found & (LOW | HIGH), 0), axis=1), np.uint8)
    return np.asarray(every * counts.any(axis=1), np.uint8)


def require_logits(
    found: Looks,
    *,
    target: Target = "softmax",
    total: int,
    first_row: int = 0,
    numbers: NDArray[np.int64] | None = None,
    who: str = "",
    remedy: str = "",
) -> None:
    """Raise `LogitsError` where rows look like probabilities: a block of them of a softmax, all of a sigmoid.

    Args:
        found: (R, M) `looks` of the rows from `first_row` (a multiple of 16) on.
        numbers: (R,) the rows' own numbers, where they are some of many.
        total: rows in all, of which these are a part.
        who: whose outputs they are, for the message.
        remedy: what to do, by default `REMEDIES`.
    """
    remedy, who = remedy or REMEDIES.get(target, ""), f"{who}: " if who else ""
    if target == "sigmoid":
        _require_logits_of_sigmoid(found, who, remedy)
        return
    for start in range(0, len(found), BLOCK):
        block = found[start : start + BLOCK]
        share = block.mean(axis=0)
        if len(block) < min(FEWEST, total) or share.max(initial=0) < MOST:
            continue
        member = int(share.argmax())
        of_member = f", member {member}," if found.shape[1] > 1 else ""
        last = start + len(block) - 1
        which, alike = f"rows {first_row + start} to {first_row + last}", int(block[:, member].sum())
        is_spread = numbers is not None and numbers[last] - numbers[start] >= len(block)
        if numbers is not None:
            which = f"rows {numbers[start]} to {numbers[last]}"
        if is_spread or alike < len(block):
            which = f"{alike} of {which}"
        raise LogitsError(
            f"{who}{which}{of_member} are >= 0 and sum to 1, as probabilities do and logits hardly ever", remedy=remedy
        )


def _require_logits_of_sigmoid(found: Looks, who: str, remedy: str) -> None:
    inside, near_0, yes = ((found & bit) > 0 for bit in (INSIDE, LOW, HIGH))
    wrong = np.flatnonzero(inside.all(axis=0) & (near_0.sum(axis=0) >= ENOUGH) & yes.any(axis=0))
    if wrong.size:
        of_member = f" of member {wrong[0]}" if found.shape[1] > 1 else ""
        raise LogitsError(
            f"{who}all outputs{of_member} of {len(found)} rows lie in [0, 1], many near 0 and none below, as probabilities do "
            "and logits hardly ever",
            remedy=remedy,
        )
