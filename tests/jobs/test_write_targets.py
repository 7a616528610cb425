"""`write_store` of several targets, of sigmoid and values, and of rows of positions: what is stored, and what is refused before
anything is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softlabels import array_keys, errors, open_store, write_store
from softlabels.store.spec import MemberSpec, TeacherSpec
from softlabels.store.verify import verify

ROWS, P = 40, 6
KEYS = array_keys(np.arange(ROWS))


@pytest.fixture
def detector(rng: np.random.Generator) -> dict[str, Any]:
    """Classes and boxes of anchors, of two members; hard labels of those that count."""
    mask = np.arange(P) < rng.integers(1, P + 1, (ROWS, 1))
    labels = np.where(mask, rng.integers(-1, 3, (ROWS, P)), -1)
    return {
        "logits": {"class": rng.normal(size=(ROWS, P, 2, 3)), "box": rng.normal(size=(ROWS, P, 2, 4))},
        "labels": {"class": labels, "box": np.where(mask[..., None], rng.normal(size=(ROWS, P, 4)), np.nan)},
        "kind": {"box": "values"}, "classes": {"class": ["a", "b", "c"]}, "mask": mask, "keys": KEYS,
    }  # fmt: skip


def test_several_targets_of_positions(tmp_path: Path, detector: dict[str, Any]) -> None:
    store = write_store(tmp_path / "train", **detector, teacher="detector")
    assert (store.targets, store.positions, store.spec.ragged) == (("class", "box"), P, False)
    one, box, counts = store.only("class"), store.only("box"), detector["mask"]
    z = detector["logits"]["class"] / 2
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    p = (p / p.sum(axis=-1, keepdims=True)).mean(axis=2)
    np.testing.assert_allclose(one.probabilities(range(ROWS), temperature=2.0)[counts], p[counts], atol=1e-3)
    np.testing.assert_allclose(
        box.values(range(ROWS))[counts], detector["logits"]["box"].mean(axis=2)[counts], atol=1e-6
    )
    assert one.class_names == ("a", "b", "c")
    np.testing.assert_array_equal(one.column("label"), detector["labels"]["class"])
    np.testing.assert_array_equal(box.column("label"), detector["labels"]["box"].astype(np.float32))
    np.testing.assert_array_equal(store.column("position_mask"), counts)
    assert verify(tmp_path / "train") == []
    again = write_store(tmp_path / "train", **detector, teacher="detector")
    assert again.digest == store.digest
    other = detector["logits"] | {"box": detector["logits"]["box"] + 1}
    with pytest.raises(errors.SpecMismatch, match="begun from other values"):
        write_store(tmp_path / "train", **detector | {"logits": other}, teacher="detector")
    detector["labels"].pop("box")
    with pytest.raises(errors.SpecMismatch, match=r'\(columns: \["box.label"\] here, \[\] in this run\)'):
        write_store(tmp_path / "train", **detector, teacher="detector")
    fewer = {"logits": {"class": detector["logits"]["class"]}, "kind": "softmax"}
    with pytest.raises(
        errors.SpecMismatch, match=r'\(targets: \["class","box"\] here, \["class"\] in this run\); go on'
    ):
        write_store(tmp_path / "train", **detector | fewer, teacher="detector")


def test_rows_of_different_length(tmp_path: Path, detector: dict[str, Any]) -> None:
    """Lists of arrays give what padded arrays and a mask do, and no room is taken by what no row has."""
    lengths = detector["mask"].sum(axis=1)

    def cut(values: np.ndarray) -> list[np.ndarray]:
        return [row[:length] for row, length in zip(values, lengths, strict=True)]

    lists = {name: {key: cut(each) for key, each in detector[name].items()} for name in ("logits", "labels")}
    lists["logits"]["class"] = np.array(lists["logits"]["class"], object)  # as `datasets` gives columns of them
    ragged = write_store(tmp_path / "a" / "train", **detector | lists | {"mask": None}, layout="arrow", positions=P)
    fixed = write_store(tmp_path / "b" / "train", **detector, layout="arrow")
    padded = write_store(tmp_path / "z" / "train", **detector | lists | {"mask": None}, positions=P)
    assert (padded.layout, padded.spec.ragged, padded.content_digest) == ("zarr", False, fixed.content_digest)
    assert (ragged.spec.ragged, fixed.spec.ragged, ragged.positions) == (True, False, P)
    assert ragged.column("positions").tolist() == lengths.tolist()
    for name in fixed.columns:
        assert ragged.column(name).tobytes() == fixed.column(name).tobytes(), name
    assert ragged.manifest.bytes < fixed.manifest.bytes
    longest = write_store(tmp_path / "c" / "train", **detector | lists | {"mask": None}, layout="arrow")
    assert longest.positions == lengths.max()


def test_flags_and_vectors_without_positions(tmp_path: Path, rng: np.random.Generator) -> None:
    z, flags = rng.normal(size=(ROWS, 3)), rng.integers(-1, 2, (ROWS, 3)).astype(float)
    flags[flags < 0] = np.nan
    store = write_store(tmp_path / "a" / "train", z, keys=KEYS, labels=flags, kind="sigmoid", classes=["x", "y", "z"])
    assert (store.targets, store.encoding.kind, store.class_names) == (("",), "sigmoid", ("x", "y", "z"))
    with pytest.raises(errors.LabelError, match=r"label 0\.5 in row 0, class 0 of memory is no whole number"):
        write_store(tmp_path / "b" / "train", z, keys=KEYS, labels=np.full((ROWS, 3), 0.5), kind="sigmoid")
    np.testing.assert_allclose(store.probabilities(range(ROWS), temperature=1.0), 1 / (1 + np.exp(-z)), atol=1e-3)
    np.testing.assert_array_equal(store.column("label"), np.where(np.isnan(flags), -1, flags))
    values = write_store(tmp_path / "b" / "train", z[:, 0], keys=KEYS, kind="values")
    np.testing.assert_allclose(values.values(range(ROWS)), z[:, :1], atol=1e-6)
    assert "label" not in values.columns
    one = write_store(tmp_path / "c" / "train", z, keys=KEYS, labels=rng.integers(0, 3, ROWS), kind="softmax")
    assert open_store(one.path).encoding.kind == "dense"


def changed(**changes: Any) -> Any:
    return lambda given: given | changes


def in_target(what: str, name: str, value: Any) -> Any:
    return lambda given: given | {what: given[what] | {name: value(given[what][name])}}


def at(row: int, value: float) -> Any:
    def change(values: np.ndarray) -> np.ndarray:
        values = values.copy()
        values[row, 0] = value
        return values

    return change


ANCHORS = np.random.default_rng(0).normal(size=(ROWS, 50, 3))
REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "anchors as members": (
        changed(logits=ANCHORS[:, :30], labels=np.zeros((ROWS, 30), int), kind="softmax", classes=None, mask=None),
        errors.UserError,
        r"40 rows of 30 members and 3 classes, and labels of shape \(40, 30\) .*; give positions=N",
    ),
    "many members of nobody": (
        changed(logits=ANCHORS, labels=None, kind="softmax", classes=None, mask=None),
        errors.UserError,
        r"40 rows of 50 members .*give positions=N .*TeacherSpec",
    ),
    "anchors x classes": (
        changed(
            logits=ANCHORS.reshape(ROWS, 150), labels=np.zeros((ROWS, 50), int), kind="softmax", classes=None, mask=None
        ),
        errors.UserError,
        r"1 members and 150 classes, and labels of shape \(40, 50\).*reshape them to \(rows, 50, 3\)",
    ),
    "four axes": (changed(mask=None), errors.LogitsError, r"class: logits .* \(40, 6, 2, 3\); .*give positions=N"),
    "other positions": (
        changed(mask=None, positions=5),
        errors.UserError,
        r"class: logits has the axes \(40, 6, 2, 3\), and 5 positions a row are said; give",
    ),
    "targets with different positions": (
        in_target("logits", "box", lambda z: z[:, :4]),
        errors.UserError,
        r"box: logits has the axes \(40, 4, 2, 4\), and 6 positions a row are said; give",
    ),
    "targets with different rows": (
        in_target("logits", "box", lambda z: z[:30]),
        errors.UserError,
        "different rows: .*'box': 30",
    ),
    "targets with different members": (
        in_target("logits", "box", lambda z: z[:, :, :1]),
        errors.UserError,
        "different members: .*'class': 2, 'box': 1",
    ),
    "a mask that is all false": (
        lambda given: given | {"mask": given["mask"] & (np.arange(ROWS) != 7)[:, None]},
        errors.UserError,
        "row 7: none of its positions",
    ),
    "a mask of numbers": (
        lambda given: given | {"mask": given["mask"] * 2},
        errors.UserError,
        "row 0: the mask of its positions is neither",
    ),
    "a mask of another shape": (
        changed(mask=np.ones((ROWS, 5), int), positions=P),
        errors.UserError,
        r"mask is int64 \(40, 5\), and positions=6",
    ),
    "labels of another length": (
        in_target("labels", "class", lambda y: y[:, :4]),
        errors.UserError,
        r"class: labels have the shape \(40, 4\), not \(40, 6\)",
    ),
    "labels of another kind": (
        in_target("labels", "box", lambda y: y[..., 0]),
        errors.UserError,
        r"box: labels have the shape \(40, 6\), not \(40, 6, 4\)",
    ),
    "a class that is none": (
        in_target("labels", "class", at(7, 3)),
        errors.LabelError,
        "target class: row 7 has the hard label 3 at position 0",
    ),
    "half a class": (
        in_target("labels", "class", lambda y: at(7, 0.5)(y.astype(float))),
        errors.LabelError,
        r"class: label 0.5 in row 7, position 0",
    ),
    "half a box": (
        in_target("labels", "box", lambda y: at(7, np.inf)(y)),
        errors.LabelError,
        "target box: row 7 .*infinite",
    ),
    "NaN boxes": (
        in_target("logits", "box", at(7, np.nan)),
        errors.LogitsError,
        r"NaN .*target box, row 7, position 0, member 0",
    ),
    "flags of sigmoid": (
        changed(kind={"class": "sigmoid", "box": "values"}),
        errors.UserError,
        r"class: labels have the shape",
    ),
    "a kind": (changed(kind={"box": "vectors"}), errors.ConfigError, "no kind 'vectors' .*softmax, sigmoid, values"),
    "a name of no target": (
        changed(kind={"boxes": "values"}),
        errors.UserError,
        "kind name 'boxes', and the logits are of class, box",
    ),
    "labels of no name": (
        lambda given: given | {"labels": given["labels"]["class"]},
        errors.UserError,
        "labels are of no name",
    ),
    "flattened": (
        in_target("logits", "class", lambda z: z[:, :, 0].reshape(ROWS, -1)),
        errors.ConfigError,
        r"and 6 positions a row are said; .*reshape\(40, 6, 3\)",
    ),
    "lists that are not alike": (
        in_target("logits", "class", lambda z: [[[0.0] * (1 + n % 2)] * P for n in range(ROWS)]),
        errors.UserError,
        r"class: logits: no array \(.*inhomogeneous.*; give an array, or lists that are alike",
    ),
    "a mask of lists": (
        lambda given: given | {"mask": [[1] * (1 + n % P) for n in range(ROWS)]},
        errors.UserError,
        "the mask: no array",
    ),
    "a name twice": (changed(classes={"class": ["a", "b", "a"]}), errors.UserError, "class names repeat in classes"),
    "a number of classes": (
        changed(classes={"class": 3}),
        errors.UserError,
        "classes=3; list the names of all classes",
    ),
    "names of classes": (
        changed(classes={"box": ["x"]}),
        errors.ClassMismatch,
        "box: the logits have 4 classes and there are 1 names",
    ),
    "a name that no target may have": (
        lambda given: (
            given | {"logits": {"Box": given["logits"]["box"]}, "kind": "values", "labels": None, "classes": None}
        ),
        errors.ConfigError,
        "'Box' is no name of a target; use a-z, 0-9",
    ),
    "a name that is none": (
        lambda given: given | {"logits": {"": given["logits"]["class"]}},
        errors.UserError,
        "without names of targets",
    ),
    "probabilities": (
        in_target("logits", "class", lambda z: np.full(z.shape, 1 / 3)),
        errors.LogitsError,
        "class: rows 0 to 15, .*are_logits=True",
    ),
    "a label that the mask leaves out": (
        lambda given: given | {"labels": {"class": np.zeros((ROWS, P), int)}},
        errors.UserError,
        "the mask leaves out has a hard label",
    ),
    "a teacher": (
        changed(teacher=TeacherSpec(name="t", precision="", members=(MemberSpec(model="m"),))),
        errors.UserError,
        "the logits have 2 members and the teacher 1",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_leaves_nothing(tmp_path: Path, detector: dict[str, Any], case: str) -> None:
    change, kind, words = REFUSED[case]
    with pytest.raises(kind, match=words):
        write_store(tmp_path / "train", **change(detector))
    assert not (tmp_path / "train" / "commits").exists()


RAGGED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "a length beyond the most": (
        {"positions": 2},
        errors.UserError,
        "row 1 has 3 positions, and positions=2 is the most",
    ),
    "labels of another length": (
        {"labels": [np.zeros(length, int) for length in (1, 2, 2)]},
        errors.UserError,
        "row 1 has 3 positions in logits and 2 in labels",
    ),
    "other rows": ({"labels": [np.zeros(1, int), np.zeros(3, int)]}, errors.UserError, "3 rows in logits, 2 in labels"),
    "rows that differ otherwise": (
        {"logits": [np.zeros((1, 4)), np.zeros((3, 5)), np.zeros((2, 4))]},
        errors.UserError,
        r"row 1 has the shape \(3, 5\), row 0 \(1, 4\)",
    ),
    "a mask that a byte would make 1": (
        {"mask": [np.full(length, 257) for length in (1, 3, 2)]},
        errors.UserError,
        "row 0: the mask of its positions is neither 0 nor 1",
    ),
    "a mask of parts": ({"mask": [np.full(n, 1.7) for n in (1, 3, 2)]}, errors.UserError, "the mask is float64"),
    "a number of positions that no store has": (
        {"positions": 1 << 40},
        errors.UserError,
        "positions=1099511627776; give a whole number from 1 to 1048576",
    ),
    "vectors of complex numbers": (
        {"kind": "values", "labels": [np.zeros((n, 4), complex) for n in (1, 3, 2)]},
        errors.LabelError,
        "labels are complex",
    ),
    "a row of nothing": (
        {"logits": [np.zeros((n, 4)) for n in (1, 0, 2)], "labels": None},
        errors.UserError,
        "row 1: none of its positions counts",
    ),
}


@pytest.mark.parametrize("case", RAGGED)
def test_lists_that_are_refused(tmp_path: Path, rng: np.random.Generator, case: str) -> None:
    changes, kind, words = RAGGED[case]
    lists = {"logits": [rng.normal(size=(n, 4)) for n in (1, 3, 2)], "labels": [np.zeros(n, int) for n in (1, 3, 2)]}
    with pytest.raises(kind, match=words):
        write_store(tmp_path / "train", **{"keys": KEYS[:3], "layout": "arrow"} | lists | changes)
    assert not (tmp_path / "train" / "commits").exists()


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [*(("softmax", each) for each in ("u1", "u8", "?", "U")), ("sigmoid", "u1"), ("sigmoid", "?"), ("values", "i8")],
)
def test_hard_labels_of_lists_in_any_dtype(tmp_path: Path, rng: np.random.Generator, kind: Any, dtype: str) -> None:
    """What stands beyond a row's positions is none, whatever its dtype could hold."""
    counts, classes = (1, 3, 2), ["0", "1"]
    shapes = [(n,) if kind == "softmax" else (n, 2) for n in counts]
    labels = [rng.integers(0, 2, shape).astype(dtype) for shape in shapes]
    logits = [rng.normal(size=(n, 2)) for n in counts]
    store = write_store(
        tmp_path / "train", logits, labels=labels, kind=kind, classes=classes, keys=KEYS[:3], layout="arrow"
    )
    for row, (given, found) in enumerate(zip(labels, store.column("label"), strict=True)):
        np.testing.assert_array_equal(found[: counts[row]], given.astype(found.dtype))
        rest = found[counts[row] :]
        assert (np.isnan(rest) if kind == "values" else rest == -1).all()


