"""The columns of a store: name, dtype and shape of one row, and what stands in a chunk beyond the last row.

Those of a target that has a name, as where a store holds several, are called `NAME.column`.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Annotated, Literal, get_args

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from softlabels.errors import UserError
from softlabels.labels import NO_LABEL

DType = Literal[
    "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64"
]
DTYPES: tuple[str, ...] = get_args(DType)
KEY_BYTES = 16
POSITION = "position"
LABEL = "label"
SHARED = ("content_key", "fold", "positions", "position_mask", "document", "input")  # by all targets of a store


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One array of the store; its axis 0 is the row, `shape` the rest, `axes` the names of the rest."""

    name: Annotated[str, Meta(max_length=64)]
    dtype: DType
    shape: Annotated[tuple[Annotated[int, Meta(ge=1, le=1 << 31)], ...], Meta(max_length=16)]
    axes: Annotated[tuple[Annotated[str, Meta(max_length=64)], ...], Meta(max_length=16)]

    @property
    def numpy_dtype(self) -> np.dtype[np.generic]:
        """Little-endian, as stored."""
        return _little_endian(self.dtype)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, not compressed."""
        return self.numpy_dtype.itemsize * math.prod(self.shape)

    @property
    def by_position(self) -> bool:
        """Whether the first axis of a row is that of its positions."""
        return self.axes[:1] == (POSITION,)

    @property
    def position_bytes(self) -> int:
        """Bytes of one position of a row, not compressed."""
        return self.numpy_dtype.itemsize * math.prod(self.shape[1:])

    @property
    def fill(self) -> float | int:
        """The value of rows that were never written: NaN, no label, or 0."""
        if self.dtype.startswith("float"):
            return math.nan
        return NO_LABEL if bare(self.name) == LABEL else 0

    def encode(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """`values` as this column stores them; the dtype must be the column's already, nothing is cast."""
        if values.dtype != np.dtype(self.dtype) or values.shape[1:] != self.shape:
            raise ValueError(f"{self.name}: {values.dtype} {values.shape[1:]} is not {self.dtype} {self.shape}")
        return np.ascontiguousarray(values, dtype=self.numpy_dtype)


@cache
def _little_endian(dtype: DType) -> np.dtype[np.generic]:
    return np.dtype(dtype).newbyteorder("<")


def stored_name(target: str, name: str) -> str:
    """What a store calls the column `name` of a target: as it is where the target has no name, or all targets share it."""
    return name if not target or name in SHARED else f"{target}.{name}"


def bare(name: str) -> str:
    """The name of a column without that of its target."""
    return name.rpartition(".")[2]


def is_soft(name: str) -> bool:
    """Whether the column of this name holds part of the distributions or values."""
    return bare(name) not in (LABEL, *SHARED)


def input_column(inputs: NDArray[np.generic]) -> Column:
    """The column of embedded inputs (R, ...). Raises `UserError` for a dtype that no column has."""
    if inputs.dtype.name not in DTYPES:
        raise UserError(
            f"inputs of {inputs.dtype} cannot be embedded", remedy=f"prepare them as one of {', '.join(DTYPES)}"
        )
    axes = tuple(f"input_{axis}" for axis in range(inputs.ndim - 1))
    dtype: DType = inputs.dtype.name  # type: ignore[assignment]  # checked right above
    return Column(name="input", dtype=dtype, shape=tuple(inputs.shape[1:]), axes=axes)
