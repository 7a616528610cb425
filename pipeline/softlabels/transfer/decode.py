"""Arrow columns as decoded values: what a row's inputs are before anything is prepared, and what its content key is made from.

No hashing (`keys`), no shaping to a model's taste (`prepare`). B rows of a block.

    text (string)                        str
    binary                               bytes
    integer, float, bool                 numpy scalar, dtype as stored
    date, timestamp                      str, ISO 8601 in UTC, no longer than it has to be
    lists, nested or not, `Array2D` ..   numpy array, dtype and shape as stored; a row's lists must make a rectangle
    lists of text                        list of str
    images ({bytes, path} structs)       numpy array, see `images`
    audio and other such files           bytes
    null                                 None, where the recipe lets missing values pass
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from softlabels.errors import TransferSetError
from softlabels.transfer.images import decode_image

Array = npt.NDArray[np.generic]
Value = Array | np.generic | str | bytes | list[str] | None
Rows = Sequence[int]  # the numbers of a block's rows, for messages


class Places(Protocol):
    """Where each of several values stands, for messages: `row {places[n]}`; the numbers of rows, or `7, position 3`."""

    def __getitem__(self, number: int, /) -> object:
        """Of one value."""


@dataclass(frozen=True)
class Decoded:
    """One column of a block.

    Attributes:
        values: array (B, ...) where all rows share dtype and shape, else B values.
        hashed: of images: what the key of each is made from: the encoded bytes of a lossily coded one, else the values in the
            file, which are not `values` where colours were converted.

    Example:
        >>> from softlabels.transfer.decode import Decoded
        >>> len(Decoded(["a text", None]).values)  # None: missing
        2
    """

    values: Array | Sequence[Value]
    hashed: Sequence[bytes | Array | None] | None = None

    def rows(self) -> list[Value]:
        """The B values, one an element."""
        return list(self.values)

    def nbytes(self) -> int:
        """Bytes of the values (of text: its characters)."""
        if isinstance(self.values, np.ndarray):
            return self.values.nbytes
        flat = (part for v in self.values for part in (v if isinstance(v, list) else (v,)))
        return sum(len(v) if isinstance(v, str | bytes) else getattr(v, "nbytes", 0) for v in flat)

    def take(self, rows: Iterable[int]) -> Decoded:
        """These rows of the block."""
        chosen = list(rows)
        if isinstance(self.values, np.ndarray):
            return Decoded(self.values[chosen])
        hashed = self.hashed
        return Decoded([self.values[r] for r in chosen], None if hashed is None else [hashed[r] for r in chosen])


def decode(column: pa.ChunkedArray, *, name: str, start: int, images: bool = True, missing: bool = False) -> Decoded:
    """Decode a block of one input column; `start` is the number of its first row, for messages.

    Args:
        column: the block.
        name: of the column, for messages.
        start: number of its first row.
        images: what files are, {bytes, path} structs: images, else bytes.
        missing: whether a null is None, else it is refused.

    Raises:
        TransferSetError: a null, a type that is no input, a list that is no rectangle, text that is not UTF-8, an image that
            does not decode.
    """
    array = plain(column)
    if not array.null_count:
        return _present(array, name=name, rows=range(start, start + len(array)), images=images)
    if not missing:
        raise TransferSetError(
            f"input column {name!r} is null in row {start + first_null(array)}",
            remedy="fill or filter such rows, or set transfer_set.missing: pass, and prepare gets None there (of a CSV, empty "
            "fields and words such as NA, None and null are read as nulls)",
        )
    is_there = array.is_valid().to_numpy(zero_copy_only=False)
    if not is_there.any():
        return Decoded([None] * len(array))
    places = start + np.flatnonzero(is_there)
    found = _present(array.drop_null(), name=name, rows=places.tolist(), images=images)
    values, hashed = iter(found.rows()), None if found.hashed is None else iter(found.hashed)
    return Decoded(
        [next(values) if there else None for there in is_there],
        None if hashed is None else [next(hashed) if there else None for there in is_there],
    )


def _present(array: pa.Array, *, name: str, rows: Rows, images: bool) -> Decoded:
    """Decode an array without nulls."""
    kind = array.type
    if is_text(kind):
        return Decoded(texts(array, what=f"input column {name!r}", rows=rows))
    if is_temporal(kind):
        return Decoded(np.datetime_as_string(array.to_numpy(zero_copy_only=False), unit="auto").tolist())
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return Decoded(array.to_pylist())
    if is_file(kind):
        return _files(array, name=name, rows=rows, images=images)
    if is_list(kind) and is_text(storage(leaf := array.flatten()).type):
        return Decoded(_text_lists(array, storage(leaf), name=name, rows=rows))
    if is_list(kind):
        return Decoded(_lists(array, name=name, rows=rows))
    return Decoded(_numbers(array, name=name, rows=rows))


def plain(column: pa.ChunkedArray) -> pa.Array:
    """One array in its storage type."""
    return storage(column.combine_chunks())


def storage(array: pa.Array) -> pa.Array:
    """An array in its storage type: extension types and dictionaries undone."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def first_null(array: pa.Array) -> int:
    """Number of the first null of an array that has one."""
    return int(np.flatnonzero(pc.is_null(array).to_numpy(zero_copy_only=False))[0])


