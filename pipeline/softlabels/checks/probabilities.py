"""Outputs that are no logits: rows that are all >= 0 and sum to 1, as what a softmax gives.

One row may look so by chance, most of 16 rows in sequence do not. Blocks of 16 rows are counted from the first row of the
data, and shards are whole blocks: the answer does not depend on how rows are cut. Log-probabilities are logits and pass.

R rows, P positions, M members, C classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import LogitsError

BLOCK = 16  # rows that decide together
FEWEST = 8  # rows of the last block that decide; of fewer rows in all, all
MOST = 0.75  # of them that look so are enough: a row of zeros, or one that is cut off, hides no others
SUM = 1e-2  # how far a sum may be from 1: bfloat16 has 8 bits
REMEDY = "give what the softmax is taken of, or the logarithm of its values (log-probabilities are logits)"


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


def rows_of_positions(found: NDArray[np.bool_], mask: NDArray[np.generic]) -> NDArray[np.bool_]:
    """(R, M) from (R, P, M): rows with positions that count (`mask` (R, P)), all of which look so."""
    counts = mask.astype(np.bool_)
    return np.asarray((found | ~counts[..., None]).all(axis=1) & np.asarray(counts.any(axis=1))[:, None])


def require_logits(
    found: NDArray[np.bool_],
    *,
    total: int,
    first_row: int = 0,
    numbers: NDArray[np.int64] | None = None,
    who: str = "",
    remedy: str = REMEDY,
) -> None:
    """Raise `LogitsError` where a block of rows looks like probabilities.

    Args:
        found: (R, M) which rows do, of the rows from `first_row` (a multiple of 16) on.
        numbers: (R,) the rows' own numbers, where they are some of many.
        total: rows in all, of which these are a part.
        who: whose outputs they are, for the message.
    """
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
            f"{who}{': ' if who else ''}{which}{of_member} are >= 0 and sum to 1, as probabilities do and logits hardly ever",
            remedy=remedy,
        )
