"""Students of several targets by name, from one store by `train`: against plain torch, with losses, weights and outputs of
their own; and what is refused before training.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from softlabels.errors import ClassMismatch, ConfigError
from softlabels.jobs.judge import judge
from softlabels.jobs.splits import open_splits, training_batches
from softlabels.jobs.train import Run, train
from softlabels.jobs.watch import Watch
from softlabels.labels.encoding import DenseEncoding, ValuesEncoding
from softlabels.models import ModelConfig, build_model
from softlabels.stream import EmbeddedRows, Loader
from softlabels.student.learner import Student
from softlabels.student.sweep import StudentTraining
from softlabels_stages import evaluate
from tests.jobs.targets import Case, Taught, made, plain_training, rows_of, weights_of, write
from tests.jobs.test_targets import BATCH, EPOCHS, LR, SGD, bits, stopped

DETECTOR = Case({"class": "softmax", "box": "values", "tag": "sigmoid"}, "fixed")
CLASSIFIER = Case({"class": "softmax", "embedding": "values"})
HEADS = ModelConfig("tests.jobs.targets.Heads", {"outputs": {"class": 4, "box": 2, "tag": 3}})
QUIET = Watch(lambda line: None, lambda line: None)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Anchors with a class, a box and tags."""
    return write(tmp_path_factory.mktemp("several") / "store", DETECTOR)


def training(**changes: Any) -> StudentTraining:
    given: dict[str, Any] = {
        "alpha": 0.5, "epochs": EPOCHS, "batch_size": BATCH, "optimizer": SGD, "validation": 0.0, "threads": 1,
        "device": "cpu", "baseline": False, "keep": "last",
    }  # fmt: skip
    return StudentTraining(**given | changes)


def go(out: Path, store: Path, settings: StudentTraining, model: ModelConfig = HEADS, watch: Watch = QUIET) -> Run:
    return train(model, store, settings, out=out, watch=watch)


def check(
    run: Run, store: Path, settings: StudentTraining, taught: dict[str, Taught], model: ModelConfig = HEADS
) -> None:
    """The weights are those of plain torch."""
    opened = rows_of(store)
    loader = Loader(EmbeddedRows(opened), opened, batch_size=BATCH, seed=0)
    net = Student.begin("", settings.of(settings.variants[0], 0), lambda: build_model(model)).model
    plain_training(net, opened, loader, taught, epochs=EPOCHS, lr=LR)
    for name, tensor in net.state_dict().items():
        ours = weights_of(run.path / "distilled-seed0")[name]
        torch.testing.assert_close(ours, tensor, rtol=2e-4, atol=2e-5)


def test_three_targets_with_the_usual_losses(tmp_path: Path, store: Path) -> None:
    settings = training()
    run = go(tmp_path / "run", store, settings)
    check(run, store, settings, {"class": Taught("forward_kl"), "box": Taught("mse"), "tag": Taught("bce")})
    [scores] = run.results["students"][0]["scores"]
    assert {name: {"errors", "mse", "map"} & each.keys() for name, each in scores["targets"].items()} == {
        "class": {"errors"}, "box": {"mse"}, "tag": {"map"},
    }  # fmt: skip
    assert run.results["targets"]["class"]["temperatures"] == [1.0, 4.0]
    assert run.results["students"][0]["targets"]["box"] == {"alpha": 0.5, "loss": "mse", "weight": 1.0}
    teacher = run.results["teacher"]
    assert teacher["ensemble"][0]["targets"]["class"]["agreement"] == 1
    assert len(teacher["members"]) == 2
    own = ModelConfig(HEADS.class_path, HEADS.init_args, str(run.path / "distilled-seed0" / "weights.safetensors"))
    again = judge(store, own, training=settings)["student"]
    assert again["targets"]["box"] == scores["targets"]["box"]
    assert {*judge(store, training=settings)} == {"teacher 0: two", "teacher 1: two", "ensemble"}


def test_losses_weights_and_outputs_of_their_own_and_a_target_left_out(tmp_path: Path, store: Path) -> None:
    model = ModelConfig(HEADS.class_path, {"outputs": {"class": 4, "regression": 2, "unused": 9}})
    own = {
        "class": {"temperature": 2, "hard_weight": 0.1, "soft_weight": 0.9},
        "box": {"loss": "huber", "loss_args": {"delta": 1.0}, "weight": 3, "output": "regression"},
        "tag": {"weight": 0},
    }  # fmt: skip
    settings = training(targets=own)
    run = go(tmp_path / "run", store, settings, model)
    taught = {"class": Taught("forward_kl", 0.1, 0.9, 2.0), "box": Taught("huber", weight=3.0)}
    opened = rows_of(store)
    net = Student.begin("", settings.of(settings.variants[0], 0), lambda: build_model(model)).model
    forward = net.forward
    net.forward = lambda inputs: {"class": (found := forward(inputs))["class"], "box": found["regression"]}  # type: ignore[method-assign]
    loader = Loader(EmbeddedRows(opened), opened, batch_size=BATCH, seed=0)
    plain_training(net, opened, loader, taught, epochs=EPOCHS, lr=LR)
    for name, tensor in net.state_dict().items():
        ours = weights_of(run.path / "distilled-seed0")[name]
        torch.testing.assert_close(ours, tensor, rtol=2e-4, atol=2e-5)
    [scores] = run.results["students"][0]["scores"]
    assert [*scores["targets"]] == ["class", "box"]


