"""Estimators of scikit-learn as members of a teacher: their logits, their files, and what is refused."""

from __future__ import annotations

import io
import json
import pickle
from importlib import import_module
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from softlabels.errors import ConfigError, WeightsError
from softlabels.models.config import ModelConfig
from softlabels.models.estimator import Estimator, build_member, fit
from softlabels.models.estimator_file import write_estimator
from softlabels.models.weights import weights_digest
from softlabels.store.digest import blake3_hex

CLASSES = 5
FOREST = "sklearn.ensemble.RandomForestClassifier"


def skops() -> Any:
    """Its import takes seconds, and every process that runs tests reads this file."""
    return import_module("skops.io")


class Strange(ClassifierMixin, BaseEstimator):
    """An estimator that is in no package that a recipe of scikit-learn names."""

    def fit(self, inputs: np.ndarray, labels: np.ndarray) -> Strange:
        self.classes_ = np.unique(labels)
        return self

    def predict_proba(self, inputs: np.ndarray) -> np.ndarray:
        return np.full((len(inputs), len(self.classes_)), 1 / len(self.classes_))


class Runs:
    """What a pickle of a stranger may do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("it-ran"),)


def calling(name: str, data: bytes) -> bytes:
    """A skops file in which the attribute `extra` is what a function says when it is called."""
    module, _, function = name.rpartition(".")
    call = {"__module__": module, "__class__": function, "__loader__": "ConstructorFromReduceNode"}
    arguments = {"__module__": "builtins", "__class__": "tuple", "__loader__": "TupleNode", "content": []}
    out = io.BytesIO()
    with ZipFile(io.BytesIO(data)) as old, ZipFile(out, "w") as new:
        for file in old.namelist():
            found = old.read(file)
            if file == "schema.json":
                schema = json.loads(found)
                schema["content"]["content"]["extra"] = call | {"content": arguments}
                found = json.dumps(schema).encode()
            new.writestr(file, found)
    return out.getvalue()


@pytest.fixture
def rows(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Of the classes 0, 2 and 3 of five."""
    inputs = rng.normal(size=(60, 2, 3)).astype(np.float32)
    return inputs, np.array([0, 2, 3])[rng.integers(0, 3, 60)]


def member(path: Path, class_path: str = FOREST, floor: str | None = None, **init_args: object) -> Estimator:
    found = build_member(ModelConfig(class_path, dict(init_args), str(path)), floor=floor)
    assert isinstance(found, Estimator)
    return found