def is_text(kind: pa.DataType) -> bool:
    """Whether an Arrow type is text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_temporal(kind: pa.DataType) -> bool:
    """Whether an Arrow type is a date or a timestamp."""
    return bool(pa.types.is_date(kind) or pa.types.is_timestamp(kind))


def texts(array: pa.Array, *, what: str, rows: Places) -> list[str | None]:
    """A text array as Python's strings; `what` and the places of its `rows` are for messages.

    Raises:
        TransferSetError: bytes that are not UTF-8, which Arrow's readers do not look for.
    """
    try:
        found: list[str | None] = array.to_pylist()
    except UnicodeDecodeError:
        raw = enumerate(array.cast(pa.large_binary()).to_pylist())
        row = next(row for row, data in raw if data and data.decode(errors="replace").encode() != data)
        raise TransferSetError(
            f"{what}, row {rows[row]}: this text is not UTF-8",
            remedy="write the file again with its texts in UTF-8, or filter such rows",
        ) from None
    return found


def is_file(kind: pa.DataType) -> bool:
    """Whether an Arrow type is how `datasets` stores images, audio and other files: a struct of bytes and path."""
    return bool(pa.types.is_struct(kind)) and {field.name for field in kind} == {"bytes", "path"}


def is_list(kind: pa.DataType) -> bool:
    """Whether an Arrow type is a list of any kind."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _numbers(array: pa.Array, *, name: str, rows: Rows) -> Array:
    """Integers, floats or booleans as a flat numpy array of the same dtype."""
    kind = array.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise TransferSetError(
            f"input column {name!r} has type {kind}",
            remedy="inputs are text, numbers, dates, lists of text or numbers, images or other files; write durations and "
            "decimals as text or numbers, and lists of lists of text as lists of text",
        )
    _refuse_inner_null(array, name=name, rows=rows)
    numbers: Array = array.to_numpy(zero_copy_only=False)
    return numbers


def _refuse_inner_null(array: pa.Array, *, name: str, rows: Rows) -> None:
    if array.null_count:
        raise TransferSetError(
            f"input column {name!r} has a null inside a list at or after row {rows[0]}",
            remedy="fill or filter such rows",
        )


def _lists(array: pa.Array, *, name: str, rows: Rows) -> Array | list[Array]:
    """B lists as one array (B, ...), or as B arrays where their shapes differ."""
    shape, leaf = [len(array)], array
    while is_list(leaf.type):
        _refuse_inner_null(leaf, name=name, rows=rows)
        lengths = pc.list_value_length(leaf).to_numpy(zero_copy_only=False)
        if lengths.size and (lengths != lengths[0]).any():
            return _ragged(array, name=name, rows=rows)
        shape.append(int(lengths[0]) if lengths.size else 0)
        leaf = leaf.flatten()
    return _numbers(leaf, name=name, rows=rows).reshape(shape)


def _text_lists(array: pa.Array, leaf: pa.Array, *, name: str, rows: Rows) -> list[list[str]]:
    """B lists of text of any lengths; `leaf` is all of it."""
    _refuse_inner_null(leaf, name=name, rows=rows)
    places = np.asarray(rows)[pc.list_parent_indices(array).to_numpy(zero_copy_only=False)]
    found = cast("list[str]", texts(leaf, what=f"input column {name!r}", rows=places))
    ends = np.cumsum(pc.list_value_length(array).to_numpy(zero_copy_only=False)).tolist()
    return [found[start:end] for start, end in pairwise([0, *ends])]


def _ragged(array: pa.Array, *, name: str, rows: Rows) -> list[Array]:
    """B lists of different shapes, each a rectangle."""
    if len(array) == 1:
        raise TransferSetError(
            f"input column {name!r} has lists of different lengths inside row {rows[0]}",
            remedy="pad them to a rectangle",
        )
    if not is_list(array.type.value_type):  # token rows: no need to look at each alone
        values = _numbers(array.flatten(), name=name, rows=rows)
        ends = np.cumsum(pc.list_value_length(array).to_numpy(zero_copy_only=False))
        return np.split(values, ends[:-1])
    return [
        np.asarray(_lists(array.slice(row, 1), name=name, rows=rows[row : row + 1])[0]) for row in range(len(array))
    ]


def _files(array: pa.Array, *, name: str, rows: Rows, images: bool) -> Decoded:
    """Every file of a block, images decoded, others as they are; those named by path are read."""
    values: list[Value] = []
    hashed: list[bytes | Array | None] = []
    for row, file in zip(rows, array.to_pylist(), strict=True):
        try:
            data = file_bytes(file)
            value, coded = decode_image(data) if images else (data, None)
        except (OSError, ValueError) as error:
            what = "this image does not decode" if images else "this file cannot be read"
            where = "" if file["path"] is None else f" ({file['path']})"
            raise TransferSetError(
                f"input column {name!r}, row {row}{where}: {what}: {error}", remedy="correct or filter such rows"
            ) from error
        values.append(value)
        hashed.append(data if coded is None else coded)
    return Decoded(values, hashed if images else None)


def file_bytes(file: dict[str, bytes | str | None]) -> bytes:
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