@pytest.mark.parametrize("labels", [["a", None, "b", ""], [0, None, 1, None], ["a", float("nan"), "b", None]], ids=str)
def test_no_label_among_others(tmp_path: Path, rng: np.random.Generator, labels: list[Any]) -> None:
    logits = rng.normal(size=(4, 2))
    flat = write_store(tmp_path / "a" / "train", logits, labels=labels, classes=["a", "b"], keys=KEYS[:4])
    lists = {"logits": [logits[:1], logits[1:]], "labels": [labels[:1], labels[1:]]}
    ragged = write_store(tmp_path / "b" / "train", **lists, classes=["a", "b"], keys=KEYS[:2], layout="arrow")
    assert flat.column("label").tolist() == [0, -1, 1, -1]
    assert ragged.column("label").tolist() == [[0, -1, -1], [-1, 1, -1]]


def test_lists_of_one_length_are_filled_up_too(tmp_path: Path, rng: np.random.Generator) -> None:
    """As a split may have where others have rows of several."""
    logits, labels = [rng.normal(size=(2, 3)) for _ in range(4)], [np.ones(2, int) for _ in range(4)]
    store = write_store(
        tmp_path / "train", logits, labels=labels, mask=labels, positions=5, keys=KEYS[:4], layout="arrow"
    )
    assert (store.positions, store.spec.ragged) == (5, True)
    np.testing.assert_array_equal(store.column("positions"), [2] * 4)
    np.testing.assert_array_equal(store.column("label"), [[1, 1, -1, -1, -1]] * 4)
