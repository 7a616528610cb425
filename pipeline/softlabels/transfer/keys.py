"""Content keys: 128 bits that say which row this is, whatever file it came from and wherever it stands.

Key rule, version 3, where the recipe names a salt: the key of each row by the rules below (also of an id), 16 bytes, is hashed
by BLAKE3 in its keyed mode, and the first 16 bytes are the row's key. BLAKE3's key is derived from the salt, in its mode for
that, with the context `softlabels content keys, rule 3`. Who does not have the salt cannot tell which row a key is of.

Key rule, version 2. A row in which an input is missing (null) has the XXH3-128 digest, seed 2, of a message that holds for each
column, in the order of the recipe's `inputs`, 2^64 - 1 as little-endian uint64 where it is missing, else what version 1 puts
there for one of several columns. All other rows have the keys of version 1; where no row has a missing input, version 1 it is.

Key rule, version 1. The key of a row is the canonical (big-endian) XXH3-128 digest, seed 0, of its message. The message of one
input column's decoded value (`decode`) is:

- text: its UTF-8 bytes; binary: its bytes;
- a list of n texts: the ASCII header `text[n]`, a zero byte, then of each text its length in bytes as little-endian uint64 and
  its UTF-8 bytes;
- a lossily coded image (JPEG, WebP, AVIF, JPEG 2000, TIFF with lossy compression): its encoded bytes;
- a token row, which is a one-dimensional list of integers that all lie in [0, 2^32), whatever their dtype and whether the
  list type has a fixed length: each value as little-endian uint32;
- everything else that is numeric (a scalar, any other list or array, the values in the file of a losslessly coded image,
  before any conversion of colours): the ASCII header
  `dtype[shape]`, a zero byte, then the values in C order, little-endian, booleans as one byte. `dtype` is numpy's name
  (`uint8`, `float16`, `bool`), `shape` the lengths joined by commas: `uint8[28,28]`, and `float64[]` for a scalar.

With one input column the row's message is the column's. With several, it is for each column, in the order of the recipe's
`inputs`: the length of its message as little-endian uint64, then its message. Column names and hard labels are not hashed.
Where the recipe names an id column instead, the message is the id as UTF-8 text (integers in decimal).

Not here: decoding (`decode`), and joining rows to labels by key (`softlabels.stream`). B rows of a block, R rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from blake3 import blake3
from xxhash import xxh3_128_digest

from softlabels.errors import TransferSetError
from softlabels.transfer.decode import Array, Decoded, Value, first_null, is_text, plain, texts

KEY_RULE, NULLS_RULE, SALTED_RULE = 1, 2, 3
_CONTEXT = "softlabels content keys, rule 3"
_MISSING = b"\xff" * 8
Bytes = npt.NDArray[np.uint8]


def content_keys(columns: Sequence[Decoded]) -> Bytes:
    """Keys (B, 16) uint8 of a block of rows, from its decoded input columns; a missing value is None.

    Example:
        >>> from softlabels.transfer.decode import Decoded
        >>> from softlabels.transfer.keys import content_keys
        >>> content_keys([Decoded(["a text", "another"])]).shape
        (2, 16)
    """
    missing = missing_rows(columns)
    if not missing.any():
        return _whole_keys(columns)
    keys = np.empty((len(missing), 16), np.uint8)
    whole = np.flatnonzero(~missing)
    if whole.size:
        keys[whole] = _whole_keys([column.take(whole) for column in columns])
    for row in np.flatnonzero(missing):
        values = [column.take([int(row)]) for column in columns]
        message = b"".join(_MISSING if value.values[0] is None else _framed_one(value) for value in values)
        keys[row] = np.frombuffer(xxh3_128_digest(message, seed=NULLS_RULE), np.uint8)
    return keys


def missing_rows(columns: Sequence[Decoded]) -> npt.NDArray[np.bool_]:
    """Which of the B rows miss an input."""
    found = np.zeros(len(columns[0].values), bool)
    for column in columns:
        if not isinstance(column.values, np.ndarray):
            found |= np.fromiter((value is None for value in column.values), bool, len(found))
    return found


def _framed_one(column: Decoded) -> bytes:
    """The message of a column of one row, with its length in front."""
    message = bytes(_messages(column)[0])
    return _frame(len(message)) + message


def _whole_keys(columns: Sequence[Decoded]) -> Bytes:
    messages = [_messages(column) for column in columns]
    if len(messages) == 1:
        return _digests(messages[0])
    if all(isinstance(message, np.ndarray) for message in messages):
        return _digests(np.hstack([_framed(np.asarray(message)) for message in messages]))
    parts = [[_frame(len(message)) + bytes(message) for message in column] for column in messages]
    return _digests([b"".join(row) for row in zip(*parts, strict=True)])


def array_keys(*columns: npt.ArrayLike) -> Bytes:
    """Keys (R, 16) uint8 of rows given as arrays, one (R, ...) for each input column: numbers, or text.

    Raises:
        TransferSetError: an array of anything else.

    Example:
        >>> array_keys(inputs).shape
        (200, 16)
    """
    return content_keys([_at_hand(column) for column in columns])


def _at_hand(column: npt.ArrayLike) -> Decoded:
    """A column of numbers, or of text (R,) or lists of texts."""
    rows = column if isinstance(column, list) and all(isinstance(row, list) for row in column) else []
    if rows and all(isinstance(text, str) for row in rows for text in row):
        return Decoded(rows)
    values = np.asarray(column)
    if values.dtype.kind in "biuf":
        return Decoded(values)
    if values.ndim not in (1, 2) or not all(isinstance(value, str) for value in values.flat):
        raise TransferSetError(
            f"inputs of {values.dtype} {list(values.shape)} have no content keys",
            remedy="give arrays of numbers, or of text (rows,) or (rows, texts), or lists of lists of text",
        )
    return Decoded(values.tolist())


def salted_keys(keys: Bytes, salt: bytes) -> Bytes:
    """Keys (R, 16) uint8 by version 3 of the rule, of keys (R, 16) by version 1 or 2.

    Example:
        >>> from softlabels.transfer.keys import salted_keys
        >>> salted_keys(array_keys(inputs), b"a secret of 16 bytes or more").shape
        (200, 16)
    """
    secret = blake3(salt, derive_key_context=_CONTEXT).digest()
    rows = keys.tobytes()
    found = [blake3(rows[start : start + 16], key=secret).digest(16) for start in range(0, len(rows), 16)]
    return np.frombuffer(b"".join(found), np.uint8).reshape(-1, 16)


def id_keys(column: pa.ChunkedArray, *, name: str, start: int) -> Bytes:
    """Keys (B, 16) uint8 of a block of an id column; `start` is the number of its first row, for messages.

    Raises:
        TransferSetError: a null id, or ids that are neither text nor integers.
    """
    array = plain(column)
    if array.null_count:
        raise TransferSetError(
            f"id column {name!r} is null in row {start + first_null(array)}", remedy="give every row an id"
        )
    if not is_text(array.type) and not pa.types.is_integer(array.type):
        raise TransferSetError(f"id column {name!r} has type {array.type}", remedy="ids are text or integers")
    values = (
        texts(array, what=f"id column {name!r}", rows=range(start, start + len(array)))
        if is_text(array.type)
        else array.to_pylist()
    )
    return _digests([str(value).encode() for value in values])


def _digests(messages: Bytes | Sequence[bytes | memoryview]) -> Bytes:
    """XXH3-128 of B messages: the rows of a matrix, or byte strings."""
    if isinstance(messages, np.ndarray):
        rows, width = messages.shape
        flat = np.ascontiguousarray(messages).reshape(-1).data
        messages = [flat[row * width : (row + 1) * width] for row in range(rows)]
    return np.frombuffer(b"".join(map(xxh3_128_digest, messages)), np.uint8).reshape(-1, 16)


def _messages(column: Decoded) -> Bytes | list[bytes]:
    """Messages of one column: a matrix (B, bytes) where all are equally long and made from one array."""
    values = column.values
    if isinstance(values, np.ndarray):
        tokens = _is_token_block(values)
        if tokens or values.ndim != 2 or values.dtype.kind not in "iu":
            return _matrix(values, tokens=tokens)
        return [_message(row) for row in values]
    if column.hashed is None and all(isinstance(value, np.ndarray) and value.ndim == 1 for value in values):
        return _ragged_messages(cast("list[Array]", values))
    hashed = column.hashed or [None] * len(values)
    return [_message(value if own is None else own) for value, own in zip(values, hashed, strict=True)]


def _ragged_messages(values: list[Array]) -> list[bytes]:
    """Messages of one-dimensional rows; token rows all at once."""
    flat = np.concatenate(values)
    if not _is_token_block(flat[None]):
        return [_message(value) for value in values]
    data, ends = flat.astype("<u4").tobytes(), np.cumsum([4 * len(value) for value in values]).tolist()
    return [data[start:end] for start, end in pairwise([0, *ends])]


def _message(value: Value) -> bytes:
    """Message of one decoded value."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    if isinstance(value, list):
        coded = [text.encode() for text in value]
        return f"text[{len(coded)}]\0".encode() + b"".join(_frame(len(text)) + text for text in coded)
    block = np.asarray(value)[None]
    return _matrix(block, tokens=_is_token_block(block)).tobytes()