@pytest.mark.parametrize("suffix", ["skops", "joblib"])
def test_logits_are_those_of_the_estimator(suffix: str, rows: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    inputs, labels = rows
    blank = build_member(ModelConfig(FOREST, {"n_estimators": 9, "n_jobs": 2}))
    assert isinstance(blank, Estimator)
    fit(blank, inputs, labels, classes=CLASSES, seed=3)
    assert blank.fitted.n_jobs == 2
    write_estimator(blank.fitted, tmp_path / f"forest.{suffix}")
    same = RandomForestClassifier(9, random_state=3).fit(inputs.reshape(60, 6), labels)
    votes = np.zeros((60, CLASSES))
    votes[:, [0, 2, 3]] = same.predict_proba(inputs.reshape(60, 6))

    found = member(tmp_path / f"forest.{suffix}", n_estimators=9)
    logits = found(torch.from_numpy(inputs))
    assert (logits.dtype, logits.shape) == (torch.float32, (60, CLASSES))
    assert (
        np.abs(np.exp(logits.numpy().astype(float)) - votes).max() < 1e-6
    )  # classes that it was not fitted on are impossible
    assert found.zeros is not None
    assert f"{(votes == 0).mean():.1%} of the probabilities are 0" in found.zeros
    assert found.fitted.n_jobs == 1
    assert weights_digest(found) == blake3_hex((tmp_path / f"forest.{suffix}").read_bytes())

    lifted = member(tmp_path / f"forest.{suffix}", floor="laplace:9", n_estimators=9)
    expected = np.log((9 * votes + 1) / (9 + CLASSES))
    assert np.abs(lifted(torch.from_numpy(inputs)).numpy() - expected).max() < 1e-6
    assert lifted.floor == 1 / (9 + CLASSES)
    assert lifted.zeros is None


def test_the_same_estimator_has_the_same_file(
    rows: tuple[np.ndarray, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever it was written, and wherever its objects were in memory."""
    files, clutter = [], []
    for year in (2001, 2002):
        monkeypatch.setattr("zipfile.time.localtime", lambda *now, year=year: (year, 1, 1, 0, 0, 0))
        blank = build_member(ModelConfig(FOREST, {"n_estimators": 3}))
        assert isinstance(blank, Estimator)
        fit(blank, *rows, classes=CLASSES, seed=3)
        clutter.append(blank)
        write_estimator(blank.fitted, tmp_path / f"{year}.skops")
        files.append((tmp_path / f"{year}.skops").read_bytes())
    assert files[0] == files[1]


def test_a_file_of_somebody_s_own_needs_nothing_of_ours(rows: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    inputs, labels = rows
    fitted = KNeighborsClassifier(3).fit(inputs.reshape(60, 6), labels)
    skops().dump(fitted, tmp_path / "own.skops")
    found = member(tmp_path / "own.skops", "sklearn.neighbors.KNeighborsClassifier")
    assert found.classes == 4  # as many as its labels show
    assert (found(torch.from_numpy(inputs)).argmax(1).numpy() == fitted.predict(inputs.reshape(60, 6))).all()


def test_a_regressor_gives_values(
    rows: tuple[np.ndarray, np.ndarray], tmp_path: Path, rng: np.random.Generator
) -> None:
    inputs = rows[0]
    for width in (1, 3):
        targets = rng.normal(size=(60, width)).astype(np.float32)
        blank = build_member(ModelConfig("sklearn.linear_model.Ridge"))
        assert isinstance(blank, Estimator)
        fit(blank, inputs, targets, classes=0, seed=0)
        write_estimator(blank.fitted, tmp_path / "ridge.skops")
        found = member(tmp_path / "ridge.skops", "sklearn.linear_model.Ridge")
        assert found.target == "values"
        own = Ridge().fit(inputs.reshape(60, 6), targets).predict(inputs.reshape(60, 6)).reshape(60, width)
        assert np.abs(found(torch.from_numpy(inputs)).numpy() - own).max() < 1e-5


def test_an_argument_may_be_an_estimator() -> None:
    scale = {"class_path": "sklearn.preprocessing.StandardScaler"}
    last = {"class_path": "sklearn.neighbors.KNeighborsRegressor", "init_args": {"n_neighbors": 2}}
    found = build_member(ModelConfig("sklearn.pipeline.Pipeline", {"steps": [["scale", scale], ["near", last]]}))
    assert isinstance(found, Estimator)
    assert isinstance(found.fitted["near"], KNeighborsRegressor)
    assert (found.fitted["near"].n_neighbors, found.target) == (2, "values")


def test_types_that_the_recipe_does_not_name_are_refused(
    rows: tuple[np.ndarray, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    forest = RandomForestClassifier(2).fit(rows[0].reshape(60, 6), rows[1])
    forest.extra = Strange()
    skops().dump(forest, "strange.skops")
    with pytest.raises(
        WeightsError, match=r"strange.skops holds types that are not from the packages that the recipe names: tests\."
    ):
        member(Path("strange.skops"), n_estimators=2)
    skops().dump(Strange().fit(*rows), "own.skops")
    assert member(Path("own.skops"), f"{__name__}.Strange").classes == 4  # its package is named
    for name in ("sklearn.utils._testing.check_output", "sklearn.datasets.clear_data_home"):
        Path("call.skops").write_bytes(calling(name, skops().dumps(forest.set_params(verbose=1))))
        with pytest.raises(WeightsError, match=rf"call.skops holds types that are not from .* names: {name}"):
            member(Path("call.skops"), n_estimators=2)
    Path("pickle.skops").write_bytes(pickle.dumps(Runs()))
    with pytest.raises(WeightsError, match=r"pickle.skops is not a complete skops file"):
        member(Path("pickle.skops"))
    assert not Path("it-ran").exists()


def test_what_is_refused(rows: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    inputs, labels = rows
    flat = inputs.reshape(60, 6)
    for name, fitted, class_path, said in [
        ("a.skops", RandomForestClassifier(2), FOREST, "is not fitted"),
        (
            "b.skops",
            RandomForestClassifier(2).fit(flat, labels.astype(str)),
            FOREST,
            "was fitted on the labels '0', '2', '3'",
        ),
        (
            "c.skops",
            RandomForestClassifier(2).fit(flat, labels - 1),
            FOREST,
            r"was fitted on the labels (np.int64\()?-1",
        ),
        ("d.skops", Ridge().fit(flat, labels), FOREST, "holds a Ridge, and .*Forest.* is a RandomForestClassifier"),
        ("e.skops", RandomForestClassifier(2).fit(flat, np.stack([labels, labels], 1)), FOREST, "several labels a row"),
        (
            "f.pt",
            RandomForestClassifier(2),
            FOREST,
            "give a name that ends in .skops, or in .joblib, which is a pickle",
        ),
    ]:
        out = io.BytesIO()
        joblib.dump(fitted, out)
        (tmp_path / name).write_bytes(skops().dumps(fitted) if name.endswith("skops") else out.getvalue())
        with pytest.raises(WeightsError, match=said):
            member(tmp_path / name, class_path)
    with pytest.raises(
        ConfigError, match=r"gives no probabilities .*CalibratedClassifierCV: {estimator: {class_path: sklearn"
    ):
        build_member(ModelConfig("sklearn.svm.LinearSVC"))
    for name in ("preprocessing.StandardScaler", "cluster.KMeans"):
        with pytest.raises(ConfigError, match=f"sklearn.{name} is neither a classifier nor a regressor"):
            build_member(ModelConfig(f"sklearn.{name}"))
    skops().dump(RandomForestClassifier(2).fit(flat, labels), tmp_path / "g.skops")
    with pytest.raises(ConfigError, match=r"cannot take rows of float32 and 5 numbers: X has 5 features"):
        member(tmp_path / "g.skops")(torch.zeros(3, 5))
    with pytest.raises(ConfigError, match=r"teacher.floor=0.3 of 4 classes; give laplace:N"):
        member(tmp_path / "g.skops", floor="0.3")