def test_a_student_of_one_tensor_meets_the_target_that_is_named(tmp_path: Path, store: Path) -> None:
    model = ModelConfig("tests.jobs.targets.Net", {"outputs": 2})
    settings = training(targets={"box": {"loss": "cosine"}})
    run = go(tmp_path / "run", store, settings, model)
    check(run, store, settings, {"box": Taught("cosine")}, model)
    [scores] = run.results["students"][0]["scores"]
    assert [*scores["targets"]] == ["box"]
    for targets in ({}, {"box": {}, "class": {}}):
        with pytest.raises(ClassMismatch, match="the model gives one tensor, and is taught class, box, tag"):
            go(tmp_path / "none", store, training(targets=targets), model)


def test_stopped_resumed_cut_and_side_by_side(tmp_path: Path, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = {"box": {"loss": "huber", "weight": 2, "alpha": "linear:1:0.5"}}
    settings = training(targets=own, seeds=(0, 1), validation=0.2, baseline=True, temperature=(1.0, 4.0))
    whole = go(tmp_path / "whole", store, settings)
    assert len(bits(whole.path)) == 6
    again = stopped(tmp_path / "stopped", lambda out, watch: go(out, store, settings, watch=watch))
    assert bits(again.path) == bits(whole.path)
    assert again.results == whole.results
    capsys.readouterr()
    assert evaluate.main([str(whole.path / "distilled-T=4-seed0"), "--trust", "--json"]) == 0  # at its own temperature
    assert [*json.loads(capsys.readouterr().out)["targets"]["class"]["kl"]] == ["1", "4"]
    alone = go(tmp_path / "alone", store, training(targets=own, seeds=(1,), validation=0.2, temperature=4.0))
    assert bits(alone.path)[0] in bits(whole.path)
    cut = go(tmp_path / "cut", store, training(targets=own, validation=0.2, temperature=4.0, micro_batch=7))
    for name, tensor in weights_of(cut.path / "distilled-seed0").items():
        wanted = weights_of(whole.path / "distilled-T=4-seed0")[name]
        torch.testing.assert_close(tensor, wanted, rtol=2e-4, atol=2e-5)


def test_a_student_without_soft_labels_is_the_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And not trained twice; of the targets it learns those that have hard labels."""
    rows = {split: made(CLASSIFIER, split) for split in ("train", "test")}
    for each in rows.values():
        each.labels["embedding"][:] = np.nan
    store, said = write(tmp_path / "store", CLASSIFIER, rows), list[str]()
    model = ModelConfig(HEADS.class_path, {"outputs": {"class": 4, "embedding": 2}})
    watch = Watch(said.append, said.append)
    none = go(tmp_path / "none", store, training(alpha=0.0, baseline=True), model, watch)
    assert "alpha=0 (soft_weight=0) learns from hard labels alone: that student is trained once, as hard" in said
    assert [student["kind"] for student in none.results["students"]] == ["hard"]
    assert [*none.results["targets"]] == ["class"]
    capsys.readouterr()
    assert evaluate.main([str(none.path / "hard-seed0"), "--trust", "--json"]) == 0
    assert [*json.loads(capsys.readouterr().out)["targets"]] == ["class"]
    card = (none.path / "README.md").read_text()
    assert "teacher's mistakes" not in card
    swept = go(tmp_path / "swept", store, training(alpha=(0.0, 1.0), baseline=True), model)
    assert [student["label"] for student in swept.results["students"]] == ["hard", "distilled, alpha=1"]
    assert [*swept.results["targets"]] == ["class", "embedding"]
    assert evaluate.main([str(swept.path / "hard-seed0"), "--trust", "--json"]) == 0
    assert [*json.loads(capsys.readouterr().out)["targets"]] == ["class"]
    assert bits(swept.path)[1] == bits(none.path)[0]


def test_rows_of_one_distribution_with_an_embedding(tmp_path: Path) -> None:
    store = write(tmp_path / "store", CLASSIFIER)
    model = ModelConfig(HEADS.class_path, {"outputs": {"class": 4, "embedding": 2}})
    settings = training(loss="huber")
    run = go(tmp_path / "run", store, settings, model)
    check(run, store, settings, {"class": Taught("forward_kl"), "embedding": Taught("huber")}, model)


def test_rows_are_chosen_by_the_one_class_that_is_taught(tmp_path: Path) -> None:
    [train] = open_splits(write(tmp_path / "store", CLASSIFIER), None, only="train").values()
    settings = training(only_classes=(1, 3))
    with pytest.raises(ConfigError, match=r"only_classes selects rows by their class, .* have no single one"):
        training_batches({"train": train}, settings)
    chosen, _ = training_batches({"train": replace(train, targets=("class",))}, settings)
    expected = np.flatnonzero(np.isin(made(CLASSIFIER, "train").labels["class"], (1, 3)))
    assert np.array_equal(chosen.rows, expected)


def test_a_target_of_which_the_store_keeps_the_mean_alone(tmp_path: Path) -> None:
    encodings = {"softmax": DenseEncoding(), "values": ValuesEncoding(reduce="arithmetic")}
    store = write(tmp_path / "store", Case(CLASSIFIER.kinds, encodings=encodings))
    model, settings = ModelConfig(HEADS.class_path, {"outputs": {"class": 4, "embedding": 2}}), training()
    run = go(tmp_path / "run", store, settings, model)
    check(run, store, settings, {"class": Taught("forward_kl"), "embedding": Taught("mse")}, model)
    assert run.results["teacher"]["members"] == {}
    assert {*judge(store, training=settings)} == {"teacher"}


@pytest.mark.parametrize(
    ("model", "changes", "error", "message"),
    [
        ({"class": 4, "box": 2}, {}, ClassMismatch, r"no output 'tag' for target tag, its outputs are class, box; .*weight: 0"),
        ({"class": 5, "box": 2, "tag": 3}, {}, ClassMismatch, r"of shape \[2, 12, 5\] for target class .* 4 classes"),
        ({"class": 4, "box": 3, "tag": 3}, {}, ClassMismatch, r"shape \[2, 12, 3\] for target box .* 2 values"),
        ({}, {"targets": {"box": {"loss": "forward_kl"}}}, ConfigError, "target box: the loss forward_kl .* use loss=mse or"),
        ({}, {"targets": {"box": {"temperature": 2}}}, ConfigError, "target box: labels of kind values have no use for temp"),
        ({}, {"targets": {"boxes": {}}}, ConfigError, "training.targets names boxes, and the targets are class, box, tag"),
        ({}, {"targets": {"box": {"wieght": 2}}}, ConfigError, r"training.targets.box: .*wieght.*; give one value each"),
        ({}, {"targets": {"box": {"weight": -1}}}, ConfigError, "training.targets.box.weight is -1.0"),
        ({}, {"targets": {n: {"weight": 0} for n in DETECTOR.kinds}}, ConfigError, "leaves all of class, box, tag out"),
        ({}, {"targets": {"box": {"output": "b"}}}, ClassMismatch, "no output 'b' for target box"),
        ({}, {"targets": {"class": {"class_weights": [1, 2]}}}, ClassMismatch, "target class: class_weights has 2 numbers"),
        ({}, {"targets": {"class": {"temperature": [1, 2]}}}, ConfigError, r"training.targets.class: .*temperature"),
        ({}, {"targets": {"class": {"loss": "dkd"}}}, ConfigError, r"target class: the loss dkd .* have no hard label"),
        ({}, {"only_classes": (0,)}, ConfigError, "only_classes selects rows by their class"),
        ({}, {"positions": {"background": 2, "class": 4}}, ConfigError, r"target class: .*class is 4, and there are 4 classes"),
    ],
)  # fmt: skip
def test_what_is_refused_before_training(
    tmp_path: Path, store: Path, model: dict[str, int], changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    student = ModelConfig(HEADS.class_path, {"outputs": model or HEADS.init_args["outputs"]})
    with pytest.raises(error, match=message):
        go(tmp_path / "run", store, training(**changes), student)
    assert not (tmp_path / "run").exists()


def test_targets_of_a_store_that_has_none_by_name(tmp_path: Path) -> None:
    store = write(tmp_path / "store", Case({"": "values"}))
    net = ModelConfig("tests.jobs.targets.Net", {"outputs": 2})
    with pytest.raises(ConfigError, match=r"training.targets names box, and the labels are of one target without"):
        go(tmp_path / "run", store, training(loss="mse", targets={"box": {}}), net)
    with pytest.raises(ClassMismatch, match=r"of shape dict .* let its forward return one tensor"):
        go(tmp_path / "run", store, training(loss="mse"), ModelConfig(HEADS.class_path, {"outputs": {"box": 2}}))
    with pytest.raises(
        ConfigError, match="the loss logit_mse is for labels of kind softmax, and these are of kind values"
    ):
        go(tmp_path / "run", store, training(loss="logit_mse"), net)
    run, named = go(tmp_path / "run", store, training(), net), go(tmp_path / "named", store, training(loss="mse"), net)
    assert bits(run.path) == bits(named.path)  # the loss of values, where none is named
    assert run.results["students"][0]["settings"]["loss"] == "mse"
