"""Forests and their like as members of a teacher: fitted by train-teacher, asked by teacher-logits and verify."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.tree import DecisionTreeClassifier
from threadpoolctl import threadpool_info

from softlabels import open_store
from softlabels_stages import teacher_logits, train_teacher, verify
from tests.stages import toy

FOREST = {
    "class_path": "sklearn.ensemble.RandomForestClassifier",
    "init_args": {"n_estimators": 9},
    "weights": "forest.skops",
}
NEAR = {
    "class_path": "sklearn.neighbors.KNeighborsClassifier",
    "init_args": {"n_neighbors": 5},
    "weights": "near.skops",
}
TRAINING = {"epochs": 1, "batch_size": 32, "threads": 1, "device": "cpu", "validation": 0.25, "seed": 4}


class Counted(DecisionTreeClassifier):
    """A tree that says with how many threads it was fitted."""

    def fit(self, *rows: Any) -> Counted:
        threads.append({pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "openmp"})
        return super().fit(*rows)


threads: list[set[int]] = []


def lacking(split: str) -> dict[str, np.ndarray]:
    """The toy's points; no training row is of the last class, and every fifth has no label."""
    found = toy.points(split)
    if split == "train":
        found["label"][found["label"] == toy.CLASSES - 1] = -1
        found["label"][::5] = -1
    return found


def numbers(split: str) -> dict[str, np.ndarray]:
    """The toy's points with two real numbers each."""
    found = toy.points(split)
    return {"x": found["x"], "label": found["x"][:, :2] * 2 + 1}


def prices(split: str) -> dict[str, np.ndarray]:
    """The toy's points with whole numbers that are no classes."""
    found = toy.points(split)
    return {"x": found["x"], "label": np.arange(len(found["x"])) * 1000}


def write(factory: str, *members: dict[str, Any], **changes: Any) -> None:
    teacher = {"members": list(members), "floor": changes.pop("floor", None), "batch_size": 32}
    transfer = toy.recipe()["transfer_set"] | {"factory": {"class_path": f"{__name__}.{factory}"}}
    transfer |= {"splits": {split: split for split in ("train", "test")}} | changes.pop("transfer", {})
    training = changes.pop("training", TRAINING)
    toy.write_recipe(Path("recipe.yaml"), teacher=teacher, teacher_training=training, transfer_set=transfer, **changes)


def test_a_forest_and_a_net_teach_together(capsys: pytest.CaptureFixture[str]) -> None:
    write("lacking", FOREST, NEAR, toy.NET, floor="0.01")
    assert train_teacher.main(["--config=recipe.yaml"]) == 0
    labelled = int((lacking("train")["label"] >= 0).sum())  # validation=0.25 is of the net, of which an epoch is chosen
    said = f"teacher sklearn.neighbors.KNeighborsClassifier: near.skops, fitted on {labelled} rows\n"
    assert said in capsys.readouterr().out
    forest = toy.skops().load("forest.skops", trusted=["sklearn.tree._tree.Tree"])
    assert (forest.classes_.tolist(), forest.random_state) == ([0, 1, 2, 3], 4)
    assert forest.estimators_[0].tree_.weighted_n_node_samples[0] == labelled
    words = ["--config=recipe.yaml", "--store=store"]
    assert teacher_logits.main(words) == 0
    store = open_store("store/test")
    assert store.spec.teacher.floor == 0.01
    assert store.spec.teacher.members[0].model == FOREST["class_path"]
    inputs = toy.points("test")["x"]
    votes = np.pad(forest.predict_proba(inputs), [(0, 0), (0, 1)])  # of no training row was the last class
    stored = store.column("logits")[:, 0].astype(np.float64)
    expected = np.log(0.01 + 0.95 * votes)
    assert np.abs(stored - (expected - expected.max(1, keepdims=True))).max() < 2e-3
    assert verify.main(["store", "--against_teacher=recipe.yaml"]) == 0
    assert "80 rows against the live teacher: largest deviation" in capsys.readouterr().out
    assert teacher_logits.main(words) == 0  # it is sealed
    Path("forest.skops").write_bytes(toy.skops().dumps(forest.set_params(verbose=0)))
    assert verify.main(["store", "--against_teacher=recipe.yaml"]) == 2
    assert "OtherWeights" in capsys.readouterr().err


