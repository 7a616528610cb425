"""Out-of-fold labels by commands: train-teacher, teacher-logits, verify, encode, train-student; and what they are for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from softlabels import TransferSetConfig, load_transfer_set, open_store
from softlabels.stream.folds import fold_of
from softlabels_stages import encode, info, teacher_logits, train_student, train_teacher, verify
from softlabels_stages.schema import typed
from tests.stages import toy

FOLDS = 3
NEAREST = {
    "class_path": "sklearn.neighbors.KNeighborsClassifier",
    "init_args": {"n_neighbors": 1},
    "weights": "near.skops",
}
TRAINING = {"epochs": 1, "batch_size": 32, "threads": 1, "device": "cpu", "validation": 0}
RECIPE = "--config=recipe.yaml"


def clean(split: str) -> dict[str, np.ndarray]:
    """The toy's points, some of them twice."""
    found = toy.points(split)
    found["x"][::10], found["label"][::10] = found["x"][3::10], found["label"][3::10]
    return found | {"number": np.arange(len(found["x"]))}


def noisy(split: str) -> dict[str, np.ndarray]:
    """The same, with a third of the training labels wrong."""
    found = clean(split)
    if split == "train":
        wrong = np.random.default_rng(2).random(len(found["label"])) < 1 / 3
        found["label"] = np.where(wrong, (found["label"] + 1) % toy.CLASSES, found["label"])
    return found


def write(*members: dict[str, Any], folds: int | None = FOLDS, **changes: Any) -> None:
    teacher = {"members": list(members), "folds": folds, "batch_size": 32, "floor": "0.01"}
    transfer = toy.recipe()["transfer_set"] | {"factory": {"class_path": f"{__name__}.noisy"}}
    transfer["splits"] = {split: split for split in ("train", "test")}
    changes = {"teacher": teacher, "teacher_training": TRAINING, "transfer_set": transfer} | changes
    toy.write_recipe(Path("recipe.yaml"), **changes)


def right(store: Path | str) -> float:
    """How often the largest training label is the class that the point was drawn from, not the noisy one."""
    found = open_store(store, split="train")
    return float((found.log_probs(range(found.rows), temperature=1.0).argmax(-1) == clean("train")["label"]).mean())


