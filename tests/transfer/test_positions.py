"""Rows of positions and of several targets: opened, cached, seen one target at a time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from blake3 import blake3

from softlabels.errors import ConfigError, LabelError, OtherLabels, TransferSetError
from softlabels.objects import ObjectSpec
from softlabels.transfer import TransferRows, TransferSetConfig, fill, load_transfer_set
from softlabels.transfer.cache import META, entry_name
from softlabels.transfer.cache_entries import cache_entries
from softlabels.transfer.identity import recipe_digest

COUNTING = """
import numpy as np
def double(rows):
    with open({calls!r}, "a") as file:
        file.write(str(len(rows)) + "\\n")
    return np.stack(rows) * 2
"""
VECTOR = ObjectSpec("softlabels.transfer.vector")
ROWS, MOST, C = 40, 4, 3
TARGETS = {
    "class": "cell",
    "box": {"column": "box", "as": "values"},
    "tags": {"column": "tags", "as": "set", "classes": ["x", "y", "z"]},
}


class Case:
    """40 rows of 1 to 4 positions, each with a class, a box and a set of tags."""

    def __init__(self, folder: Path, functions: Path, rng: np.random.Generator) -> None:
        self.folder, self.calls = folder, folder / "calls"
        functions.write_text(COUNTING.format(calls=str(self.calls)))
        self.prepare = ObjectSpec(f"{functions.stem}.double")
        self.counts = rng.integers(1, MOST + 1, ROWS)
        self.columns = {
            "image": list(rng.integers(0, 256, (ROWS, 2, 2)).astype(np.uint8).tolist()),
            "frames": self.counts,
            "cell": [rng.integers(-1, C, n).tolist() for n in self.counts],
            "box": [rng.random((n, 2)).astype(np.float32).tolist() for n in self.counts],
            "tags": [[[int(t) for t in np.flatnonzero(rng.random(C) < 0.5)] for _ in range(n)] for n in self.counts],
        }
        self.write()

    def write(self, **columns: object) -> None:
        pq.write_table(pa.table(self.columns | columns), self.folder / "rows.parquet")

    def load(self, **settings: object) -> TransferRows:
        given = {"label": TARGETS, "positions": {"most": MOST, "length": "frames"}, "prepare": self.prepare, **settings}
        config = TransferSetConfig(source=str(self.folder / "rows.parquet"), **given)  # type: ignore[arg-type]
        return load_transfer_set(config, "train", cache=self.folder / "cache")

    def times(self) -> int:
        """How many times all rows were prepared; the few that are prepared anew come in smaller batches."""
        return sum(n for n in map(int, self.calls.read_text().split()) if n > 14) // ROWS

    def entry(self) -> Path:
        [folder] = [path for path in (self.folder / "cache").iterdir() if path.is_dir()]
        return folder


@pytest.fixture
def case(tmp_path: Path, functions: Path, rng: np.random.Generator) -> Case:
    return Case(tmp_path, functions, rng)


def check(rows: TransferRows, case: Case) -> None:
    assert {name: (each.dtype.name, each.shape) for name, each in rows.hard.items()} == {
        "class": ("int64", (ROWS, MOST)), "box": ("float32", (ROWS, MOST, 2)), "tags": ("int8", (ROWS, MOST, C)),
    }  # fmt: skip
    for row, count in enumerate(case.counts):
        assert rows.hard["class"][row].tolist() == case.columns["cell"][row] + [-1] * (MOST - count)
        np.testing.assert_array_equal(rows.hard["box"][row, :count], np.float32(case.columns["box"][row]))
        assert np.isnan(rows.hard["box"][row, count:]).all()
        flags = [[int(t in tags) for t in range(C)] for tags in case.columns["tags"][row]]
        assert rows.hard["tags"][row].tolist() == flags + [[-1] * C] * (MOST - count)
        assert rows.mask is not None
        assert rows.mask[row].tolist() == [1] * count + [0] * (MOST - count)


def test_several_targets_share_the_positions_and_are_mapped(case: Case) -> None:
    for rows in (case.load(), case.load()):
        check(rows, case)
        assert (rows.positions, rows.ragged, rows.class_names) == (MOST, True, None)
        assert rows.names_of == {"class": None, "box": None, "tags": tuple("xyz")}
        assert rows.labels.tolist() == [-1] * ROWS  # no target is without a name
        for array in (*rows.hard.values(), rows.mask):
            assert isinstance(array, np.memmap)
            assert not array.flags.writeable
    assert case.times() == 1


def test_one_target_alone_is_rows_of_a_plain_label(case: Case) -> None:
    rows = case.load()
    tags = rows.only("tags")
    np.testing.assert_array_equal(tags.labels, rows.hard["tags"])
    np.testing.assert_array_equal(tags.hard[""], rows.hard["tags"])
    assert (tags.class_names, tags.mask is rows.mask, tags.only("").labels is tags.labels) == (tuple("xyz"), True, True)
    with pytest.raises(ConfigError, match=r"no hard labels of a target 'boxes'; .*label names 'class', 'box', 'tags'"):
        rows.only("boxes")


def test_content_keys_are_of_inputs_alone(case: Case) -> None:
    plain = case.load(label=None, positions=None)
    for other in (case.load(), case.load(label=None, positions=7), case.load(label="box", label_as="values")):
        np.testing.assert_array_equal(other.keys, plain.keys)
        np.testing.assert_array_equal(other.inputs, plain.inputs)
    assert (plain.mask, plain.positions, plain.ragged, plain.labels.shape) == (None, None, False, (ROWS,))


def test_as_many_positions_as_labels(case: Case) -> None:
    check(case.load(positions={"most": MOST}), case)
    case.write(box=[None, *case.columns["box"][1:]], tags=[*case.columns["tags"][:-1], None])
    rows = case.load(positions={"most": MOST})
    assert np.isnan(rows.hard["box"][0]).all()
    assert (rows.hard["tags"][-1] == -1).all()
    assert rows.mask.sum(axis=1).tolist() == case.counts.tolist()


@pytest.mark.parametrize(("kind", "gap"), [(pa.int8(), None), (pa.float32(), float("nan"))], ids=str)
def test_flags_that_are_called_a_set(case: Case, rng: np.random.Generator, kind: pa.DataType, gap: object) -> None:
    """Unless one other list shows them to be ids."""
    tags = [[[*rng.integers(0, 2, C - 1).tolist(), 1] for _ in range(n)] for n in case.counts]
    tags[3] = [None] * case.counts[3]
    tags[4][0][0] = gap
    case.write(tags=pa.array(tags, pa.list_(pa.list_(kind))))
    with pytest.raises(
        TransferSetError, match=r"'tags' is read as a set of class ids, and each .* 3 times 0 or 1.*as: flags"
    ):
        case.load()
    tags[4][0] = [0]
    case.write(tags=pa.array(tags, pa.list_(pa.list_(kind))))
    assert case.load().hard["tags"][4, 0].tolist() == [1, 0, 0]


def test_every_row_has_all_positions(case: Case) -> None:
    case.write(cell=[[0, 1]] * ROWS)
    rows = case.load(label="cell", positions=2, classes=tuple("xyz"))
    assert rows.labels.tolist() == [[0, 1]] * ROWS
    assert (rows.mask.tolist(), rows.ragged, rows.class_names) == ([[1, 1]] * ROWS, False, tuple("xyz"))
    assert not (case.entry() / "mask.npy").exists()
    bare = case.load(label=None, positions=2)
    assert (bare.labels.tolist(), bare.mask.tolist()) == ([[-1, -1]] * ROWS, [[1, 1]] * ROWS)


def test_the_cut_into_blocks_changes_nothing(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fill, "BLOCK_BYTES", 1000)  # 32 of inputs a row, and 4 x (8 + 8 + 3 + 1) of labels and mask
    check(case.load(), case)
    assert case.calls.read_text().split()[:4] == ["16", "8", "8", "8"]


@pytest.mark.parametrize(
    "other",
    [
        {"label_as": "flags"},
        {"positions": {"most": 5, "length": "frames"}},
        {"positions": {"most": MOST}},
        {"label": {"label": "cell"}},
        {"classes": ("x", "y")},
    ],
    ids=["kind", "most", "length", "target", "classes"],
)
def test_another_rule_is_another_entry(case: Case, other: dict[str, object]) -> None:
    case.write(cell=[[label % 2 for label in labels] for labels in case.columns["cell"]])
    first = case.load(label="cell")
    assert case.load(**({"label": "cell"} | other)).hard.keys() == {"label" if "label" in other else ""}
    assert case.times() == 2
    np.testing.assert_array_equal(case.load(label="cell").labels, first.labels)
    assert case.times() == 2  # both are there


@pytest.mark.parametrize("name", ["mask.npy", "labels.box.npy"])
@pytest.mark.parametrize("how", ["flip", "delete", "forge"])
def test_a_damaged_entry_is_made_again(case: Case, name: str, how: str) -> None:
    case.load()
    file = case.entry() / name
    if how == "flip":
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    elif how == "delete":
        file.unlink()
    else:  # by somebody who may write to the cache, and vouches for it
        old = blake3(file.read_bytes()).hexdigest()
        np.save(file, np.zeros((ROWS, MOST), np.int16))
        meta, size = case.entry() / META, file.stat().st_size
        text = meta.read_text().replace(old, blake3(file.read_bytes()).hexdigest())
        at = text.index(f'"name": "{name}"')
        text = text[:at] + text[at:].replace('"bytes": ', f'"bytes": {size}, "was": ', 1)
        meta.write_text(text)
    check(case.load(), case)
    assert case.times() == 2
    assert [entry.rows for entry in cache_entries(case.folder / "cache")] == [ROWS]


def test_entries_of_plain_labels_are_found_by_the_name_that_they_had(case: Case) -> None:
    """So that what an earlier version prepared is used, and is of this recipe."""
    case.write(cell=list(range(ROWS)))
    case.load(label="cell", positions=None)
    meta = json.loads((case.entry() / META).read_text())
    assert meta["identity"]["label"] == "cell"
    assert sorted(meta["identity"]) == [
        "cache_version", "class_names", "files", "images", "init_args", "inputs", "key", "key_rule", "label", "missing",
        "prepare", "prepare_file", "rows", "source", "split", "versions",
    ]  # fmt: skip
    assert case.entry().name == entry_name(meta["identity"])
    assert sorted(file["name"] for file in meta["files"]) == ["inputs.npy", "keys.npy", "labels.npy"]
    shutil.rmtree(case.folder / "cache")
    case.write()
    case.load()
    assert json.loads((case.entry() / META).read_text())["about"]["recipe"] == meta["about"]["recipe"]
    assert (
        recipe_digest(TransferSetConfig(source="a")) == "27a8c429647ff235a36b126b4bba9225"
    )  # as before there were others


@pytest.mark.parametrize(
    ("column", "settings", "words"),
    [
        (
            "tags",
            {"label_as": "set"},
            "label column 'tags' lists classes, and the source does not name all classes; list all of them",
        ),
        (
            "gap",
            {"label_as": "values"},
            "label column 'gap' holds no number in any row, so the size of a label is not known",
        ),
        ("empty", {"label_as": "flags"}, "label column 'empty' holds no number in any row"),
        ("nothing", {"label_as": "values"}, "label column 'nothing' holds no number in any row"),
    ],
)
def test_labels_whose_width_nobody_knows(case: Case, column: str, settings: dict[str, object], words: str) -> None:
    deep = pa.list_(pa.list_(pa.float32()))
    gap, empty = pa.array([None] * ROWS, deep), pa.array([[[]]] * ROWS, deep)
    case.write(gap=gap, empty=empty, nothing=pa.nulls(ROWS))
    with pytest.raises(TransferSetError, match=words):
        case.load(label=column, **settings)


def test_a_width_is_that_of_the_first_label_that_is_there(case: Case) -> None:
    boxes = [[None] * case.counts[0], None, *case.columns["box"][2:]]
    case.write(box=boxes)
    rows = case.load(label="box", label_as="values")
    assert rows.labels.shape == (ROWS, MOST, 2)
    case.write(box=[[[]] * case.counts[0], *case.columns["box"][1:]])
    with pytest.raises(LabelError, match="row 0, position 0 of column 'box' holds 0 numbers, and a label is 2"):
        case.load(label="box", label_as="values")
    case.write()
    named = case.load(label="box", label_as="values", classes=("w", "h"))
    assert named.class_names == ("w", "h")


def test_names_of_classes_inside_lists_are_one_for_all_splits(tmp_path: Path) -> None:
    for split, names in (("train", ["cat", "dog"]), ("test", ["dog", "cat"])):
        features = datasets.Features({"x": datasets.Value("int64"), "cell": [datasets.ClassLabel(names=names)]})
        data = datasets.Dataset.from_dict({"x": [1, 2], "cell": [[0, 1], [1]]}, features=features)
        data.to_parquet(tmp_path / f"{split}.parquet")
    for split in ("train", "test"):
        config = TransferSetConfig(
            source=str(tmp_path),
            inputs=("x",),
            label={"kind": {"column": "cell"}},
            positions={"most": 2},
            prepare=VECTOR,
        )
        with pytest.raises(
            OtherLabels, match=r"class 'cat' of label column 'cell' is number 0 in split train and 1 in"
        ):
            load_transfer_set(config, split)
    (tmp_path / "test.parquet").unlink()
    rows = load_transfer_set(config, "train")
    assert (rows.names_of, rows.hard["kind"].tolist()) == ({"kind": ("cat", "dog")}, [[0, 1], [1, -1]])


def test_boxes_as_an_array_of_datasets(tmp_path: Path, rng: np.random.Generator) -> None:
    boxes = rng.random((3, 2, 4)).astype(np.float32)
    features = datasets.Features({"x": datasets.Value("int64"), "box": datasets.Array2D((2, 4), "float32")})
    datasets.Dataset.from_dict({"x": [1, 2, 3], "box": list(boxes)}, features=features).save_to_disk(tmp_path / "saved")
    config = TransferSetConfig(
        source=str(tmp_path / "saved"), inputs=("x",), label="box", label_as="values", positions=2, prepare=VECTOR
    )
    np.testing.assert_array_equal(load_transfer_set(config, "train").labels, boxes)
