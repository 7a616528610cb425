"""The Arrow layout: an IPC stream file a shard with all columns in it, a record batch a chunk, and the two JSON files that
make the folder a Hugging Face dataset (`datasets.load_from_disk`).

Columns are fixed-size lists, so a chunk of a column is one run of bytes in the file, found once at writing; our reader
takes it from there without parsing Arrow. The positions of ragged rows are variable-size lists, whose values are one run of
bytes as well; how many belong to each row says the column `positions`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softlabels.store.columns import Column
from softlabels.store.features import features, fixed_axes
from softlabels.store.json_files import pretty_json
from softlabels.store.layout import Array, Places, chunk_rows
from softlabels.store.positions import kept, padded
from softlabels.store.spec import Spec, Version
from softlabels.system.files import File, Sink

_AROUND = 1 << 20  # at most, of a message around its columns


class ArrowLayout:
    """See `softlabels.store.layout.Layout`."""

    def path(self, column: Column, shard: int) -> str:
        return f"data-{shard:05}.arrow"

    def files(self, spec: Spec, shard: int, sinks: Mapping[str, Sink]) -> _File:
        return _File(spec, sinks[self.path(spec.columns[0], shard)])

    def decode(
        self, spec: Spec, column: Column, data: memoryview, rows: int, positions: NDArray[np.int32] | None
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

    def locate(self, spec: Spec, shard: int, columns: Sequence[Column], file: File) -> dict[str, Places]:
        largest = sum(each.row_bytes for each in spec.columns) * spec.cut.rows_per_chunk + _AROUND
        found: dict[str, list[tuple[int, int]]] = {column.name: [] for column in columns}
        rows = []
        try:
            source = pa.PythonFile(_Reading(file, largest), mode="r")
            messages = pa.ipc.MessageReader.open_stream(source)
            first = messages.read_next_message()
            if first.type != "schema":  # pyarrow reads anything as one, and dies of it
                raise ValueError(f"its first message is no schema ({first.type})")
            if pa.ipc.read_schema(first) != _schema(spec):
                raise ValueError("the file's schema is not the store's")
            for message in messages:
                batch, start = _batch(spec, message), source.tell() - message.body.size
                rows.append(batch.num_rows)
                for column in columns:
                    offset, size = _values_place(spec, batch, column, message.body)
                    found[column.name].append((start + offset, size))
        except (pa.ArrowException, OSError, StopIteration, struct.error) as error:
            raise ValueError(f"is no Arrow stream: {error}") from error
        if rows != [len(chunk_rows(spec, shard, chunk)) for chunk in range(spec.shard_chunks(shard))]:
            raise ValueError("the file's record batches are not the chunks that the plan cuts")
        return {name: tuple(places) for name, places in found.items()}

    def metadata(self, spec: Spec, digest: str, version: Version) -> dict[str, bytes]:
        files = [{"filename": self.path(spec.columns[0], shard)} for shard in range(spec.shards)]
        state: dict[str, object] = {
            "_data_files": files, "_fingerprint": digest[:16], "_format_columns": None, "_format_kwargs": {},
            "_format_type": None, "_output_all_columns": False, "_split": spec.transfer_set.split,
        }  # fmt: skip
        info = {"features": features(spec)}
        return {"dataset_info.json": pretty_json(info), "state.json": pretty_json(state)}

    def root_metadata(self, splits: tuple[str, ...], version: Version) -> dict[str, bytes]:
        return {"dataset_dict.json": (json.dumps({"splits": list(splits)}) + "\n").encode()}


class _File:
    """One file with all columns: a record batch a chunk."""

    def __init__(self, spec: Spec, sink: Sink) -> None:
        self._spec, self._sink, self._out = spec, sink, _Written()
        self._stream = pa.ipc.new_stream(pa.PythonFile(self._out, mode="w"), _schema(spec))

    def add(self, arrays: Mapping[str, Array]) -> Iterator[tuple[str, int, memoryview]]:
        values = {column.name: column.encode(arrays[column.name]) for column in self._spec.columns}
        arrow = [_to_arrow(self._spec, column, values) for column in self._spec.columns]
        start = self._out.start
        self._stream.write_batch(pa.record_batch(arrow, schema=_schema(self._spec)))
        data = self._out.taken()
        self._sink.write(data)
        whole = pa.py_buffer(data)
        source = pa.BufferReader(whole)
        while (message := pa.ipc.read_message(source)).type == "schema":  # before the first batch
            pass
        batch = _batch(self._spec, message)
        for column in self._spec.columns:
            offset, size = _values_place(self._spec, batch, column, whole)
            yield column.name, start + offset, memoryview(data)[offset : offset + size]

    def end(self) -> None:
        self._stream.close()
        self._sink.write(self._out.taken())


class _Written:
    """What a stream writer has written since it was last taken away; `start`: how many bytes before."""

    closed = False

    def __init__(self) -> None:
        self.start, self._parts = 0, list[bytes]()

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def tell(self) -> int:
        return self.start + sum(map(len, self._parts))

    def flush(self) -> None:
        """Nothing is kept back."""

    def taken(self) -> bytes:
        data, self._parts = b"".join(self._parts), []
        self.start += len(data)
        return data


class _Reading:
    """A file for a stream reader, which does not get more at once than a message may have, whatever the file declares."""

    closed = False

    def __init__(self, file: File, most: int) -> None:
        self._file, self._most, self._at = file, most, 0

    def read(self, size: int) -> memoryview:
        if size > self._most:
            raise ValueError(f"a message of {size} bytes is larger than a chunk")
        out = memoryview(bytearray(max(0, min(size, self._file.size - self._at))))
        self._at += self._file.read_into(self._at, out)
        return out

    def tell(self) -> int:
        return self._at


def _schema(spec: Spec) -> pa.Schema:
    """The schema of every shard file."""
    return pa.schema([(column.name, _arrow_type(spec, column)) for column in spec.columns])


def _arrow_type(spec: Spec, column: Column) -> pa.DataType:
    kind = pa.from_numpy_dtype(np.dtype(column.dtype))
    for size in reversed(fixed_axes(spec, column)):
        kind = pa.list_(kind, size)
    return pa.list_(kind) if spec.ragged and column.by_position else kind


def _to_arrow(spec: Spec, column: Column, chunk: dict[str, NDArray[np.generic]]) -> pa.Array:
    """One column of a record batch; `chunk` holds all columns, each (rows of the chunk, ...)."""
    values = chunk[column.name]
    ragged = spec.ragged and column.by_position
    if ragged:
        values = kept(values, chunk["positions"])  # type: ignore[arg-type]  # int32 by the column
    array = pa.array(values.reshape(-1), type=pa.from_numpy_dtype(np.dtype(column.dtype)))
    for size in reversed(fixed_axes(spec, column)):
        array = pa.FixedSizeListArray.from_arrays(array, size)
    return pa.ListArray.from_arrays(pa.array(_offsets(chunk["positions"])), array) if ragged else array


def _offsets(positions: NDArray[np.generic]) -> NDArray[np.int32]:
    """Where each ragged row begins, and the last one ends."""
    return np.concatenate([np.zeros(1, np.int32), np.cumsum(positions, dtype=np.int32)])


def _batch(spec: Spec, message: pa.Message) -> pa.RecordBatch:
    """The record batch of a message, without a copy; `ValueError` where it is none that this layout has."""
    if _is_compressed(message.metadata):
        raise ValueError("a record batch is compressed")
    batch = pa.ipc.read_record_batch(message, _schema(spec))
    batch.validate()
    if any(map(_has_nulls, batch.columns)):
        raise ValueError("a record batch has nulls")
    return batch


def _has_nulls(array: pa.Array) -> bool:
    """In its rows, or in any of the lists or numbers that these hold: readers of Arrow take them for missing, we do not."""
    return array.null_count > 0 or (pa.types.is_nested(array.type) and _has_nulls(array.values))


def _values_place(spec: Spec, batch: pa.RecordBatch, column: Column, body: pa.Buffer) -> tuple[int, int]:
    """Offset and size of a column's numbers in the body of a batch."""
    values = batch.column(column.name).buffers()[-1]
    size = batch.num_rows * column.row_bytes
    if spec.ragged and column.by_position:
        offsets = _offsets(batch.column("positions").to_numpy())
        if not np.array_equal(batch.column(column.name).offsets.to_numpy(), offsets):
            raise ValueError(f"the rows of column {column.name} are not as long as `positions` says")
        size = int(offsets[-1]) * column.position_bytes
    offset = values.address - body.address
    if values.size < size or offset < 0 or offset + size > body.size:
        raise ValueError(f"column {column.name} does not lie in the file as plain numbers")
    return offset, size


def _is_compressed(metadata: pa.Buffer) -> bool:
    """Whether a message's header has the field `compression` (the fourth of `RecordBatch` in Arrow's Message.fbs, the header
    being the third of `Message`): pyarrow would allocate whatever size a compressed buffer declares.
    """
    data = memoryview(metadata)

    def field(table: int, number: int) -> int:
        (back,) = struct.unpack_from("<i", data, table)
        (size,) = struct.unpack_from("<H", data, table - back)
        if 4 + 2 * number >= size:
            return 0
        (offset,) = struct.unpack_from("<H", data, table - back + 4 + 2 * number)
        return table + int(offset) if offset else 0

    def target(at: int) -> int:
        return at + int(struct.unpack_from("<I", data, at)[0])

    header = field(target(0), 2)
    return header != 0 and field(target(header), 3) != 0
