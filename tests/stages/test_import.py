"""import from the outside: outputs of a gradient-free ensemble and of other programs become stores."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from softlabels.store import open_store
from softlabels.transfer import array_keys
from tests.stages import toy

command: Callable[[list[str]], int] = import_module("softlabels_stages.import").main


def main(words: list[str]) -> int:
    """The command; rows whose split nobody names are those of train."""
    return command(words if any(word.startswith("--split=") for word in words) else [*words, "--split=train"])


def softmax(logits: np.ndarray) -> np.ndarray:
    exp = np.exp(logits - logits.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def test_a_forest_on_the_digits(work: Path) -> None:
    ensemble = pytest.importorskip("sklearn.ensemble")
    datasets = pytest.importorskip("sklearn.datasets")
    digits = datasets.load_digits()
    inputs, labels = digits.data.astype(np.float32), digits.target
    forest = ensemble.RandomForestClassifier(30, random_state=0).fit(inputs[:900], labels[:900])
    probabilities = forest.predict_proba(inputs[900:])
    np.savez("forest.npz", probabilities=probabilities, inputs=inputs[900:], labels=labels[900:])
    assert (
        main(
            [
                "--from=forest.npz",
                "--store=forest",
                "--teacher_name=forest",
                "--inputs=embed",
                "--classes=0,1,2,3,4,5,6,7,8,9",
            ]
        )
        == 0
    )
    store = open_store("forest")
    assert store.class_names == tuple("0123456789")
    assert (probabilities == 0).any()  # classes without a vote stay impossible
    stored = np.exp(store.log_probs(range(store.rows), temperature=1.0))
    assert np.abs(stored - probabilities).max() < 5e-4
    assert ((stored == 0) == (probabilities == 0)).all()
    assert (store.column("label") == labels[900:]).all()
    assert (store.column("input") == inputs[900:]).all()
    assert (store.find(array_keys(inputs[900:905])) == np.arange(5)).all()


@pytest.mark.parametrize("layout", ["zarr", "arrow"])
@pytest.mark.parametrize("kind", ["npz", "npy", "parquet", "list"])
def test_every_kind_of_file_gives_the_same_labels(kind: str, layout: str, work: Path, rng: np.random.Generator) -> None:
    """Rows are those of a recipe's transfer set, in order, where the file does not say."""
    logits = rng.normal(size=(160, 3, 5)).astype(np.float32) * 4
    path = f"outputs.{'parquet' if kind == 'list' else kind}"
    if kind == "npz":
        np.savez(path, logits=logits)
    elif kind == "npy":
        np.save(path, logits)
    else:
        flat = pa.array(logits.reshape(-1))
        fixed = pa.FixedSizeListArray.from_arrays(pa.FixedSizeListArray.from_arrays(flat, 5), 3)
        column = fixed if kind == "parquet" else pa.array(logits.tolist(), pa.list_(pa.list_(pa.float32())))
        pq.write_table(pa.table({"logits": column}), path)
    toy.write_recipe(Path("recipe.yaml"))
    words = [path, "store", "--config=recipe.yaml", "--weights=1,2,3", f"--layout={layout}"]
    assert main(words) == 0
    store = open_store("store")
    assert np.abs(store.column("logits").astype(float) + store.column("shift")[..., None] - logits).max() < 0.02
    assert (store.column("label") == toy.points("train")["label"]).all()
    assert store.member_weights.tolist() == [1 / 6, 2 / 6, 3 / 6]
    assert store.class_names == tuple(toy.NAMES)
    assert store.spec.transfer_set.name == "points"
    assert main(words) == 0  # again: it is sealed, nothing happens


