from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from datasets import Array2D, Array3D, Dataset, Features

from softlabels.errors import TransferSetError
from softlabels.transfer.decode import decode


def decoded(*chunks: pa.Array) -> np.ndarray | list[object]:
    return decode(pa.chunked_array(chunks), name="x", start=100).values


def test_numbers_keep_their_dtype_across_chunks(rng: np.random.Generator) -> None:
    for dtype in ("int8", "uint64", "float16", "float64", "bool"):
        values = (rng.standard_normal(7) * 9).astype(dtype)
        found = decoded(pa.array(values[:3]), pa.array(values[3:]))
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, values)


def test_a_slice_of_nested_lists_is_that_slice(rng: np.random.Generator) -> None:
    values = rng.integers(0, 255, (9, 3, 4, 2)).astype(np.uint8)
    for kind in (
        pa.list_(pa.list_(pa.list_(pa.uint8()))),
        pa.large_list(pa.list_(pa.list_(pa.uint8(), 2), 4)),
        pa.list_(pa.list_(pa.list_(pa.uint8(), 2), 4), 3),
    ):
        array = pa.array(values.tolist(), kind)
        np.testing.assert_array_equal(decoded(array.slice(2, 5)), values[2:7])


def test_array_features_of_datasets_are_arrays(rng: np.random.Generator) -> None:
    images, cubes = rng.standard_normal((5, 2, 3)).astype(np.float32), rng.integers(0, 9, (5, 2, 2, 2)).astype(np.int16)
    features = Features({"a": Array2D((2, 3), "float32"), "b": Array3D((2, 2, 2), "int16")})
    data = Dataset.from_dict({"a": list(images), "b": list(cubes)}, features=features).with_format("arrow")[1:4]
    for name, values in (("a", images), ("b", cubes)):
        found = decode(data.column(name), name=name, start=0).values
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, values[1:4])


def test_rows_of_different_shapes_stay_apart(rng: np.random.Generator) -> None:
    rows = [rng.standard_normal(shape) for shape in ((2, 3), (1, 4), (5, 1))]
    found = decoded(pa.array([row.tolist() for row in rows], pa.list_(pa.list_(pa.float64()))))
    for one, row in zip(found, rows, strict=True):
        np.testing.assert_array_equal(one, row)
    lengths = [3, 0, 2]
    flat = decoded(pa.array([list(range(length)) for length in lengths], pa.list_(pa.int32())).slice(1))
    assert [one.tolist() for one in flat] == [[], [0, 1]]


def test_text_and_bytes_are_python_values() -> None:
    assert decoded(pa.array(["a", "ß"])) == ["a", "ß"]
    assert decoded(pa.array([b"a", b"\xff"])) == [b"a", b"\xff"]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (pa.array([1, None]), "null in row 101"),
        (pa.array([[1, None]]), "null inside a list"),
        (pa.array([[[1.0], None]]), "null inside a list"),
        (pa.array([[[1, 2]], [[1, 2], [3]]]), "different lengths inside row 101"),
        (pa.array([{"a": 1}]), "type struct"),
        (pa.array([[["a"]]]), "type string"),
        (pa.array([["a"], ["b", None]]), "null inside a list"),
        (pa.array([0], pa.duration("s")), "type duration"),
        (pa.array([None, None]), "null in row 100"),
    ],
)
def test_what_is_no_input_is_refused(array: pa.Array, words: str) -> None:
    with pytest.raises(TransferSetError, match=words):
        decoded(array)
