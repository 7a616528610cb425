"""Keys against an implementation of the written rule that shares no code with the one under test."""

from __future__ import annotations

import struct

import numpy as np
import pyarrow as pa
import pytest
import xxhash

from softlabels.errors import TransferSetError
from softlabels.transfer.decode import Decoded, decode
from softlabels.transfer.keys import array_keys, content_keys, id_keys


def hashed(*messages: bytes) -> np.ndarray:
    whole = messages[0] if len(messages) == 1 else b"".join(struct.pack("<Q", len(m)) + m for m in messages)
    return np.frombuffer(xxhash.xxh3_128(whole).digest(), np.uint8)


def array_message(value: np.ndarray) -> bytes:
    header = f"{value.dtype}[{','.join(map(str, value.shape))}]".encode() + b"\0"
    codes = {"uint8": "B", "int16": "h", "int64": "q", "float16": "e", "float32": "f", "float64": "d", "bool": "?"}
    return header + struct.pack(f"<{value.size}{codes[str(value.dtype)]}", *value.ravel().tolist())


def keys_of(array: pa.Array) -> np.ndarray:
    return content_keys([decode(pa.chunked_array([array]), name="x", start=0)])


def test_text_counts_as_utf8() -> None:
    texts = ["", "plain", "naïve – 文字 🦆"]
    expected = np.stack([hashed(text.encode()) for text in texts])
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        np.testing.assert_array_equal(keys_of(pa.array(texts).cast(kind)), expected)
    np.testing.assert_array_equal(array_keys(np.array(texts)), expected)
    np.testing.assert_array_equal(array_keys(np.array(texts, object)), expected)
    with pytest.raises(TransferSetError, match=r"inputs of object \[1\] have no content keys"):
        array_keys(np.array([{"a": 1}]))


def test_lists_of_text_count_with_their_number_and_lengths() -> None:
    rows = [["a", "ab", ""], [], ["aab"], ["", "a"]]

    def message(row: list[str]) -> bytes:
        return f"text[{len(row)}]".encode() + b"\0" + b"".join(struct.pack("<Q", len(w)) + w.encode() for w in row)

    expected = np.stack([hashed(message(row)) for row in rows])
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        array = pa.array(rows, pa.list_(kind))
        np.testing.assert_array_equal(keys_of(array), expected)
        np.testing.assert_array_equal(keys_of(array.slice(1)), expected[1:])
    np.testing.assert_array_equal(array_keys(rows), expected)
    alike = [["a", "é"], ["aé", ""]]
    np.testing.assert_array_equal(array_keys(np.array(alike)), keys_of(pa.array(alike)))


@pytest.mark.parametrize("kind", [pa.int32(), pa.int64(), pa.uint32()])
def test_token_rows_count_as_uint32_whatever_their_type(rng: np.random.Generator, kind: pa.DataType) -> None:
    rows = [rng.integers(0, 2**31, length).tolist() for length in (5, 0, 1, 40)]
    expected = np.stack([hashed(struct.pack(f"<{len(row)}I", *row)) for row in rows])
    np.testing.assert_array_equal(keys_of(pa.array(rows, pa.list_(kind))), expected)
    np.testing.assert_array_equal(keys_of(pa.array(rows[:1], pa.list_(kind, 5))), expected[:1])


def test_equally_long_token_rows_have_the_keys_that_they_have_among_others(rng: np.random.Generator) -> None:
    rows = rng.integers(0, 50_000, (6, 9)).tolist()
    ragged = keys_of(pa.array([*rows, [1]], pa.list_(pa.int32())))
    np.testing.assert_array_equal(keys_of(pa.array(rows, pa.list_(pa.int32()))), ragged[:-1])


def test_a_row_with_a_negative_integer_counts_as_an_array() -> None:
    rows = [[1, -2, 3], [4, 5, 6], [7]]
    expected = np.stack([hashed(array_message(np.array(rows[0], np.int16))), *(
        hashed(struct.pack(f"<{len(row)}I", *row)) for row in rows[1:]
    )])  # fmt: skip
    np.testing.assert_array_equal(keys_of(pa.array(rows, pa.list_(pa.int16()))), expected)
    np.testing.assert_array_equal(keys_of(pa.array(rows[:2], pa.list_(pa.int16(), 3))), expected[:2])


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float16", "float32", "float64", "bool"])
@pytest.mark.parametrize("shape", [(), (3, 4), (2, 3, 2)])
def test_arrays_count_with_dtype_and_shape(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> None:
    values = (rng.standard_normal((4, *shape)) * 50).astype(dtype)
    array = pa.array(values.ravel())
    for length in reversed(shape):
        array = pa.FixedSizeListArray.from_arrays(array, length)
    expected = np.stack([hashed(array_message(np.asarray(value))) for value in values])
    np.testing.assert_array_equal(keys_of(array), expected)
    np.testing.assert_array_equal(content_keys([Decoded(list(values))]), expected)


def test_dtype_and_shape_tell_arrays_of_the_same_bytes_apart() -> None:
    zeros = [np.zeros((2, 6), np.uint8), np.zeros((3, 4), np.uint8), np.zeros((2, 6), bool), np.zeros((2, 3), np.int16)]
    assert len(np.unique(content_keys([Decoded(zeros)]), axis=0)) == len(zeros)


@pytest.mark.parametrize("ragged", [False, True])
def test_several_columns_are_framed(rng: np.random.Generator, ragged: bool) -> None:
    numbers = rng.standard_normal(3)
    if ragged:
        second, messages = pa.array(["a", "", "ccc"]), [b"a", b"", b"ccc"]
    else:
        bytes_ = rng.integers(0, 256, (3, 2)).astype(np.uint8)
        second, messages = (
            pa.array(bytes_.tolist(), pa.list_(pa.uint8())),
            [struct.pack("<2I", *row) for row in bytes_.tolist()],
        )
    columns = [decode(pa.chunked_array([array]), name="x", start=0) for array in (pa.array(numbers), second)]
    expected = [
        hashed(array_message(np.asarray(number)), message) for number, message in zip(numbers, messages, strict=True)
    ]
    np.testing.assert_array_equal(content_keys(columns), np.stack(expected))


def test_columns_cannot_lend_each_other_bytes() -> None:
    pairs = [Decoded(["ab", "a", ""]), Decoded(["c", "bc", "abc"])]
    assert len(np.unique(content_keys(pairs), axis=0)) == 3


def test_ids_count_as_text() -> None:
    numbers = [0, 17, -4, 2**40]
    expected = np.stack([hashed(str(number).encode()) for number in numbers])
    for array in (pa.array(numbers), pa.array([str(number) for number in numbers])):
        np.testing.assert_array_equal(id_keys(pa.chunked_array([array]), name="id", start=0), expected)


@pytest.mark.parametrize(
    ("array", "words"),
    [(pa.array(["a", None]), "null in row 11"), (pa.array([0.5, 1.5]), "type double")],
)
def test_ids_that_are_none_are_refused(array: pa.Array, words: str) -> None:
    with pytest.raises(TransferSetError, match=words):
        id_keys(pa.chunked_array([array]), name="id", start=10)
