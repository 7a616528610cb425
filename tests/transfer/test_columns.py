"""Columns inside structs, by a dotted name: as inputs, labels, lengths, ids."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from softlabels.errors import TransferSetError
from softlabels.objects import ObjectSpec
from softlabels.transfer import TransferRows, TransferSetConfig, load_transfer_set
from softlabels.transfer.columns import class_names_at, column_at, feature_at, type_at

OBJECTS = [
    {"id": [7], "bbox": [[1.0, 2.0, 3.0, 4.0]], "category": [2]},
    {"id": [8, 9], "bbox": [[0.5, 0.0, 1.0, 1.0], [5.0, 6.0, 7.0, 8.0]], "category": [0, 1]},
]
AS_LISTS = [[dict(zip(row, values, strict=True)) for values in zip(*row.values(), strict=True)] for row in OBJECTS]
LABEL = {"class": "objects.category", "box": {"column": "objects.bbox", "as": "values"}}


def load(folder: Path, table: pa.Table, **settings: object) -> TransferRows:
    pq.write_table(table, folder / "train.parquet")
    given = {"inputs": ("x",), "label": None, "prepare": ObjectSpec("softlabels.transfer.vector"), **settings}
    return load_transfer_set(TransferSetConfig(source=str(folder), **given), "train")


@pytest.mark.parametrize("objects", [OBJECTS, AS_LISTS], ids=["struct of lists", "list of structs"])
def test_boxes_as_coco_has_them(tmp_path: Path, objects: list[object]) -> None:
    table = pa.table({"x": [1.0, 2.0], "meta": [{"n": 1, "id": "a"}, {"n": 2, "id": "b"}], "objects": objects})
    rows = load(tmp_path, table, label=LABEL, positions={"most": 3, "length": "meta.n"}, key="meta.id")
    assert rows.hard["class"].tolist() == [[2, -1, -1], [0, 1, -1]]
    np.testing.assert_array_equal(rows.hard["box"][1, :2], OBJECTS[1]["bbox"])
    np.testing.assert_array_equal(rows.hard["box"][0, 0], OBJECTS[0]["bbox"][0])
    assert np.isnan(rows.hard["box"][0, 1:]).all()
    assert rows.key == "meta.id"
    inputs = load(tmp_path, table, inputs=("meta.n", "x"))
    assert inputs.inputs.tolist() == [[1, 1], [2, 2]]
    flat = load(tmp_path, pa.table({"n": [1, 2], "x": [1.0, 2.0]}), inputs=("n", "x"))
    np.testing.assert_array_equal(inputs.keys, flat.keys)


def test_a_null_struct_has_null_fields_and_slices_are_right() -> None:
    for objects in (OBJECTS, AS_LISTS):
        table = pa.table({"o": [None, *objects, None, objects[0]]})[1:]
        boxes = [OBJECTS[0]["bbox"], OBJECTS[1]["bbox"], None, OBJECTS[0]["bbox"]]
        assert column_at(table, "o.bbox").to_pylist() == boxes
        assert column_at(table[2:], "o.category").to_pylist() == [None, [2]]


def test_a_name_with_dots_comes_first() -> None:
    table = pa.table({"a.b": [1], "a": [{"b": 2, "c.d": 3}]})
    assert column_at(table, "a.b").to_pylist() == [1]
    assert type_at(table.schema, "a.c.d") is None
    assert type_at(table.schema, "a.b.c") is None
    assert type_at(table.schema, "b") is None
    boxes = pa.table({"o": [AS_LISTS[0]]})
    assert type_at(boxes.schema, "o.bbox") == column_at(boxes, "o.bbox").type == pa.large_list(pa.list_(pa.float64()))


def test_what_datasets_says_of_a_field() -> None:
    names = datasets.ClassLabel(names=["x", "y"])
    features = datasets.Features(
        {
            "o": {"c": datasets.List(names), "n": datasets.Value("int8")},
            "l": datasets.List({"c": names}),
            "t": datasets.Translation(["en"]),
        }
    )
    assert class_names_at(features, "o.c") == class_names_at(features, "l.c") == ("x", "y")
    assert class_names_at(features, "o.n") is None
    assert feature_at(features, "o.d") is feature_at(features, "t.en") is None
    assert type_at(features.arrow_schema, "t.en") == pa.string()


def test_what_is_not_there_is_named_with_what_is(tmp_path: Path) -> None:
    file = {"bytes": b"1", "path": None}
    table = pa.table({"x": [1.0], "image": [file], "objects": [OBJECTS[0]]})
    with pytest.raises(
        TransferSetError, match=r"no column 'objects\.box'; its columns are x, image, objects\.id, objects\.bbox"
    ):
        load(tmp_path, table, label="objects.box")
    assert load(
        tmp_path, table, inputs=("image.bytes",), prepare=ObjectSpec(f"{__name__}.lengths")
    ).inputs.tolist() == [[1]]


def lengths(rows: list[bytes]) -> np.ndarray:
    return np.array([[len(row)] for row in rows])
