"""Columns as Arrow tables, for the peers that read such: a row's array is a fixed-size list."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from benchmarks.peers.columns import Columns


def schema_of(columns: Columns) -> Any:
    """Their types."""
    types = {
        name: pa.from_numpy_dtype(each.dtype)
        if each.ndim == 1
        else pa.list_(pa.from_numpy_dtype(each.dtype), int(np.prod(each.shape[1:])))
        for name, each in columns.items()
    }
    return pa.schema(list(types.items()))


def table_of(columns: Columns, rows: slice, schema: Any) -> Any:
    """Some rows."""
    arrays = []
    for field in schema:
        flat = pa.array(np.ascontiguousarray(columns[field.name][rows]).ravel())
        is_list = pa.types.is_fixed_size_list(field.type)
        arrays.append(pa.FixedSizeListArray.from_arrays(flat, type=field.type) if is_list else flat)
    return pa.Table.from_arrays(arrays, schema=schema)


def tensors_of(table: Any) -> dict[str, Tensor]:
    """All columns of a table, flat (B, n) where rows are arrays."""
    found = {}
    for field in table.schema:
        column = table[field.name].combine_chunks()
        if pa.types.is_fixed_size_list(field.type):
            values = column.flatten().to_numpy(zero_copy_only=False).reshape(len(table), -1)
        else:
            values = column.to_numpy(zero_copy_only=False)
        found[field.name] = torch.from_numpy(values.copy())
    return found