def test_from_training_to_students(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    labels = {"inputs": "embed", "rows_per_shard": 64, "rows_per_chunk": 32}
    write(NEAREST, toy.NET, labels=labels)
    assert train_teacher.main([RECIPE]) == 0
    said = capsys.readouterr().out
    assert "teacher 0, without fold 2 of 3: training sklearn.neighbors.KNeighborsClassifier" in said
    assert "teacher sklearn.neighbors.KNeighborsClassifier: near.fold2of3.skops" in said
    assert train_teacher.main([RECIPE]) == 0
    assert "teacher 1, without fold 0 of 3: net.fold0of3.safetensors exists and is kept" in capsys.readouterr().out

    asked = iter([False] * 5 + [True])
    monkeypatch.setattr(teacher_logits, "should_stop", lambda: next(asked))
    assert teacher_logits.main([RECIPE, "--store=store"]) == 75
    monkeypatch.setattr(teacher_logits, "should_stop", lambda: False)
    assert teacher_logits.main([RECIPE, "--store=store"]) == 0
    assert teacher_logits.main([RECIPE, "--store=again"]) == 0
    store, test = (open_store("store", split=split) for split in ("train", "test"))
    assert store.digest == open_store("again", split="train").digest
    assert (store.spec.folds, "fold" in test.columns) == (FOLDS, False)
    assert store.spec.teacher == test.spec.teacher

    inputs, fold = noisy("train")["x"], fold_of(store.column("content_key"), FOLDS)
    assert (store.column("fold") == fold).all()
    stored = store.column("logits")[:, 0].astype(np.float64)
    for number in range(FOLDS):  # what the file of each fold says, read with nothing of ours
        file = f"near.fold{number}of{FOLDS}.skops"
        fitted = toy.skops().load(file, trusted=toy.skops().get_untrusted_types(file=file))
        assert fitted.n_samples_fit_ == (fold != number).sum()
        log = np.log(0.01 + 0.95 * fitted.predict_proba(inputs[fold == number]))
        assert np.abs(stored[fold == number] - (log - log.max(1, keepdims=True))).max() < 4e-3
    capsys.readouterr()
    assert verify.main(["store", "--against_teacher=recipe.yaml"]) == 0
    assert "train: 160 rows against the live teacher: largest deviation" in capsys.readouterr().out

    assert info.main(["store/train"]) == 0
    assert "teacher, 2 members, float32, out of 3 folds" in capsys.readouterr().out
    assert (
        "float32, 2 members, each row labelled by those of 3 folds that did not see it:"
        in Path("store/train/README.md").read_text()
    )

    assert encode.main(["store", "sparse", "--k=2", "--tail=uniform"]) == 0
    sparse = open_store("sparse", split="train")
    assert sparse.spec.folds == FOLDS
    assert (sparse.column("fold") == fold).all()
    assert train_student.main([RECIPE, "--store=store", "--epochs=1", "--seeds=0"]) == 0


def test_in_sample_labels_of_a_teacher_that_memorises_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Its nearest neighbour of a training row is that row, so it repeats the noisy label; left out, it is a classifier."""
    near = NEAREST | {"init_args": {"n_neighbors": 20, "weights": "distance"}}
    write(near, folds=None)
    assert train_teacher.main([RECIPE]) == 0
    assert teacher_logits.main([RECIPE, "--store=inside"]) == 0
    write(near, folds=5)
    assert train_teacher.main([RECIPE]) == 0
    assert "teacher 0: near.skops exists and is kept" in capsys.readouterr().out
    assert teacher_logits.main([RECIPE, "--store=outside"]) == 0
    inside = open_store("inside", split="train")
    agreement = inside.log_probs(range(160), temperature=1.0).argmax(-1) == inside.column("label")
    assert agreement.mean() > 0.9  # it knows the noise by heart
    assert right("outside") > right("inside") + 0.05
    assert teacher_logits.main([RECIPE, "--store=inside"]) == 2
    assert "OtherWeights" in capsys.readouterr().err


def test_what_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    write(NEAREST, folds=150)
    assert train_teacher.main([RECIPE]) == 2
    said = capsys.readouterr().err
    assert "ConfigError: teacher.folds=150: of 144 distinct training rows with a hard label fold" in said
    assert not Path("near.skops").exists()
    write(NEAREST, folds=2)
    assert train_teacher.main([RECIPE]) == 0
    write(NEAREST, folds=3)  # files of other folds are not taken for these
    assert teacher_logits.main([RECIPE, "--store=store"]) == 2
    assert "there is no file near.fold0of3.skops; train it with" in capsys.readouterr().err


def test_rows_of_one_content_in_two_folds_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """Their keys are ids, which say nothing of what is in them."""
    write(NEAREST, folds=2)
    ids = [RECIPE, "--transfer_set.key=number"]
    assert train_teacher.main(ids) == 0
    said = capsys.readouterr().err
    recipe = yaml.safe_load(Path("recipe.yaml").read_text())["transfer_set"] | {"key": "number"}
    fold = fold_of(load_transfer_set(typed(TransferSetConfig, recipe, where="test"), "train").keys, 2)
    apart = 2 * int((fold[::10] != fold[3::10]).sum())
    line = f"{apart} of 160 training rows have the content of a row of another fold under another key (number)"
    assert apart
    assert line in said
    assert teacher_logits.main([*ids, "--store=store"]) == 0
    assert line in capsys.readouterr().err


def test_weights_that_saw_the_rows_of_their_fold_are_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(NEAREST, folds=2)
    assert train_teacher.main([RECIPE]) == 0
    words = [RECIPE, "--store=store"]
    monkeypatch.setenv("SALT", "a" * 32)  # with it each row has another key, and another fold
    assert teacher_logits.main([*words, "--transfer_set.key_salt=env:SALT"]) == 2
    assert "near.fold0of2.skops saw none of these training rows" in capsys.readouterr().err
    for name in ("near.fold0of2.skops", "near.fold0of2.skops.rows.npy"):
        Path(name).write_bytes(Path(name.replace("fold0", "fold1")).read_bytes())
    assert teacher_logits.main(words) == 2
    said = capsys.readouterr().err
    assert "WeightsError: near.fold0of2.skops saw " in said
    assert "rows of fold 0; delete the weights of all folds" in said
    Path("near.fold0of2.skops.rows.npy").write_bytes(b"no keys")
    assert teacher_logits.main(words) == 2
    assert "near.fold0of2.skops.rows.npy holds no keys of rows" in capsys.readouterr().err
