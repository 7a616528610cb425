"""The Zarr v3 layout: an array a column, a file a shard, with the sharding codec; inner codecs `bytes`, optionally `zstd`,
then `crc32c`.

The shard files and the metadata are written here rather than by zarr-python: a shard is the concatenation of its encoded
chunks and an index, the same bytes every time, and every chunk is written, also one that equals the fill value. That plain
`zarr` reads them bit for bit is tested.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import google_crc32c
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softlabels.store.columns import Column
from softlabels.store.json_files import pretty_json
from softlabels.store.layout import Array, Places
from softlabels.store.paths import BASIS_FOLDER
from softlabels.store.spec import Spec, Version
from softlabels.system.files import File, Sink

ZSTD_LEVEL = 3
_CRC_BYTES = 4
_LITTLE: dict[str, object] = {"name": "bytes", "configuration": {"endian": "little"}}
_EMPTY = np.uint64(2**64 - 1)  # offset and size of a chunk beyond the last row


class ZarrLayout:
    """See `softlabels.store.layout.Layout`."""

    def path(self, column: Column, shard: int) -> str:
        return f"{column.name}/c.{'.'.join([str(shard), *('0' for _ in column.shape)])}"

    def files(self, spec: Spec, shard: int, sinks: Mapping[str, Sink]) -> _Files:
        return _Files(spec, {column.name: sinks[self.path(column, shard)] for column in spec.columns})

    def decode(
        self, spec: Spec, column: Column, data: memoryview, rows: int, positions: NDArray[np.int32] | None
    ) -> NDArray[np.generic]:
        size = column.row_bytes * spec.cut.rows_per_chunk
        body = data[:-_CRC_BYTES]
        if spec.compression == "zstd":
            body = memoryview(_decompress(body, size))
        if len(body) != size:
            raise ValueError(f"decodes to {len(body)} bytes, not {size}")
        values = np.frombuffer(body, column.numpy_dtype)
        return values.reshape(spec.cut.rows_per_chunk, *column.shape)[:rows]

    def locate(self, spec: Spec, shard: int, columns: Sequence[Column], file: File) -> dict[str, Places]:
        chunks = spec.cut.rows_per_shard // spec.cut.rows_per_chunk
        tail = bytearray(min(chunks * 16 + _CRC_BYTES, file.size))
        file.read_into(file.size - len(tail), memoryview(tail))
        index = bytes(tail[:-_CRC_BYTES])
        if len(index) != chunks * 16 or _with_crc(index) != tail:
            raise ValueError("the shard's index does not match its checksum")
        places = np.frombuffer(index, "<u8").reshape(chunks, 2)
        filled = spec.shard_chunks(shard)
        if (places[:filled] == _EMPTY).any() or (places[filled:] != _EMPTY).any():
            raise ValueError("the shard's index does not list the chunks that the plan cuts")
        return {columns[0].name: tuple((int(offset), int(length)) for offset, length in places[:filled])}

    def metadata(self, spec: Spec, digest: str, version: Version) -> dict[str, bytes]:
        hints = {target.name: target.encoding.read_hint for target in spec.targets}
        attributes: dict[str, object] = {
            "softlabels": {"format": version, "digest": digest, "read": hints.get("", hints)}
        }
        arrays = {column.name: _array(spec, column) for column in spec.columns}
        if spec.basis_shape is not None:
            arrays[BASIS_FOLDER] = _basis_array(spec.basis_shape)
        # Consolidated, so that a reader lists the arrays without looking at the files beside them (zarr warns of each).
        consolidated = {"kind": "inline", "must_understand": False, "metadata": arrays}
        group = {**_group(attributes), "consolidated_metadata": consolidated}
        return {f"{name}/zarr.json": pretty_json(array) for name, array in arrays.items()} | {
            "zarr.json": pretty_json(group)
        }

    def root_metadata(self, splits: tuple[str, ...], version: Version) -> dict[str, bytes]:
        return {"zarr.json": pretty_json(_group({"softlabels": {"format": version, "splits": list(splits)}}))}


class _Files:
    """A file a column, its chunks one behind the other and then their index."""

    def __init__(self, spec: Spec, sinks: Mapping[str, Sink]) -> None:
        self._spec, self._sinks = spec, sinks
        self._places: dict[str, list[tuple[int, int]]] = {name: [] for name in sinks}
        self._sizes = dict.fromkeys(sinks, 0)

    def add(self, arrays: Mapping[str, Array]) -> Iterator[tuple[str, int, bytes]]:
        for column in self._spec.columns:
            name, data = column.name, _encode_chunk(self._spec, column, column.encode(arrays[column.name]))
            self._sinks[name].write(data)
            yield name, self._sizes[name], data
            self._places[name].append((self._sizes[name], len(data)))
            self._sizes[name] += len(data)

    def end(self) -> None:
        for name, places in self._places.items():
            index = np.full((self._spec.cut.rows_per_shard // self._spec.cut.rows_per_chunk, 2), _EMPTY, "<u8")
            index[: len(places)] = places
            self._sinks[name].write(_with_crc(index.tobytes()))


def _encode_chunk(spec: Spec, column: Column, values: NDArray[np.generic]) -> bytes:
    """One inner chunk, filled up to its full number of rows."""
    missing = spec.cut.rows_per_chunk - len(values)
    data = values.tobytes()
    if missing:
        data += np.full((missing, *column.shape), column.fill, column.numpy_dtype).tobytes()
    if spec.compression == "zstd":
        data = pa.Codec("zstd", compression_level=ZSTD_LEVEL).compress(data, asbytes=True)
    return _with_crc(data)


def _with_crc(data: bytes) -> bytes:
    checksum: int = google_crc32c.value(data)
    return data + checksum.to_bytes(_CRC_BYTES, "little")


def _decompress(data: memoryview, size: int) -> pa.Buffer:
    """At most `size` bytes are ever allocated, whatever the frame declares."""
    try:
        return pa.Codec("zstd").decompress(pa.py_buffer(data), decompressed_size=size)
    except OSError as error:
        raise ValueError(f"does not decompress to {size} bytes: {error}") from error


def _group(attributes: dict[str, object]) -> dict[str, object]:
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def _array(spec: Spec, column: Column) -> dict[str, object]:
    """The zarr.json of a column (Zarr v3 core specification; sharding codec 1.0)."""
    wide = column.numpy_dtype.itemsize > 1
    to_bytes = _LITTLE if wide else {"name": "bytes"}
    zstd = {"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": False}}
    crc = {"name": "crc32c"}
    sharding = {
        "chunk_shape": [spec.cut.rows_per_chunk, *column.shape],
        "codecs": [to_bytes, *([zstd] if spec.compression == "zstd" else []), crc],
        "index_codecs": [_LITTLE, crc],
        "index_location": "end",
    }
    codec = {"name": "sharding_indexed", "configuration": sharding}
    shapes = ((spec.rows, *column.shape), (spec.cut.rows_per_shard, *column.shape))
    return _described(column.dtype, *shapes, codec, column.fill, ("row", *column.axes))


def _basis_array(shape: tuple[int, int]) -> dict[str, object]:
    """The zarr.json of the tails' prior and basis: one chunk of plain bytes."""
    return _described("float16", shape, shape, _LITTLE, 0, ("vector", "class"))


def _described(
    dtype: str, shape: Sequence[int], file: Sequence[int], codec: Mapping[str, object], fill: float, axes: Sequence[str]
) -> dict[str, object]:
    """An array whose files have the shape `file`; of floats the fill value is NaN."""
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(file)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": "NaN" if dtype.startswith("float") else fill,
        "codecs": [codec],
        "attributes": {},
        "dimension_names": list(axes),
    }
