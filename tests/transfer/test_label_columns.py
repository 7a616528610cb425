"""Hard labels of all kinds, with positions and without, against plain Python; and each value that is no label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softlabels.errors import LabelError, TransferSetError
from softlabels.transfer.label_columns import LabelReader
from softlabels.transfer.label_config import LabelColumn, RowPositions

C, MOST = 3, 4
NAMES = ("cat", "dog", "owl")
FLOATS = st.floats(-1000, 1000, width=32)
LABELS: dict[str, st.SearchStrategy[Any]] = {
    "class": st.integers(-1, C - 1),
    "set": st.lists(st.integers(0, C - 1), max_size=5),
    "flags": st.lists(st.sampled_from([0, 1, None]), min_size=C, max_size=C),
    "values": st.lists(FLOATS, min_size=C, max_size=C),
}
ITEMS = {
    "class": pa.int16(),
    "set": pa.list_(pa.int64()),
    "flags": pa.list_(pa.int8()),
    "values": pa.list_(pa.float64()),
}
NOTHING = {"class": -1, "set": [-1] * C, "flags": [-1] * C, "values": [np.nan] * C}


def reader(kind: str, positions: RowPositions | None = None, *, names: Sequence[str] | None = NAMES) -> LabelReader:
    column = LabelColumn("", "x", kind)  # type: ignore[arg-type]
    widths = {} if kind == "class" else {"": C}
    return LabelReader((column,), positions, {"": None if names is None else tuple(names)}, widths)


def plainly(kind: str, label: Any) -> Any:
    """A label as it is stored."""
    if label is None:
        return NOTHING[kind]
    if kind == "set":
        return [int(number in label) for number in range(C)]
    return [-1 if flag is None else flag for flag in label] if kind == "flags" else label


@given(data=st.data(), kind=st.sampled_from(sorted(LABELS)), large=st.booleans())
@settings(max_examples=60)
def test_a_label_a_row(data: st.DataObject, kind: str, large: bool) -> None:
    rows = data.draw(st.lists(st.none() | LABELS[kind], min_size=1, max_size=6))
    item = ITEMS[kind]
    item = pa.large_list(item.value_type) if large and kind != "class" else item
    first = data.draw(st.integers(0, len(rows) - 1))
    table = pa.table({"x": pa.array(rows, item)}).slice(first)
    found = reader(kind).read(table, start=first)
    assert list(found) == ["labels"]
    expected = np.array([plainly(kind, label) for label in rows[first:]], found["labels"].dtype)
    np.testing.assert_array_equal(found["labels"], expected)
    dtype, shape = reader(kind).arrays["labels"]
    assert (found["labels"].dtype, found["labels"].shape[1:]) == (dtype, shape)


@given(data=st.data(), kind=st.sampled_from(sorted(LABELS)))
@settings(max_examples=60)
def test_a_label_a_position(data: st.DataObject, kind: str) -> None:
    counts = data.draw(st.lists(st.integers(1, MOST), min_size=1, max_size=5))
    labels = [data.draw(st.none() | st.lists(st.none() | LABELS[kind], min_size=n, max_size=n)) for n in counts]
    table = pa.table({"x": pa.array(labels, pa.list_(ITEMS[kind])), "n": counts})
    first = data.draw(st.integers(0, len(counts) - 1))
    read = reader(kind, RowPositions(MOST, fixed=False, length="n"))
    found = read.read(table.slice(first), start=first)
    assert {name: (array.dtype, array.shape[1:]) for name, array in found.items()} == read.arrays
    for row, (own, count) in enumerate(list(zip(labels, counts, strict=True))[first:]):
        own = [plainly(kind, label) for label in own or [None] * count]
        np.testing.assert_array_equal(found["labels"][row], [*own, *[NOTHING[kind]] * (MOST - count)])
        assert found["mask"][row].tolist() == [1] * count + [0] * (MOST - count)


def test_lists_of_one_length_and_arrays_of_numpy() -> None:
    boxes = np.arange(24, dtype=np.float16).reshape(2, 4, 3)
    inner = pa.FixedSizeListArray.from_arrays(pa.array(boxes.reshape(-1)), 3)
    table = pa.table({"x": pa.FixedSizeListArray.from_arrays(inner, 4)})
    found = reader("values", RowPositions(4, fixed=True)).read(table, start=0)
    assert list(found) == ["labels"]  # every row has all positions
    np.testing.assert_array_equal(found["labels"], boxes.astype(np.float32))
    gap = pa.array([[1, 0, 1], None, [0, 0, 0]], pa.list_(pa.int8(), 3))
    assert reader("flags").read(pa.table({"x": gap})[1:], start=1)["labels"].tolist() == [[-1] * 3, [0] * 3]


def test_names_booleans_and_one_number() -> None:
    sets = pa.array([["owl", "cat"], [], None], pa.list_(pa.string()))
    assert reader("set").read(pa.table({"x": sets}), start=0)["labels"].tolist() == [[1, 0, 1], [0, 0, 0], [-1, -1, -1]]
    frames = pa.array([["dog", None], ["cat"]])
    found = reader("class", RowPositions(2, fixed=False)).read(pa.table({"x": frames}), start=0)
    assert found["labels"].tolist() == [[1, -1], [0, -1]]
    gaps = pa.array([[1.0, float("nan"), 0.0]])
    assert reader("flags").read(pa.table({"x": gaps}), start=0)["labels"].tolist() == [[1, -1, 0]]
    one = LabelReader((LabelColumn("", "x", "flags"),), None, {}, {"": 1})
    assert one.read(pa.table({"x": pa.array([True, None, False])}), start=0)["labels"].tolist() == [[1], [-1], [0]]
    score = LabelReader((LabelColumn("", "x", "values"),), None, {}, {"": 1})
    np.testing.assert_array_equal(score.read(pa.table({"x": pa.array([2, None])}), start=0)["labels"], [[2], [np.nan]])


@pytest.mark.parametrize("kind", sorted(LABELS))
@pytest.mark.parametrize("form", [pa.null(), None])
def test_where_no_row_has_a_label(kind: str, form: pa.DataType | None) -> None:
    table = pa.table({"x": pa.array([None, None], form or pa.list_(ITEMS[kind])), "n": [1, 2]})
    found = reader(kind, RowPositions(2, fixed=False, length="n")).read(table, start=0)
    np.testing.assert_array_equal(found["labels"], [[NOTHING[kind]] * 2] * 2)
    assert found["mask"].tolist() == [[1, 0], [1, 1]]


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        ("set", [[0], [1, 7]], r"label 7 in row 51, item 1 is outside \[-1, 3\); correct column 'x', or name every class"),
        ("set", [[0, -1]], r"column 'x' lists no class in row 50, item 1; a set lists the classes that apply: drop null"),
        ("set", [[], [None]], "lists no class in row 51, item 0"),
        ("set", [["cat", "cow"]], r"'cow' in row 50, item 1 is none .*, cat.*; list it in .*classes, or correct column 'x'"),
        ("set", [["cat", "gnu"], ["cow", "gnu"]], r"'gnu' in row 50, item 1 .*; nor are 'cow'; list them in"),
        ("flags", [[0, 1, None], [0, 2, 1]], "flag 2 of class 1 in row 51 of column 'x' is neither 0 nor 1; write 0, 1"),
        ("flags", [[0, -1, 1]], "flag -1 of class 1 in row 50"),
        ("flags", [[0.5, 1.0, 0.0]], "flag 0.5 of class 0 in row 50"),
        ("flags", [[0, 1, 1], [0, 1]], "row 51 of column 'x' holds 2 numbers, and a label is 3; give .*, .* are as: set"),
        ("flags", [[]], "row 50 of column 'x' holds 0 numbers"),
        ("values", [[0.0, 1.0, 2.0], [0.0, float("nan"), 1.0]], "value 1 in row 51 of column 'x' is nan, and values"),
        ("values", [[0.0, float("inf"), 1.0]], "value 1 in row 50 of column 'x' is inf"),
        ("values", [[0.0, 1e39, 1.0]], r"value 1 in row 50 of column 'x' is 1e\+39, and values are finite numbers of float32"),
        ("values", [[0.0, None, 1.0]], "value 1 in row 50 of column 'x' is null, .*a null in place of the whole vector"),
        ("values", [[0.0, 1.0, 2.0, 3.0]], "row 50 of column 'x' holds 4 numbers, and a label is 3"),
    ],
)  # fmt: skip
def test_what_is_no_label(kind: str, values: list[object], words: str) -> None:
    with pytest.raises(LabelError, match=words):
        reader(kind).read(pa.table({"x": pa.array(values)}), start=50)


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        ("class", [[1, 5]], r"label 5 in row 50, position 1 is outside \[-1, 3\)"),
        ("class", [["cat", "cow"]], "label 'cow' in row 50, position 1 is none"),
        ("class", [[1.0, 0.5]], "label 0.5 of column 'x' in row 50, position 1 is no whole number"),
        ("set", [[[0], [1, 9]]], "label 9 in row 50, position 1, item 1 is outside"),
        ("flags", [[[0, 1, 0], [0, 3, 1]]], "flag 3 of class 1 in row 50, position 1 of column 'x'"),
        ("values", [[[0.0, 1.0, 2.0], [0.0, float("nan"), 1.0]]], "value 1 in row 50, position 1 of column 'x' is nan"),
        (
            "values",
            [[[0.0, 1.0, 2.0], [0.0, 1.0]]],
            "row 50, position 1 of column 'x' holds 2 numbers, and a label is 3",
        ),
    ],
)
def test_a_position_whose_value_is_no_label(kind: str, values: list[object], words: str) -> None:
    with pytest.raises(LabelError, match=words):
        reader(kind, RowPositions(2, fixed=True)).read(pa.table({"x": pa.array(values)}), start=50)


@pytest.mark.parametrize(
    ("kind", "array", "words"),
    [
        (
            "set",
            pa.array([1]),
            "column 'x' has type int64, and its rows are to be lists of classes; name a list column$",
        ),
        (
            "set",
            pa.array(["[0, 1]"]),
            "has type string, .* lists in text, as of a CSV, are none: write Parquet or JSON lines",
        ),
        (
            "flags",
            pa.array(["[0, 1]"]),
            "holds string, .* lists in text, as of a CSV, are none: write Parquet or JSON lines",
        ),
        ("set", pa.array([[True, False]]), "column 'x' lists false and true, .*; say as: flags"),
        ("flags", pa.array([["a", "b", "c"]]), "column 'x' holds string, and these labels are numbers"),
        (
            "values",
            pa.array([[[1.0]] * 3]),
            "holds list<item: double>, and these labels are numbers; .* say transfer_set.positions$",
        ),
        (
            "class",
            pa.array([[1]]),
            "column 'x' has type list<item: int64>; .*say what lists are with positions or label_as",
        ),
    ],
)
def test_a_column_of_another_type(kind: str, array: pa.Array, words: str) -> None:
    with pytest.raises(TransferSetError, match=words):
        reader(kind).read(pa.table({"x": array}), start=50)


def lengths(most: int, length: str | None = "n", *, fixed: bool = False) -> LabelReader:
    columns = (LabelColumn("a", "x"), LabelColumn("b", "y", "values"))
    return LabelReader(columns, RowPositions(most, fixed, length), {}, {"b": 1})


BOTH = {"x": [[0], [0, 1, 2]], "y": [[0.5], [1, 2, 3]]}


@pytest.mark.parametrize(
    ("read", "columns", "words"),
    [
        (lengths(2), {"n": [1, 3]}, "row 51 has 3 positions .length column 'n'., and transfer_set.positions allows 1 to 2"),
        (lengths(3), {"n": [0, 3]}, "row 50 has 0 positions .*allows 1 to 3; filter such rows$"),
        (lengths(3), {"n": [1, -1]}, "row 51 has -1 positions"),
        (lengths(3), {"n": pa.array([1, 2**64 - 1], pa.uint64())}, "row 51 has 18446744073709551615 positions"),
        (lengths(3), {"n": [1, 2]}, r"row 51 has 3 labels in column 'x' and 2 positions \(length column 'n'\); give a label"),
        (lengths(3), {"n": [1.0, 3.0]}, "length column 'n' has type double; name a column of whole numbers"),
        (lengths(3), {"n": [1, None]}, "length column 'n' is null in row 51"),
        (lengths(3), {"n": ["1", "3"]}, "length column 'n' has type string"),
        (lengths(3, None), {"y": [[0.5], [1, 2]]}, r"row 51 has 2 labels in column 'y' and 3 positions \(label column 'x'\)"),
        (lengths(3, None), {"x": [[], [0, 1, 2]]}, "row 50 has 0 positions .label column 'x'."),
        (lengths(3, None), {"x": [[0], None]}, r"row 51 has no list in label column 'x', which says .*positions\.length"),
        (lengths(2, None), {}, "row 51 has 3 positions .label column 'x'., and transfer_set.positions allows 1 to 2"),
        (lengths(3, None, fixed=True), {}, r"row 50 has 1 labels in column 'x' and 3 positions \(tr.*: \{most: 3\}"),
        (lengths(3), {"n": [1, 3], "x": [0, 1]}, "column 'x' has type int64, and its rows are to be lists, a label a position"),
    ],
)  # fmt: skip
def test_rows_whose_positions_do_not_fit(read: LabelReader, columns: dict[str, Any], words: str) -> None:
    with pytest.raises(TransferSetError, match=words):
        read.read(pa.table(BOTH | columns), start=50)


def test_a_mask_without_labels() -> None:
    read = LabelReader((), RowPositions(3, False, "n"), {"": None}, {})
    found = read.read(pa.table({"n": [1, 3]}), start=0)
    assert found["mask"].tolist() == [[1, 0, 0], [1, 1, 1]]
    rows = read.of_rows(found, 2)
    assert rows["labels"].tolist() == [[-1] * 3] * 2
    assert (rows["positions"], rows["ragged"], rows["named"]) == (3, True, {})
