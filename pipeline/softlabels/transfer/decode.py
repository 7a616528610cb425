"""Arrow columns as decoded values: what a row's inputs are before anything is prepared, and what its content key is made from.

No hashing (`keys`), no shaping to a model's taste (`prepare`). B rows of a block.

    text (string)                        str
    binary                               bytes
    integer, float, bool                 numpy scalar, dtype as stored
    lists, nested or not, `Array2D` ..   numpy array, dtype and shape as stored; a row's lists must make a rectangle
    images ({bytes, path} structs)       numpy array, see `images`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from softlabels.errors import TransferSetError
from softlabels.transfer.images import decode_image

Array = npt.NDArray[np.generic]
Value = Array | np.generic | str | bytes


@dataclass(frozen=True)
class Decoded:
    """One column of a block.

    Attributes:
        values: array (B, ...) where all rows share dtype and shape, else B values.
        encoded: of images: the encoded bytes of each lossily coded one, None for the others.
    """

    values: Array | Sequence[Value]
    encoded: Sequence[bytes | None] | None = None

    def rows(self) -> list[Value]:
        """The B values, one an element."""
        return list(self.values)

    def nbytes(self) -> int:
        """Bytes of the values (of text: its characters)."""
        if isinstance(self.values, np.ndarray):
            return self.values.nbytes
        return sum(len(value) if isinstance(value, (str, bytes)) else value.nbytes for value in self.values)


def decode(column: pa.ChunkedArray, *, name: str, start: int) -> Decoded:
    """Decode a block of one input column; `start` is the number of its first row, for messages.

    Raises:
        TransferSetError: a null, a type that is no input, a list that is no rectangle, an image that does not decode.
    """
    array = plain(column)
    if array.null_count:
        raise TransferSetError(
            f"input column {name!r} is null in row {start + first_null(array)}", remedy="fill or filter such rows"
        )
    kind = array.type
    if (
        is_text(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
    ):
        return Decoded(array.to_pylist())
    if is_image(kind):
        return _images(array, name=name, start=start)
    if _is_list(kind):
        return Decoded(_lists(array, name=name, start=start))
    return Decoded(_numbers(array, name=name, start=start))


def plain(column: pa.ChunkedArray) -> pa.Array:
    """One array in its storage type: extension types and dictionaries undone."""
    array = column.combine_chunks()
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def first_null(array: pa.Array) -> int:
    """Number of the first null of an array that has one."""
    return int(np.flatnonzero(pc.is_null(array).to_numpy(zero_copy_only=False))[0])


def is_text(kind: pa.DataType) -> bool:
    """Whether an Arrow type is text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_image(kind: pa.DataType) -> bool:
    """Whether an Arrow type is how `datasets` stores images (and other files): a struct of bytes and path."""
    return bool(pa.types.is_struct(kind)) and {field.name for field in kind} == {"bytes", "path"}


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _numbers(array: pa.Array, *, name: str, start: int) -> Array:
    """Integers, floats or booleans as a flat numpy array of the same dtype."""
    kind = array.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise TransferSetError(
            f"input column {name!r} has type {kind}", remedy="inputs are text, numbers, lists of numbers or images"
        )
    _refuse_inner_null(array, name=name, start=start)
    numbers: Array = array.to_numpy(zero_copy_only=False)
    return numbers


def _refuse_inner_null(array: pa.Array, *, name: str, start: int) -> None:
    if array.null_count:
        raise TransferSetError(
            f"input column {name!r} has a null inside a list at or after row {start}", remedy="fill or filter such rows"
        )


def _lists(array: pa.Array, *, name: str, start: int) -> Array | list[Array]:
    """B lists as one array (B, ...), or as B arrays where their shapes differ."""
    shape, leaf = [len(array)], array
    while _is_list(leaf.type):
        _refuse_inner_null(leaf, name=name, start=start)
        lengths = pc.list_value_length(leaf).to_numpy(zero_copy_only=False)
        if lengths.size and (lengths != lengths[0]).any():
            return _ragged(array, name=name, start=start)
        shape.append(int(lengths[0]) if lengths.size else 0)
        leaf = leaf.flatten()
    return _numbers(leaf, name=name, start=start).reshape(shape)


def _ragged(array: pa.Array, *, name: str, start: int) -> list[Array]:
    """B lists of different shapes, each a rectangle."""
    if len(array) == 1:
        raise TransferSetError(
            f"input column {name!r} has lists of different lengths inside row {start}", remedy="pad them to a rectangle"
        )
    if not _is_list(array.type.value_type):  # token rows: no need to look at each alone
        values = _numbers(array.flatten(), name=name, start=start)
        ends = np.cumsum(pc.list_value_length(array).to_numpy(zero_copy_only=False))
        return np.split(values, ends[:-1])
    return [np.asarray(_lists(array.slice(row, 1), name=name, start=start + row)[0]) for row in range(len(array))]


def _images(array: pa.Array, *, name: str, start: int) -> Decoded:
    """Decode every image of a block; files named by path are read."""
    values: list[Value] = []
    encoded: list[bytes | None] = []
    for row, file in enumerate(array.to_pylist(), start):
        try:
            data = image_bytes(file)
            pixels, lossless = decode_image(data)
        except (OSError, ValueError) as error:
            raise TransferSetError(
                f"input column {name!r}, row {row}: this image does not decode: {error}",
                remedy="mend or filter such rows",
            ) from error
        values.append(pixels)
        encoded.append(None if lossless else data)
    return Decoded(values, encoded)


def image_bytes(file: dict[str, bytes | str | None]) -> bytes:
    """The encoded bytes of one {bytes, path} struct; only local files are opened.

    Raises:
        OSError: the file cannot be read.
        ValueError: there are neither bytes nor a path.
    """
    data, path = file["bytes"], file["path"]
    if isinstance(data, bytes):
        return data
    if not isinstance(path, str):
        raise ValueError("it has neither bytes nor a path")
    return Path(path).read_bytes()
