"""Students of every kind of target and of rows of positions, from stores by `train`: against plain torch on the same batches,
and in all that training promises.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from softlabels.errors import ConfigError, Interrupted
from softlabels.jobs.splits import Split, training_batches
from softlabels.jobs.students import student_config
from softlabels.jobs.train import Run, train
from softlabels.jobs.watch import Watch
from softlabels.jobs.write_store import write_store
from softlabels.models import ModelConfig, build_model
from softlabels.objects import ObjectSpec
from softlabels.stream import EmbeddedRows, Loader
from softlabels.student.learner import Student
from softlabels.student.sweep import StudentTraining
from softlabels.transfer import TransferRows
from tests.jobs.targets import (
    FEATURES,
    POSITIONS,
    SIZES,
    Case,
    Taught,
    made,
    plain_training,
    rows_of,
    weights_of,
    write,
)

LR, EPOCHS, BATCH = 0.5, 2, 32
SGD = ObjectSpec("torch.optim.SGD", {"lr": LR})
ONE: dict[str, Any] = {
    "anchors": (Case({"": "softmax"}, "fixed"), Taught("forward_kl")),
    "frames": (Case({"": "softmax"}, "ragged"), Taught("forward_kl", temperature=2.0)),
    "tags": (Case({"": "sigmoid"}), Taught("bce", temperature=2.0)),
    "tags of anchors": (Case({"": "sigmoid"}, "fixed"), Taught("bce")),
    "vector": (Case({"": "values"}), Taught("mse")),
    "vector, huber": (Case({"": "values"}), Taught("huber", 0.2, 0.8)),
    "vector, cosine": (Case({"": "values"}), Taught("cosine")),
    "one value": (Case({"": "values"}, sizes={"values": 1}), Taught("huber")),
    "values of frames": (Case({"": "values"}, "ragged"), Taught("mse")),
}


def training(how: Taught, **changes: Any) -> StudentTraining:
    given: dict[str, Any] = {
        "loss": how.loss, "hard_weight": how.hard, "soft_weight": how.soft, "epochs": EPOCHS, "batch_size": BATCH,
        "optimizer": SGD, "validation": 0.0, "threads": 1, "device": "cpu", "baseline": False, "keep": "last",
    }  # fmt: skip
    if how.loss in ("forward_kl", "bce"):
        given["temperature"] = how.temperature
    return StudentTraining(**given | changes)


def student(case: Case) -> ModelConfig:
    return ModelConfig("tests.jobs.targets.Net", {"outputs": case.size("")})


def taught(out: Path, case: Case, store: Path, settings: StudentTraining, **more: Any) -> Run:
    return train(student(case), store, settings, out=out, watch=Watch(lambda line: None, lambda line: None), **more)


def reference(case: Case, store: Path, how: Taught) -> dict[str, torch.Tensor]:
    """What plain torch makes of the same first weights and batches."""
    opened = rows_of(store)
    loader = Loader(EmbeddedRows(opened), opened, batch_size=BATCH, seed=0)
    model = Student.begin("", training(how).of(training(how).variants[0], 0), lambda: build_model(student(case))).model
    plain_training(model, opened, loader, {"": how}, epochs=EPOCHS, lr=LR)
    return model.state_dict()


@pytest.mark.parametrize("what", ONE)
def test_one_target_is_trained_as_plain_torch_does(tmp_path: Path, what: str) -> None:
    case, how = ONE[what]
    store = write(tmp_path / "store", case)
    run = taught(tmp_path / "run", case, store, training(how))
    ours, theirs = weights_of(run.path / "distilled-seed0"), reference(case, store, how)
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=2e-4, atol=2e-5)
    [scores] = run.results["students"][0]["scores"]
    kind = case.kinds[""]
    assert scores["rows"] == (48 if made(case, "test").mask is None else made(case, "test").mask.sum())
    assert 0 < scores["labelled"] < scores["rows"]
    assert {"softmax": "errors", "sigmoid": "map", "values": "mse"}[kind] in scores


def bits(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("*/weights.safetensors"))]


def stopped(out: Path, go: Callable[..., Run]) -> Run:
    """A run that is stopped again and again, at one step after the other, until it ends."""
    for step in range(1, 100):
        left = step

        def stop() -> bool:
            nonlocal left
            left -= 1
            return left < 0

        try:
            return go(out, watch=Watch(lambda line: None, lambda line: None, stop))
        except Interrupted:
            continue
    raise AssertionError("it does not end")


@pytest.mark.parametrize("what", ["frames", "tags", "vector, huber"])
def test_stopped_resumed_cut_and_side_by_side(tmp_path: Path, what: str) -> None:
    case, how = ONE[what]
    store, settings = write(tmp_path / "store", case), training(how, seeds=(0, 1), validation=0.2, baseline=True)
    whole = taught(tmp_path / "whole", case, store, settings)
    assert {path.name for path in whole.path.iterdir() if path.is_dir()} == {
        "hard-seed0", "hard-seed1", "distilled-seed0", "distilled-seed1",
    }  # fmt: skip

    def go(out: Path, watch: Watch) -> Run:
        return train(student(case), store, settings, out=out, watch=watch)

    again = stopped(tmp_path / "stopped", go)
    assert bits(again.path) == bits(whole.path)
    assert {**again.results, "store": ""} == {**whole.results, "store": ""}
    alone = taught(tmp_path / "alone", case, store, training(how, seeds=(1,), validation=0.2))
    assert bits(alone.path) == [bits(whole.path)[1]]
    cut = taught(tmp_path / "cut", case, store, training(how, validation=0.2, micro_batch=7))
    for name, tensor in weights_of(cut.path / "distilled-seed0").items():
        wanted = weights_of(whole.path / "distilled-seed0")[name]
        torch.testing.assert_close(tensor, wanted, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("what", ["anchors", "values of frames"])
def test_positions_that_the_mask_leaves_out_change_nothing(tmp_path: Path, what: str) -> None:
    case, how = ONE[what]
    rows = {split: made(case, split) for split in ("train", "test")}
    for each in rows.values():
        each.inputs[each.mask == 0] = 100
    others = {split: made(case, split) for split in ("train", "test")}
    for split, each in others.items():
        each.keys[:] = rows[split].keys
        each.inputs[each.mask == 0] = -100
        each.outputs[""][each.mask == 0] = np.inf if case.kinds[""] == "softmax" else np.nan
    stores = [write(tmp_path / name, case, each) for name, each in (("one", rows), ("other", others))]
    runs = [taught(tmp_path / f"run {n}", case, store, training(how, validation=0.2)) for n, store in enumerate(stores)]
    assert bits(runs[0].path) == bits(runs[1].path)
    scores = [json.dumps([run.results[part] for part in ("teacher", "students")]) for run in runs]
    assert scores[0] == scores[1]
    inputs = [rows_of(store).column("input") for store in stores]
    assert not np.array_equal(*inputs)


def test_classes_of_positions_have_weights_and_positions_are_sampled(tmp_path: Path) -> None:
    case, how = ONE["anchors"]
    store, given = (
        write(tmp_path / "store", case),
        {"class_weights": "balanced", "positions": {"background": 2, "class": 0}},
    )
    run = taught(tmp_path / "run", case, store, training(how, **given))
    counts = np.bincount(made(case, "train").labels[""].ravel() + 1, minlength=5)[1:]
    weights = tuple(float(counts.sum()) / (4 * int(count)) for count in counts)
    settings = training(how, class_weights=weights, positions=given["positions"])
    again = taught(tmp_path / "again", case, store, settings)
    assert bits(run.path) == bits(again.path)
    others = [
        taught(tmp_path / f"other {n}", case, store, training(how, **dict([each])))
        for n, each in enumerate(given.items())
    ]
    assert len({*bits(run.path), *bits(others[0].path), *bits(others[1].path)}) == 3
    ended = stopped(
        tmp_path / "stopped", lambda out, watch: train(student(case), store, settings, out=out, watch=watch)
    )
    assert bits(ended.path) == bits(run.path)
    flags, of_flags = ONE["tags"]
    other = write(tmp_path / "tags store", flags)
    with pytest.raises(ConfigError, match=r"training.positions is given, and rows of .* have no positions"):
        taught(tmp_path / "tags", flags, other, training(of_flags, positions=3))


def test_labels_of_positions_that_do_not_count_weigh_nothing(tmp_path: Path) -> None:
    """Where the transfer set labels all positions and the store counts some."""
    case, how = ONE["anchors"]
    data, store, settings = (
        made(case, "train"),
        write(tmp_path / "store", case),
        training(how, class_weights="balanced"),
    )
    assert data.mask is not None
    given = np.where(data.mask == 0, 3, data.labels[""])
    rows = TransferRows(
        "mine", "train", None, "", data.inputs, data.keys, given, None, ObjectSpec("none"),
        positions=POSITIONS, mask=np.ones_like(data.mask),
    )  # fmt: skip
    split = Split(rows_of(store), rows)
    batches, _ = training_batches({"train": split}, settings)
    found = student_config(settings, settings.variants[0], 0, split, batches, None).class_weights
    counts = np.bincount(data.labels[""].ravel() + 1, minlength=5)[1:]
    assert found == pytest.approx(counts.sum() / (4 * counts))


@pytest.mark.parametrize("loss", ["bce", "mse"])
def test_a_store_without_hard_labels_and_without_a_split_to_judge_on(
    tmp_path: Path, rng: np.random.Generator, loss: str
) -> None:
    """What cannot end well is refused before it begins."""
    kind, inputs = {"bce": "sigmoid", "mse": "values"}[loss], rng.normal(size=(48, FEATURES)).astype(np.float32)
    keys, outputs = rng.integers(0, 256, (48, 16), np.uint8), rng.normal(size=(48, SIZES[kind]))
    write_store(tmp_path / "store" / "train", outputs, keys=keys, inputs=inputs, kind=kind)
    case, how = Case({"": kind}), Taught(loss, hard=0.0)
    for changes, message in (
        ({}, "no split to evaluate students on: .* validation is 0; give .* --validation=0.1"),
        (
            {"validation": 0.2, "hard_weight": 1.0, "soft_weight": 0.0},
            "no training row has a hard label and soft_weight",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            taught(tmp_path / "run", case, tmp_path / "store", training(how, **changes))
        assert not (tmp_path / "run").exists()
    run = taught(tmp_path / "run", case, tmp_path / "store", training(how, validation=0.2, baseline=True))
    [distilled] = run.results["students"]
    assert distilled["kind"] == "distilled"
    assert distilled["scores"][0]["labelled"] == 0
    assert 0 < distilled["scores"][0].get("agreement", 0.1) < 1