def _is_token_block(values: Array) -> bool:
    """Whether every row of (B, ...) is one-dimensional and holds integers in [0, 2^32)."""
    if values.ndim != 2 or values.dtype.kind not in "iu":
        return False
    return not values.size or bool(values.min() >= 0 and values.max() < 1 << 32)


def _matrix(values: Array, *, tokens: bool) -> Bytes:
    """Messages (B, bytes) of a block of token rows, or of arrays of one dtype and shape (B, ...)."""
    rows = len(values)
    if tokens:
        return _raw(values.astype("<u4"))
    shape = ",".join(str(length) for length in values.shape[1:])
    header = np.frombuffer(f"{values.dtype.name}[{shape}]\0".encode(), np.uint8)
    return np.hstack(
        [np.broadcast_to(header, (rows, header.size)), _raw(values.astype(values.dtype.newbyteorder("<"), copy=False))]
    )


def _raw(values: Array) -> Bytes:
    """The bytes (B, bytes) of each row of (B, ...), in C order."""
    rows = len(values)
    return (
        np.ascontiguousarray(values).reshape(rows, -1).view(np.uint8) if values.size else np.zeros((rows, 0), np.uint8)
    )


def _frame(length: int) -> bytes:
    return length.to_bytes(8, "little")


def _framed(matrix: Bytes) -> Bytes:
    """A column's messages (B, bytes) with their length in front."""
    frame = np.frombuffer(_frame(matrix.shape[1]), np.uint8)
    return np.hstack([np.broadcast_to(frame, (len(matrix), frame.size)), matrix])