def test_classes_without_a_vote_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    write("lacking", FOREST)
    assert train_teacher.main(["--config=recipe.yaml"]) == 0
    assert teacher_logits.main(["--config=recipe.yaml", "--store=store"]) == 0
    said = capsys.readouterr().err
    assert "member 0 (sklearn.ensemble.RandomForestClassifier): " in said
    assert "% of the probabilities are 0, in 100.0% of the rows: these classes are impossible (-inf)" in said
    assert "teacher.floor=laplace:N lifts them" in said
    assert (open_store("store/train").column("logits")[:, 0, -1] == -np.inf).all()


def test_a_regressor_s_values(capsys: pytest.CaptureFixture[str]) -> None:
    member = {"class_path": "sklearn.linear_model.LinearRegression", "weights": "line.skops"}
    values = {"label_as": "values", "classes": None}
    write("numbers", member, transfer=values, labels={"kind": "values"})
    assert train_teacher.main(["--config=recipe.yaml"]) == 0
    assert teacher_logits.main(["--config=recipe.yaml", "--store=store"]) == 0
    expected = numbers("test")["label"]
    assert np.abs(open_store("store/test").column("values")[:, 0] - expected).max() < 1e-4
    write("numbers", member, transfer={"label": None})
    assert teacher_logits.main(["--config=recipe.yaml", "--store=other"]) == 2
    assert "LinearRegression is a regressor, and labels are stored of one softmax" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "member", "said"),
    [
        (
            {},
            FOREST | {"weights": "forest.pt"},
            "WeightsError: forest.pt is to hold an estimator of scikit-learn; give a name",
        ),
        (
            {},
            FOREST | {"class_path": "sklearn.linear_model.Ridge", "init_args": {}},
            "is a regressor, and the hard labels of",
        ),
        ({"floor": "0.01"}, toy.NET, "ConfigError: teacher.floor=0.01, and no member gives probabilities"),
    ],
)
def test_what_is_refused(
    change: dict[str, Any], member: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write("lacking", member, **change)
    words = ["--config=recipe.yaml"]
    assert (train_teacher.main(words) or teacher_logits.main([*words, "--store=store"])) != 0
    assert said in capsys.readouterr().err


def test_an_estimator_is_fitted_in_as_many_threads_as_the_recipe_says() -> None:
    member = {"class_path": f"{__name__}.Counted", "weights": "tree.skops"}
    write("lacking", member, training=TRAINING | {"threads": 2})
    assert train_teacher.main(["--config=recipe.yaml"]) == 0
    assert threads == [{2}]


def test_a_number_to_predict_is_not_taken_for_classes(capsys: pytest.CaptureFixture[str]) -> None:
    write("prices", FOREST, transfer={"classes": None})
    assert train_teacher.main(["--config=recipe.yaml"]) == 2
    said = capsys.readouterr().err
    assert re.search(r"hard labels of .* go up to \d+,000: \d+,001 classes, for \d+ training rows", said)
    assert "for a number to predict set transfer_set.label_as: values" in said


def test_few_labelled_rows_of_several_classes_are_enough() -> None:
    for classes in (toy.recipe()["transfer_set"]["classes"], None):  # by name, or by number
        Path("forest.skops").unlink(missing_ok=True)
        write("lacking", FOREST, transfer={"classes": classes}, training=TRAINING | {"hard_label_fraction": 0.02})
        assert train_teacher.main(["--config=recipe.yaml"]) == 0


def test_a_split_that_is_not_there_is_told_before_teachers_are_trained(capsys: pytest.CaptureFixture[str]) -> None:
    found = toy.points("train")
    pd.DataFrame({"x": found["x"][:, 0], "label": found["label"]}).to_csv("one.csv", index=False)
    write("lacking", FOREST, transfer={"factory": None, "source": "one.csv", "inputs": ["x"]})
    assert train_teacher.main(["--config=recipe.yaml"]) == 2
    said = capsys.readouterr()
    assert "one.csv has no split 'test'; its splits are train" in said.err
    assert "training" not in said.out


def test_a_student_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    from softlabels.errors import ConfigError
    from softlabels.models import ModelConfig, build_model

    with pytest.raises(ConfigError, match=r"made a RandomForestClassifier, no torch.nn.Module"):
        build_model(ModelConfig(FOREST["class_path"]))