@pytest.mark.parametrize(
    ("arrays", "words", "message"),
    [
        (
            {"probabilities": np.full((4, 5), 0.3)},
            [],
            "row 0, member 0 is no distribution: its values lie between 0.3 and",
        ),
        ({"probabilities": np.array([[0.5, 0.5], [1.5, -0.5]])}, [], "row 1, member 0 is no distribution"),
        ({"logits": np.full((4, 5), np.nan)}, [], "logits are NaN (row 0, member 0)"),
        (
            {"logits": np.ones((4, 5), int)},
            [],
            "logits in outputs.npz is int64 of shape (4, 5); give an array of shape",
        ),
        ({"logits": np.ones((4, 5)), "labels": np.array([0, 1, 2, 9])}, [], "row 3 has the hard label 9, outside"),
        (
            {"logits": np.ones((4, 5)), "labels": np.zeros(3, int)},
            [],
            "labels have the shape (3,), not (4,); give one a row",
        ),
        ({"logits": np.ones((4, 5))}, ["--classes=a,b"], "the outputs have 5 classes and there are 2 class names"),
        ({"logits": np.ones((4, 5))}, ["--weights=1,2"], "(rows, classes) = (4, 5), and there are 2 members"),
        ({"other": np.ones((4, 5)), "more": np.ones(4)}, [], "outputs.npz has other, more, inputs, no logits or"),
    ],
)
def test_outputs_that_are_none(
    arrays: dict[str, np.ndarray], words: list[str], message: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez("outputs.npz", **arrays, inputs=np.arange(8.0).reshape(4, 2))
    assert main(["outputs.npz", "store", *words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not Path("store/manifest.json").exists()


def test_a_pickle_is_not_opened(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("outputs.npy", np.array([{"a": 1}], dtype=object))
    assert main(["outputs.npy", "store"]) == 2
    assert "cannot be read: Object arrays cannot be loaded" in capsys.readouterr().err


def test_a_file_at_an_address_is_refused_as_one(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["s3://bucket/outputs.npy", "store"]) == 2
    assert "an address (s3:) is given where a path of this machine is needed" in capsys.readouterr().err


def test_rows_that_do_not_count_up_to_the_transfer_set(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy.write_recipe(Path("recipe.yaml"))
    np.save("outputs.npy", np.ones((7, 5)))
    assert main(["outputs.npy", "store", "--config=recipe.yaml"]) == 2
    said = capsys.readouterr().err
    assert (
        "outputs.npy has neither inputs nor keys: its rows are taken to be those of the train split of points" in said
    )
    assert "has 7 rows of outputs and the train split of points 160" in said
    assert main(["outputs.npy", "store", "--config=recipe.yaml", "--transfer_set.name="]) == 2
    assert f"of the train split of {toy.__name__}.points" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_probabilities_are_not_taken_for_logits(
    kind: str, work: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    logits = rng.normal(size=(160, 5))
    toy.write_recipe(Path("recipe.yaml"))
    if kind == "npy":
        np.save("outputs.npy", softmax(logits))
    else:
        np.savez("outputs.npz", votes=softmax(logits))
    words = [f"outputs.{kind}", "store", "--config=recipe.yaml"]
    assert main(words) == 2
    assert "are >= 0 and sum to 1, as probabilities do" in capsys.readouterr().err
    assert main([*words, "--kind=probabilities"]) == 0
    stored = np.exp(open_store("store").log_probs(range(160), temperature=1.0))
    assert np.abs(stored - softmax(logits)).max() < 1e-3
    assert main([words[0], "other", *words[2:], "--kind=logits"]) == 0
    stored = np.exp(open_store("other").log_probs(range(160), temperature=1.0))
    assert np.abs(stored - softmax(softmax(logits))).max() < 1e-3


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("changed", ["logits", "labels"])
def test_outputs_of_another_file_are_not_taken_for_those_that_began_a_store(
    work: Path, rng: np.random.Generator, sealed: bool, changed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = {"logits": rng.normal(size=(40, 3)), "labels": rng.integers(0, 3, 40), "inputs": rng.normal(size=(40, 2))}
    np.savez("one.npz", **arrays)  # type: ignore[arg-type]
    np.savez("two.npz", **arrays | {changed: arrays[changed][::-1]})  # type: ignore[arg-type]
    words = ["--store=store", "--transfer_name=rows"]
    assert main([f"--from={work / 'one.npz'}", *words]) == 0
    assert str(work) not in Path("store/plan.json").read_text() + Path("store/manifest.json").read_text()
    if not sealed:
        Path("store/manifest.json").unlink()
    assert main(["--from=two.npz", *words]) == 2
    assert "SpecMismatch: store was begun from other values (outputs " in capsys.readouterr().err
    shutil.copy("one.npz", "moved.npz")
    assert main(["--from=moved.npz", *words]) == 0


def test_a_logarithm_with_other_last_bits_is_the_same_file(
    work: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As that of another machine."""
    np.savez("one.npz", probabilities=softmax(rng.normal(size=(40, 3))), inputs=rng.normal(size=(40, 2)))
    assert main(["--from=one.npz", "--store=store"]) == 0
    log = np.log
    monkeypatch.setattr(np, "log", lambda values: np.nextafter(log(values), 0))
    assert main(["--from=one.npz", "--store=store"]) == 0
    assert main(["--from=one.npz", "--store=store", "--column=probabilities", "--kind=logits"]) == 2
    assert "SpecMismatch: store was begun from other values" in capsys.readouterr().err


def test_splits_that_are_imported_side_by_side_are_one_store(work: Path, rng: np.random.Generator) -> None:
    toy.write_recipe(Path("recipe.yaml"))
    for split in ("train", "test"):
        np.save("outputs.npy", rng.normal(size=(toy.ROWS[split], 5)))
        assert main(["outputs.npy", f"store/{split}", "--config=recipe.yaml", f"--split={split}"]) == 0
    assert Path("store/zarr.json").exists()
    assert "| [train](train/README.md) | 160 |" in Path("store/README.md").read_text()
    np.save("outputs.npy", rng.normal(size=(toy.ROWS["test"], 5)))
    assert main(["outputs.npy", "lone", "--config=recipe.yaml", "--split=test"]) == 0
    assert not Path("zarr.json").exists()
