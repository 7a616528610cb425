"""Prepare functions: decoded rows -> the array that models take. A recipe names one, here or in a user's own module.

A prepare function takes a list of B decoded rows (see `decode`; with several input columns each row is a tuple, one value a
column) and the recipe's `init_args`, and returns one array (B, ...). It must treat every row alone: how rows are cut into
blocks is not promised. Its results are cached; editing the file it stands in makes a new cache, and at each opening some rows
are prepared anew and compared (`anew`). F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt

from softlabels.errors import ConfigError, TransferSetError
from softlabels.transfer.decode import Array, Value

Row = Value | tuple[Value, ...]
_MOST = 1 << 28  # numbers of a row: 1 GiB of float32


def require_whole(function: str, *, least: int = 1, **settings: object) -> None:
    """Raise `ConfigError` for an argument of a prepare function that is no whole number, or none that an array may have."""
    for name, value in settings.items():
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MOST:
            raise ConfigError(
                f"prepare.init_args.{name} of {function} is {value!r}",
                remedy=f"give a whole number from {least} to {_MOST:,}",
            )


def stack(rows: Sequence[Row]) -> Array:
    """Rows of one dtype and shape as they are: (B, ...).

    Raises:
        TransferSetError: several input columns, text, or rows whose dtypes or shapes differ.

    Example:
        >>> from softlabels.transfer import stack
        >>> stack([np.zeros((8, 8), np.uint8), np.ones((8, 8), np.uint8)]).shape
        (2, 8, 8)
    """
    types = set(map(type, rows))
    if type(None) in types:
        raise TransferSetError(
            "stack takes no missing values, which are None where transfer_set.missing is pass",
            remedy="set prepare to a function that fills them",
        )
    if types & {tuple, str, bytes, list}:
        found = "several input columns" if tuple in types else "text" if str in types else "bytes"
        remedies = {
            "several input columns": "{class_path: softlabels.transfer.vector} joins columns of numbers; or write a function",
            "text": "{class_path: softlabels.transfer.tokenize} makes tokens of it; or write a function",
            "bytes": "{class_path: softlabels.transfer.audio} decodes audio; or write a function; images are decoded where the "
            "column's feature (datasets.Image) says so",
        }
        raise TransferSetError(
            f"stack takes one column of numbers, not {found}", remedy=f"set prepare: {remedies[found]}"
        )
    arrays = cast("Sequence[Array]", rows)
    kinds = {(array.dtype, array.shape) for array in arrays} if np.ndarray in types else set()
    if len(kinds) > 1:
        shown = " and ".join(f"{dtype}{list(shape)}" for dtype, shape in sorted(kinds, key=str)[:2])
        raise TransferSetError(
            f"rows have different shapes: {shown}", remedy="set prepare to a function that crops, pads or resizes them"
        )
    return np.array(arrays)


def scale(rows: Sequence[Row], *, divisor: float) -> npt.NDArray[np.float32]:
    """Rows of one dtype and shape as float32, divided by `divisor`: (B, ...); of several input columns (B, F).

    Example:
        >>> from softlabels.transfer import scale
        >>> scale([np.array([0, 4, 16], np.uint8)], divisor=16).tolist()
        [[0.0, 0.25, 1.0]]
    """
    if not isinstance(divisor, int | float) or not np.isfinite(divisor) or divisor == 0:
        raise ConfigError(f"scale cannot divide by {divisor!r}", remedy="set prepare.init_args.divisor")
    values = vector(rows) if isinstance(rows[0], tuple) else stack(rows)
    return values.astype(np.float32) / np.float32(divisor)


def image(rows: Sequence[Row], *, divisor: float = 255.0) -> npt.NDArray[np.float32]:
    """Images (H, W) or (H, W, channels) of one size as float32, channels first, divided by `divisor`: (B, channels, H, W).

    Raises:
        TransferSetError: as `stack`, or rows that are no images.

    Example:
        >>> from softlabels.transfer import image
        >>> image([np.zeros((28, 28, 3), np.uint8)]).shape
        (1, 3, 28, 28)
    """
    values = scale(rows, divisor=divisor)
    if values.ndim not in (3, 4):
        raise TransferSetError(
            f"a row of shape {list(values.shape[1:])} is no image", remedy="set prepare to another function"
        )
    values_BHWC = values[..., None] if values.ndim == 3 else values
    return np.ascontiguousarray(values_BHWC.transpose(0, 3, 1, 2))


def vector(rows: Sequence[Row]) -> npt.NDArray[np.float32]:
    """The input columns of each row, flattened and joined in their order, as float32 features: (B, F).

    Raises:
        TransferSetError: as `stack`, column by column.

    Example:
        >>> from softlabels.transfer import vector
        >>> vector([(1, 2.5), (3, 4.5)]).tolist()  # rows of two columns
        [[1.0, 2.5], [3.0, 4.5]]
    """
    tuples = [row if isinstance(row, tuple) else (row,) for row in rows]
    columns = [stack(column) for column in zip(*tuples, strict=True)]
    return np.hstack([column.reshape(len(rows), -1).astype(np.float32) for column in columns])
