"""`write_store`: the numbers of float64, the digest of an import, checks before anything is written, and resumption."""

from __future__ import annotations

import logging
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softlabels import array_keys, errors, open_store, write_store
from softlabels.store import StoreWriter
from softlabels.store.json_files import read_json
from softlabels.store.paths import MANIFEST
from softlabels.store.records import Manifest
from softlabels.store.spec import MemberSpec, TeacherSpec
from softlabels.store.verify import verify
from softlabels.system.local import LocalFolder

ROWS, MEMBERS, CLASSES = 70, 3, 5
TEACHER = TeacherSpec(
    name="two", precision="bfloat16", members=(MemberSpec(model="a", weight=3), MemberSpec(model="b"))
)


@pytest.fixture
def arrays(rng: np.random.Generator) -> dict[str, Any]:
    """Logits that favour the label, and inputs."""
    labels = rng.integers(-1, CLASSES, ROWS)
    logits = rng.normal(size=(ROWS, MEMBERS, CLASSES))
    logits[np.arange(ROWS), :, labels] += 3 * (labels >= 0)[:, None]
    return {"logits": logits, "inputs": rng.normal(size=(ROWS, 4)).astype(np.float32), "labels": labels}


def digest(path: Path) -> str:
    return read_json(LocalFolder(path), MANIFEST, Manifest).digest


@pytest.mark.parametrize(("layout", "compression"), [("zarr", None), ("zarr", "zstd"), ("arrow", None)])
@pytest.mark.parametrize("members", [None, MEMBERS])
def test_what_is_stored_is_what_was_given(
    tmp_path: Path, arrays: dict[str, Any], layout: str, compression: str | None, members: int | None
) -> None:
    path, names = tmp_path / "noise" / "test", ["a", "b", "c", "d", "e"]
    logits = arrays["logits"] if members else arrays["logits"][:, 0]
    store = write_store(
        path, logits, inputs=arrays["inputs"], labels=arrays["labels"], layout=layout, compression=compression,
        rows_per_shard=32, classes=names, teacher="mine",
    )  # fmt: skip
    z = arrays["logits"][:, : members or 1] / 2.5
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    p = (p / p.sum(axis=-1, keepdims=True)).mean(axis=1)
    np.testing.assert_allclose(np.exp(store.log_probs(range(ROWS), temperature=2.5)), p, atol=1e-3)
    np.testing.assert_array_equal(store.column("input"), arrays["inputs"])
    np.testing.assert_array_equal(store.column("label"), arrays["labels"])
    np.testing.assert_array_equal(store.column("content_key"), array_keys(arrays["inputs"]))
    spec = read_json(LocalFolder(path), MANIFEST, Manifest).spec
    assert (spec.teacher.name, spec.teacher.precision, len(spec.teacher.members)) == ("mine", "float64", members or 1)
    assert (spec.transfer_set.name, spec.transfer_set.split) == ("noise", "test")
    assert (spec.layout, spec.compression, spec.cut.rows_per_shard) == (layout, compression or "none", 32)
    assert spec.label_space.names == tuple(names)
    assert list(verify(path)) == []
    assert "test" in (tmp_path / "noise" / "README.md").read_text()


def test_it_is_the_store_that_import_makes(tmp_path: Path, arrays: dict[str, Any]) -> None:
    np.savez(tmp_path / "noise.npz", **arrays)
    words = [f"--from={tmp_path}/noise.npz", f"--store={tmp_path}/a/train", "--members=3", "--inputs=embed"]
    assert import_module("softlabels_stages.import").main(words) == 0
    write_store(tmp_path / "noise" / "train", **arrays)
    assert digest(tmp_path / "noise" / "train") == digest(tmp_path / "a" / "train")


def test_keys_stand_for_inputs_that_students_bring(tmp_path: Path, arrays: dict[str, Any]) -> None:
    keys, names = array_keys(np.arange(ROWS)), list("abcde")
    own = ["" if label < 0 else names[label] for label in arrays["labels"]]
    store = write_store(tmp_path / "s", arrays["logits"], keys=keys, labels=own, classes=names, split="train")
    assert "input" not in store.columns
    np.testing.assert_array_equal(store.column("content_key"), keys)
    np.testing.assert_array_equal(store.column("label"), arrays["labels"])
    two = write_store(tmp_path / "two" / "train", arrays["logits"][:, :2], keys=keys, teacher=TEACHER)
    p = np.exp(arrays["logits"][:, :2])
    p = (p / p.sum(axis=-1, keepdims=True)).transpose(0, 2, 1) @ [0.75, 0.25]
    np.testing.assert_allclose(np.exp(two.log_probs(range(ROWS), temperature=1.0)), p, atol=1e-3)
    both = write_store(tmp_path / "b" / "train", arrays["logits"], keys=keys, inputs=arrays["inputs"])
    np.testing.assert_array_equal(both.column("content_key"), keys)
    np.testing.assert_array_equal(both.column("input"), arrays["inputs"])
    assert (both.column("label") == -1).all()


