"""`OneColumn`: what encodings share that keep every number as it is, in one column: `sigmoid` and `values`.

M members, C classes (or numbers of a vector).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from softlabels.labels.base import ColumnShape, EncodingBase
from softlabels.labels.decoder import Columns


class OneColumn(EncodingBase, frozen=True, kw_only=True):
    """One column (M, C). `dtype`: of what is stored.

    Class attributes:
        column: its name. axis: what its last axis is.
    """

    dtype: Literal["float16", "float32"] = "float32"

    first_format: ClassVar[int] = 3
    keeps_all: ClassVar[bool] = True
    column: ClassVar[str]
    axis: ClassVar[str]

    def columns(self, classes: int, members: int, positions: int | None = None) -> tuple[ColumnShape, ...]:
        lead, axes = ((), ()) if positions is None else ((positions,), ("position",))
        return ((self.column, self.dtype, (*lead, members, classes), (*axes, "member", self.axis)),)

    def outputs(self, columns: Columns) -> NDArray[np.float32]:
        return np.asarray(columns[self.column], np.float32)

    def exact(self, outputs: NDArray[np.floating]) -> Columns:
        return {self.column: outputs}

    def reordered(self, columns: Columns, order: NDArray[np.int64], classes: int) -> Columns:
        return {self.column: columns[self.column][..., order]}

    def code(self, layout: str, path: str, classes: int, *, positions: bool) -> str:
        axes = f"{'positions, ' * positions}members, {'values' if self.axis == 'value' else 'classes'}"
        return column_code(layout, path, self.column, axes, self.dtype)


def column_code(layout: str, path: str, name: str, axes: str, dtype: str) -> str:
    """Lines of Python that read a column of rows with these `axes`."""
    if layout == "zarr":
        return f'import zarr\n\n{name} = zarr.open_group({path}, mode="r")["{name}"][:]  # (rows, {axes})'
    read = f'{name} = datasets.load_from_disk({path}).with_format("arrow")["{name}"]'
    note = "float16; the numpy and torch formats give float32" if dtype == "float16" else dtype
    return f"import datasets\n\n{read}  # {note}"
