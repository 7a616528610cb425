"""The Arrow layout: an IPC stream file a shard with all columns in it, a record batch a chunk, and the two JSON files that
make the folder a Hugging Face dataset (`datasets.load_from_disk`).

Columns are fixed-size lists, so a chunk of a column is one run of bytes in the file, found once at writing; our reader
takes it from there without parsing Arrow.
"""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.store.columns import Column
from pipeline.store.layouts import EncodedShard, Places, chunk_rows
from pipeline.store.spec import Spec, pretty_json


class ArrowLayout:
    """See `pipeline.store.layouts.Layout`."""

    def path(self, column: Column, shard: int) -> str:
        return f"data-{shard:05}.arrow"

    def encode(self, spec: Spec, shard: int, arrays: dict[str, NDArray[np.generic]]) -> EncodedShard:
        values = {column.name: column.encode(arrays[column.name]) for column in spec.columns}
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, _schema(spec)) as out:
            for chunk in range(spec.shard_chunks(shard)):
                rows = chunk_rows(spec, shard, chunk)
                parts = [_to_arrow(column, values[column.name][rows.start : rows.stop]) for column in spec.columns]
                out.write_batch(pa.record_batch(parts, schema=_schema(spec)))
        data = sink.getvalue().to_pybytes()
        places = {column.name: self.locate(spec, shard, column, memoryview(data)) for column in spec.columns}
        return EncodedShard({self.path(spec.columns[0], shard): data}, places)

    def decode(self, spec: Spec, column: Column, data: bytes | memoryview, rows: int) -> NDArray[np.generic]:
        if len(data) != rows * column.row_bytes:
            raise ValueError(f"{len(data)} bytes do not hold {rows} rows of {column.row_bytes}")
        return np.frombuffer(data, column.numpy_dtype).reshape(rows, *column.shape)

    def locate(self, spec: Spec, shard: int, column: Column, data: memoryview) -> Places:
        whole = pa.py_buffer(data)
        try:
            with pa.ipc.open_stream(whole) as stream:
                if stream.schema != _schema(spec):
                    raise ValueError("the file's schema is not the store's")
                places = tuple(_values_place(batch, column, whole) for batch in stream)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"is no Arrow stream: {error}") from error
        sizes = [len(chunk_rows(spec, shard, c)) * column.row_bytes for c in range(spec.shard_chunks(shard))]
        if [size for _, size in places] != sizes:
            raise ValueError("the file's record batches are not the chunks that the plan cuts")
        return places

    def metadata(self, spec: Spec, digest: str) -> dict[str, bytes]:
        files = [{"filename": self.path(spec.columns[0], shard)} for shard in range(spec.shards)]
        state: dict[str, object] = {
            "_data_files": files, "_fingerprint": digest[:16], "_format_columns": None, "_format_kwargs": {},
            "_format_type": None, "_output_all_columns": False, "_split": spec.transfer_set.split,
        }  # fmt: skip
        info = {"features": {column.name: _feature(spec, column) for column in spec.columns}}
        return {"dataset_info.json": pretty_json(info), "state.json": pretty_json(state)}

    def root_metadata(self, splits: tuple[str, ...]) -> dict[str, bytes]:
        return {"dataset_dict.json": (json.dumps({"splits": list(splits)}) + "\n").encode()}


def _schema(spec: Spec) -> pa.Schema:
    """The schema of every shard file."""
    return pa.schema([(column.name, _arrow_type(column)) for column in spec.columns])


def _arrow_type(column: Column) -> pa.DataType:
    kind = pa.from_numpy_dtype(np.dtype(column.dtype))
    for size in reversed(column.shape):
        kind = pa.list_(kind, size)
    return kind


def _to_arrow(column: Column, values: NDArray[np.generic]) -> pa.Array:
    array = pa.array(values.reshape(-1), type=pa.from_numpy_dtype(np.dtype(column.dtype)))
    for size in reversed(column.shape):
        array = pa.FixedSizeListArray.from_arrays(array, size)
    return array


def _values_place(batch: pa.RecordBatch, column: Column, whole: pa.Buffer) -> tuple[int, int]:
    """Offset and size of a column's numbers in the file that `whole` maps."""
    values = batch.column(column.name).buffers()[-1]
    size = batch.num_rows * column.row_bytes
    offset = values.address - whole.address
    if values.size < size or offset < 0 or offset + size > whole.size:
        raise ValueError(f"column {column.name} does not lie in the file as plain numbers")
    return offset, size


def _feature(spec: Spec, column: Column) -> dict[str, object]:
    """The column's entry in Hugging Face `Features`."""
    names = spec.label_space.names
    feature: dict[str, object] = {"dtype": column.dtype, "_type": "Value"}
    if column.name == "label" and names is not None:
        feature = {"names": list(names), "_type": "ClassLabel"}
    for size in reversed(column.shape):
        feature = {"feature": feature, "length": size, "_type": "List"}
    return feature