def test_the_same_call_goes_on(tmp_path: Path, arrays: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = tmp_path / "whole" / "train", tmp_path / "x" / "whole" / "train"
    write_store(whole, **arrays, rows_per_shard=16)
    real, written = StoreWriter.write_columns, []

    def stopping(self: StoreWriter, shard: int, *given: Any, **options: Any) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(shard)
        real(self, shard, *given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "write_columns", stopping)
        with pytest.raises(KeyboardInterrupt):
            write_store(cut, **arrays, rows_per_shard=16)
    with pytest.raises(errors.UnsealedStore):
        open_store(cut)
    other = arrays | {"logits": arrays["logits"] + 1}
    with pytest.raises(errors.SpecMismatch, match=r"begun from other values .*give the outputs that began it"):
        write_store(cut, **other, rows_per_shard=16)
    write_store(cut, **arrays, rows_per_shard=16)
    assert written == [0, 1]
    assert digest(cut) == digest(whole)
    with pytest.raises(errors.SpecMismatch, match="begun from other values"):
        write_store(whole, **other, rows_per_shard=16)
    before = (whole / MANIFEST).stat().st_mtime_ns
    assert write_store(whole, **arrays, rows_per_shard=16).classes == CLASSES
    assert (whole / MANIFEST).stat().st_mtime_ns == before


def refusals() -> dict[str, tuple[dict[str, Any], type[Exception], str]]:
    """What is changed in the call, and how it is refused."""
    soft = np.full((ROWS, CLASSES), 0.2)
    nan, many = np.zeros((ROWS, CLASSES)), np.zeros((ROWS, 4), np.float32)
    nan[7, 2] = np.nan
    return {
        "probabilities": ({"logits": soft}, errors.LogitsError, "as probabilities do.*log-probabilities.*are_logits=True"),
        "NaN": ({"logits": nan}, errors.LogitsError, r"logits are NaN \(row 7, member 0\)"),
        "axes": ({"logits": np.zeros(ROWS)}, errors.LogitsError, r"logits are float64 of shape \(70,\); give floats of"),
        "integers": ({"logits": np.zeros((ROWS, 3), int)}, errors.LogitsError, "logits are int64"),
        "nothing": ({"logits": np.zeros((0, 3))}, errors.LogitsError, r"of shape \(0, 3\)"),
        "members first": ({"logits": np.zeros((3, ROWS, CLASSES))}, errors.UserError, r"inputs in memory has \(70, 4\) for 3"),
        "one class": ({"logits": np.zeros((ROWS, 1))}, errors.UserError, "1 classes; at least 2"),
        "no rows": ({"inputs": None}, errors.UserError, "it is not known which rows these are; give inputs, or keys"),
        "keys": ({"keys": np.zeros((ROWS, 8), np.uint8)}, errors.UserError, "keys in memory are uint8 .70, 8."),
        "texts": ({"inputs": ["x"] * ROWS, "keys": array_keys(np.arange(ROWS))}, errors.UserError, "cannot be embedded"),
        "a label": ({"labels": np.full(ROWS, CLASSES)}, errors.LabelError, "row 0 has the hard label 5"),
        "half a label": ({"labels": np.full(ROWS, 0.5)}, errors.UserError, "label 0.5 in row 0 of memory"),
        "names": ({"classes": ["a", "b"]}, errors.ClassMismatch, "have 5 classes and there are 2 names"),
        "a teacher": ({"teacher": TEACHER}, errors.UserError, "the logits have 3 members and the teacher 2"),
        "split": ({"path": "mine"}, errors.ConfigError, "mine does not say which split these rows belong to; give split=train"),
        "two splits": ({"split": "test"}, errors.ConfigError, "split=test, and the folder of the store is called train"),
        "layout": ({"layout": "csv"}, errors.UserError, "layout"),
        "zstd": ({"layout": "arrow", "compression": "zstd"}, errors.UserError, "zstd"),
        "a shard": ({"rows_per_shard": 20}, errors.UserError, "rows_per_shard"),
        "equal rows": ({"inputs": many}, errors.ContradictingOutputs, "memory"),
    }  # fmt: skip


@pytest.mark.parametrize("case", refusals())
def test_what_is_refused_leaves_nothing(
    tmp_path: Path, arrays: dict[str, Any], case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changes, kind, message = refusals()[case]
    with pytest.raises(kind, match=message):
        write_store(**({"path": "s/train"} | arrays | changes))
    assert not list(tmp_path.iterdir())


def test_classes_in_another_order(tmp_path: Path, rng: np.random.Generator) -> None:
    labels = rng.integers(0, 3, 300)
    logits = np.eye(3)[(labels + 1) % 3] * 5 + rng.normal(size=(300, 3))
    with pytest.raises(errors.OtherClassOrder):
        write_store(tmp_path / "train", logits, inputs=rng.normal(size=(300, 2)), labels=labels)
    assert not list(tmp_path.iterdir())


def test_who_says_that_they_are_logits_is_believed_and_lines_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inputs = np.arange(40, dtype=np.float32).reshape(20, 2)
    inputs[4, 1] = np.nan
    with caplog.at_level(logging.WARNING):
        store = write_store(tmp_path / "train", np.full((20, 4), 0.25, np.float16), inputs=inputs, are_logits=True)
    assert store.classes == 4
    assert [f"{tmp_path / 'train'}: the inputs of 1 of 20 rows hold NaN" in each for each in caplog.messages] == [True]
