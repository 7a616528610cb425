"""Some rows prepared anew, each time that prepared rows are opened, cut into other batches, and compared with what is cached.

It finds what no digest of a function's own file shows: a module that it imports or a file that it reads has changed, so that
the cached rows are stale; and what a prepare function must not do: use statistics of its batch, or random numbers. See
docs/checks.md, "Prepare functions". Neighbour: `fill` prepares all rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from softlabels.errors import TransferSetError
from softlabels.transfer.config import TransferSetConfig
from softlabels.transfer.decode import Array
from softlabels.transfer.fill import decoded, prepared
from softlabels.transfer.source import Source

ROWS = 64
CUT = (1, 2, 3, 5, 7, 9, 11, 13, 13)
OTHER_CUT = (12, 4, 14, 6, 10, 8, 10)
# Integers must be the same. Floats may differ as far as the order of a sum explains: so many units of the last place of the
# row's largest value, by their bytes.
_ULPS = {2: 4, 4: 64, 8: 64}


def is_current(config: TransferSetConfig, source: Source, inputs: Array) -> bool:
    """Whether `ROWS` rows of `inputs` (R, ...) are what the prepare function gives today; False where they are stale.

    Raises:
        TransferSetError: it gives other rows each time, or rows that depend on those beside them.
    """
    rows = np.random.default_rng(0).permutation(source.rows)[:ROWS].tolist()
    pieces = _pieces(rows, CUT)
    found = [_prepare(config, source, piece) for piece in pieces]
    if all(_same(values, np.asarray(inputs[piece])) for values, piece in zip(found, pieces, strict=True)):
        return True
    again = [_prepare(config, source, piece) for piece in pieces]
    if not all(map(_same, found, again)):
        raise depends(config, "gives other values for the same rows each time", "draw no random numbers")
    first = dict(zip(rows, (row for values in found for row in values), strict=True))
    for piece in _pieces(rows, OTHER_CUT):
        values = _prepare(config, source, piece)
        if not all(_same(value[None], first[row][None]) for row, value in zip(piece, values, strict=True)):
            raise depends(config)
    return False


def depends(
    config: TransferSetConfig,
    what: str = "gives a row other values where other rows stand beside it",
    rule: str = "treat every row alone: no mean, maximum or length over the rows of a batch",
) -> TransferSetError:
    """The error of a prepare function whose rows are not its rows' own."""
    return TransferSetError(f"{config.prepare.class_path} {what}", remedy=f"a prepare function must {rule}: correct it")


def _pieces(rows: Sequence[int], cut: Sequence[int]) -> list[list[int]]:
    """`rows` in batches of these sizes, as far as they go."""
    ends = np.cumsum(cut).tolist()
    pieces = [list(rows[end - size : end]) for end, size in zip(ends, cut, strict=True)]
    return [piece for piece in pieces if piece]


def _prepare(config: TransferSetConfig, source: Source, rows: Sequence[int]) -> Array:
    columns = decoded(config, source, source.data[list(rows)], start=0)
    return prepared(config.prepare, columns, rows=rows)


def _same(one: Array, other: Array) -> bool:
    """Whether two arrays (B, ...) are the same, but for rounding of floats; NaN is NaN."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if np.array_equal(one, other):  # as nearly always; NaN and rounding take longer to see
        return True
    if one.dtype.kind != "f":
        return False
    a, b = (values.reshape(len(values), -1).astype(np.float64) for values in (one, other))
    finite = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(np.where(finite, 0, a), np.where(finite, 0, b), equal_nan=True):
        return False
    unit = _ULPS[one.dtype.itemsize] * float(np.finfo(one.dtype.name).eps)
    allowed = unit * np.max(np.abs(a), axis=1, initial=0, where=finite, keepdims=True)
    return bool((np.abs(np.where(finite, a - b, 0)) <= allowed).all())
