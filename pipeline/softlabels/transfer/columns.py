"""A column by its name, also one inside a struct: `objects.bbox` is the field `bbox` of each row's `objects`.

A column whose own name has dots comes first. A list of structs has a list of each field: `objects.bbox` is the same whether a
file holds a struct of lists or a list of structs. Neighbour: `decode` makes values of what is found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Features

from softlabels.transfer.decode import is_file, is_list, plain


def path_of(name: str, columns: Sequence[str]) -> list[str]:
    """`name` as a column and the fields below it; empty where there is no such column."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        if (column := ".".join(parts[:end])) in columns:
            return [column, *parts[end:]]
    return []


def column_at(table: pa.Table, name: str) -> pa.ChunkedArray:
    """The column of that name; of a field inside a struct, null where the struct is."""
    column, *below = path_of(name, table.column_names)
    found = table.column(column)
    if not below:
        return found
    array = plain(found)
    for field in below:
        array = _field(array, field)
    return pa.chunked_array([array])


def _field(array: pa.Array, name: str) -> pa.Array:
    if not is_list(array.type):
        return pc.struct_field(array, [array.type.get_field_index(name)])
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    ends = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int64())
    return pa.LargeListArray.from_arrays(ends, _field(array.flatten(), name), mask=array.is_null())


def type_at(schema: pa.Schema, name: str) -> Any:
    """The Arrow type in which that column is stored; None where there is no such column."""
    path = path_of(name, schema.names)
    kind = _stored(schema.field(path[0]).type) if path else None
    for field in path[1:]:
        kind = None if kind is None else _field_type(kind, field)
    return kind


def _stored(kind: pa.DataType) -> Any:
    return kind.storage_type if isinstance(kind, pa.ExtensionType) else kind


def _field_type(kind: Any, name: str) -> Any:
    if is_list(kind):
        inner = _field_type(kind.value_type, name)
        return None if inner is None else pa.large_list(inner)
    index = kind.get_field_index(name) if pa.types.is_struct(kind) else -1
    return None if index < 0 else kind.field(index).type


def class_names_at(features: Features, name: str) -> tuple[str, ...] | None:
    """The names of the classes that the source gives to a column, or to the items of its lists."""
    feature = feature_at(features, name)
    return tuple(feature.names) if isinstance(feature, ClassLabel) else None


def feature_at(features: Features, name: str) -> Any:
    """What `datasets` says of a column's values, or of the items of its lists; None where it says nothing."""
    path = path_of(name, list(features))
    feature = _item(features[path[0]]) if path else None
    for field in path[1:]:
        feature = _item(feature.get(field)) if isinstance(feature, dict) else None
    return feature


def _item(feature: Any) -> Any:
    while hasattr(feature, "feature"):
        feature = feature.feature
    return feature


def shown_columns(schema: pa.Schema) -> str:
    """The names of all columns, with those inside structs, for a message."""
    return ", ".join(name for field in schema for name in _names(field.name, field.type))


def _names(name: str, kind: Any) -> Iterator[str]:
    inner = kind
    while is_list(inner):
        inner = inner.value_type
    if not pa.types.is_struct(inner) or is_file(inner):
        yield name
        return
    for field in inner:
        yield from _names(f"{name}.{field.name}", field.type)
