"""The Arrow layout: an IPC stream file a shard with all columns in it, a record batch a chunk, and the two JSON files that
make the folder a Hugging Face dataset (`datasets.load_from_disk`).

Columns are fixed-size lists, so a chunk of a column is one run of bytes in the file, found once at writing; our reader
takes it from there without parsing Arrow. The positions of ragged rows are variable-size lists, whose values are one run of
bytes as well; how many belong to each row says the column `positions`.
"""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softlabels.store.columns import Column
from softlabels.store.layouts import EncodedShard, Places, chunk_rows
from softlabels.store.positions import kept, padded
from softlabels.store.spec import Spec, Version, pretty_json


class ArrowLayout:
    """See `softlabels.store.layouts.Layout`."""

    def path(self, column: Column, shard: int) -> str:
        return f"data-{shard:05}.arrow"

    def encode(self, spec: Spec, shard: int, arrays: dict[str, NDArray[np.generic]]) -> EncodedShard:
        values = {column.name: column.encode(arrays[column.name]) for column in spec.columns}
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, _schema(spec)) as out:
            for chunk in range(spec.shard_chunks(shard)):
                rows = chunk_rows(spec, shard, chunk)
                part = {name: array[rows.start : rows.stop] for name, array in values.items()}
                batch = [_to_arrow(spec, column, part) for column in spec.columns]
                out.write_batch(pa.record_batch(batch, schema=_schema(spec)))
        data = sink.getvalue().to_pybytes()
        places = {column.name: self.locate(spec, shard, column, memoryview(data)) for column in spec.columns}
        return EncodedShard({self.path(spec.columns[0], shard): data}, places)

    def decode(
        self,
        spec: Spec,
        column: Column,
        data: bytes | memoryview,
        rows: int,
        positions: NDArray[np.int32] | None = None,
    ) -> NDArray[np.generic]:
        if positions is None:
            if len(data) != rows * column.row_bytes:
                raise ValueError(f"{len(data)} bytes do not hold {rows} rows of {column.row_bytes}")
            return np.frombuffer(data, column.numpy_dtype).reshape(rows, *column.shape)
        count = int(positions.sum(dtype=np.int64))
        if len(data) != count * column.position_bytes:
            raise ValueError(f"{len(data)} bytes do not hold {count} positions of {column.position_bytes}")
        return padded(
            spec, column, np.frombuffer(data, column.numpy_dtype).reshape(count, *column.shape[1:]), positions
        )

    def locate(self, spec: Spec, shard: int, column: Column, data: memoryview) -> Places:
        whole = pa.py_buffer(data)
        try:
            with pa.ipc.open_stream(whole) as stream:
                if stream.schema != _schema(spec):
                    raise ValueError("the file's schema is not the store's")
                places = tuple(_values_place(spec, batch, column, whole) for batch in stream)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"is no Arrow stream: {error}") from error
        rows = [len(chunk_rows(spec, shard, chunk)) for chunk in range(spec.shard_chunks(shard))]
        if [count for count, _, _ in places] != rows:
            raise ValueError("the file's record batches are not the chunks that the plan cuts")
        return tuple((offset, size) for _, offset, size in places)

    def metadata(self, spec: Spec, digest: str, version: Version) -> dict[str, bytes]:
        files = [{"filename": self.path(spec.columns[0], shard)} for shard in range(spec.shards)]
        state: dict[str, object] = {
            "_data_files": files, "_fingerprint": digest[:16], "_format_columns": None, "_format_kwargs": {},
            "_format_type": None, "_output_all_columns": False, "_split": spec.transfer_set.split,
        }  # fmt: skip
        info = {"features": {column.name: _feature(spec, column) for column in spec.columns}}
        return {"dataset_info.json": pretty_json(info), "state.json": pretty_json(state)}

    def root_metadata(self, splits: tuple[str, ...], version: Version) -> dict[str, bytes]:
        return {"dataset_dict.json": (json.dumps({"splits": list(splits)}) + "\n").encode()}


def _schema(spec: Spec) -> pa.Schema:
    """The schema of every shard file."""
    return pa.schema([(column.name, _arrow_type(spec, column)) for column in spec.columns])


def _fixed(spec: Spec, column: Column) -> tuple[int, ...]:
    """The axes of a row that are the same in every row."""
    return column.shape[1:] if spec.ragged and column.by_position else column.shape


def _arrow_type(spec: Spec, column: Column) -> pa.DataType:
    kind = pa.from_numpy_dtype(np.dtype(column.dtype))
    for size in reversed(_fixed(spec, column)):
        kind = pa.list_(kind, size)
    return pa.list_(kind) if spec.ragged and column.by_position else kind


def _to_arrow(spec: Spec, column: Column, chunk: dict[str, NDArray[np.generic]]) -> pa.Array:
    """One column of a record batch; `chunk` holds all columns, each (rows of the chunk, ...)."""
    values = chunk[column.name]
    ragged = spec.ragged and column.by_position
    if ragged:
        values = kept(values, chunk["positions"])  # type: ignore[arg-type]  # int32 by the column
    array = pa.array(values.reshape(-1), type=pa.from_numpy_dtype(np.dtype(column.dtype)))
    for size in reversed(_fixed(spec, column)):
        array = pa.FixedSizeListArray.from_arrays(array, size)
    return pa.ListArray.from_arrays(pa.array(_offsets(chunk["positions"])), array) if ragged else array


def _offsets(positions: NDArray[np.generic]) -> NDArray[np.int32]:
    """Where each ragged row begins, and the last one ends."""
    return np.concatenate([np.zeros(1, np.int32), np.cumsum(positions, dtype=np.int32)])


def _values_place(spec: Spec, batch: pa.RecordBatch, column: Column, whole: pa.Buffer) -> tuple[int, int, int]:
    """Rows of a batch, and offset and size of a column's numbers in the file that `whole` maps."""
    values = batch.column(column.name).buffers()[-1]
    size = batch.num_rows * column.row_bytes
    if spec.ragged and column.by_position:
        offsets = _offsets(batch.column("positions").to_numpy())
        if not np.array_equal(batch.column(column.name).offsets.to_numpy(), offsets):
            raise ValueError(f"the rows of column {column.name} are not as long as `positions` says")
        size = int(offsets[-1]) * column.position_bytes
    offset = values.address - whole.address
    if values.size < size or offset < 0 or offset + size > whole.size:
        raise ValueError(f"column {column.name} does not lie in the file as plain numbers")
    return batch.num_rows, offset, size


def _feature(spec: Spec, column: Column) -> dict[str, object]:
    """The column's entry in Hugging Face `Features`."""
    names = spec.label_space.names
    feature: dict[str, object] = {"dtype": column.dtype, "_type": "Value"}
    if column.name == "label" and names is not None:
        feature = {"names": list(names), "_type": "ClassLabel"}
    for size in reversed(_fixed(spec, column)):
        feature = {"feature": feature, "length": size, "_type": "List"}
    return {"feature": feature, "_type": "List"} if spec.ragged and column.by_position else feature
