"""What a loss cannot do for a kind of labels is said before training, and again by the loss itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from softlabels.errors import ClassMismatch, ConfigError, LabelError, NoPossibleClass
from softlabels.labels.targets import Target
from softlabels.student.class_weights import resolved
from softlabels.student.config import TrainingConfig, require_temperatures
from softlabels.student.fused import linear_distillation_loss
from softlabels.student.hard_labels import check_labels
from softlabels.student.learner import Student
from softlabels.student.loss_spec import LOSS_NAMES, LossSpec
from softlabels.student.losses import LOSSES, distillation_loss, require_loss
from softlabels.student.sweep import HARD, StudentTraining
from softlabels.student.trainer import Trainer
from tests.student import runs
from tests.student.kind_reference import OTHERS, Rows, draw
from tests.student.loss_reference import soft_labels

FITTING: dict[str, Any] = {"label_free_rows": 9, "micro_batch": 4, "reduce": "none", "classes": 5}
BOTH: dict[str, Any] = {"hard_weight": 0.5, "soft_weight": 0.5}
OF = {loss: target for target, names in LOSS_NAMES.items() for loss in names}


@pytest.mark.parametrize("loss", OTHERS)
def test_every_loss_is_to_be_had_with_its_defaults_and_what_passes_trains(rng: np.random.Generator, loss: str) -> None:
    spec, rows = LossSpec(1.0, loss=loss), draw(rng, loss)
    require_loss(spec, **FITTING, target=OF[loss])
    require_loss(replace(spec, loss_args=dict(LOSSES[loss].args)), **FITTING, target=OF[loss])
    temperature = {"temperature": 1.0} if loss == "bce" else {}
    got = distillation_loss(torch.tensor(rows.z), rows.soft, rows.hard, loss=loss, **temperature, **BOTH)  # type: ignore[arg-type]
    assert got.isfinite()


@pytest.mark.parametrize("target", ["softmax", "sigmoid", "values"])
@pytest.mark.parametrize("loss", LOSSES)
def test_labels_of_another_kind_are_refused_with_the_losses_that_can(
    rng: np.random.Generator, loss: str, target: Target
) -> None:
    spec, fitting = LossSpec(1.0, loss=loss), FITTING | {"label_free_rows": 0, "micro_batch": None}
    if OF[loss] == target:
        require_loss(spec, **fitting, target=target)
        return
    can = {"softmax": "forward_kl or .*dist", "sigmoid": "bce", "values": "mse or huber or cosine"}[target]
    message = f"the loss {loss} is for labels of kind {OF[loss]}, and these are of kind {target}; use loss={can}$"
    with pytest.raises(ConfigError, match=message):
        require_loss(spec, **fitting, target=target)
    rows = draw(rng, LOSS_NAMES[target][0])
    soft = soft_labels(rows.v) if target == "softmax" else rows.soft
    options: Any = {"temperature": 1.0, "loss": loss, "hard_weight": 0.0, "soft_weight": 1.0}
    with pytest.raises(ConfigError, match=message):
        distillation_loss(torch.tensor(rows.z), soft, torch.zeros(12).long(), **options)


@pytest.mark.parametrize("loss", ["mse", "huber", "cosine"])
@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"temperature": 2.0}, "temperature"),
        ({"mean": "geometric"}, "mean"),
        ({"logit_standardization": True}, "logit_standardization"),
        ({"class_weights": torch.ones(5)}, "class_weights"),
        ({"temperature": 2.0, "mean": "tempered"}, "temperature, mean"),
    ],
)
def test_settings_that_mean_nothing_for_values_are_refused(
    rng: np.random.Generator, loss: str, given: dict[str, Any], names: str
) -> None:
    rows, message = draw(rng, loss), rf"labels of kind values have no use for {names} \(loss {loss}\); drop {names}$"
    with pytest.raises(ConfigError, match=message):
        distillation_loss(torch.tensor(rows.z), rows.soft, rows.hard, loss=loss, **given, **BOTH)
    of_config = given | ({"class_weights": (1.0,) * 5} if "class_weights" in given else {})
    for config in (TrainingConfig, StudentTraining):
        with pytest.raises(ConfigError, match=message):
            config(loss=loss, **of_config)


def test_one_value_has_no_direction(rng: np.random.Generator) -> None:
    """cosine of it is its sign; its gradient was the rounding of float32."""
    rows, message = draw(rng, "cosine"), "cosine of one value depends only on its sign, .* no gradient; use loss=mse"
    one = replace(rows, z=rows.z[:, :1], v=rows.v[..., :1], labels=rows.labels[:, :1])
    with pytest.raises(ConfigError, match=message):
        require_loss(LossSpec(1.0, loss="cosine"), **FITTING | {"classes": 1}, target="values")
    for hard in (0.0, 1.0):
        with pytest.raises(ConfigError, match=message):
            distillation_loss(
                torch.tensor(one.z), one.soft, one.hard, loss="cosine", hard_weight=hard, soft_weight=1 - hard
            )


def test_a_schedule_of_temperatures_or_a_sweep_of_them_is_one_too() -> None:
    with pytest.raises(ConfigError, match="no use for temperature"):
        TrainingConfig(loss="mse", temperature="linear:4:1")
    with pytest.raises(ConfigError, match="no use for temperature"):
        StudentTraining(loss="mse", temperature=(4.0, 8.0))
    assert TrainingConfig(loss="mse").loss_at(0.5).temperature == 1.0


def test_the_logits_of_flags_are_not_standardised() -> None:
    with pytest.raises(ConfigError, match="kind sigmoid have no use for logit_standardization"):
        LossSpec(1.0, loss="bce", logit_standardization=True)
    for mean in ("arithmetic", "geometric", "tempered"):
        assert LossSpec(3.0, loss="bce", mean=mean, class_weights=torch.ones(3)).target == "sigmoid"


@pytest.mark.parametrize(
    ("loss", "args", "message"),
    [
        ("mse", {"delta": 1.0}, "mse has no argument delta; it takes none"),
        ("huber", {"beta": 1.0}, "huber has no argument beta; its arguments are delta"),
        ("huber", {"delta": 0.0}, "huber needs delta > 0"),
        ("huber", {"delta": -1.0}, "delta must be a finite number >= 0"),
        ("bce", {"alpha": 1.0}, "bce has no argument alpha"),
    ],
)
def test_arguments(loss: str, args: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        require_loss(LossSpec(1.0, loss=loss, loss_args=args), **FITTING, target=OF[loss])


def test_the_hard_student_is_trained_with_the_losses_of_its_labels() -> None:
    """The first, where there are several; of distributions always the cross-entropy."""
    of = {loss: StudentTraining(loss=loss).of(HARD, 0) for loss in ("mse", ("cosine", "mse"), "bce", "js")}
    assert {loss: config.loss for loss, config in of.items()} == {
        "mse": "mse", ("cosine", "mse"): "cosine", "bce": "bce", "js": "forward_kl",
    }  # fmt: skip
    assert all(config.loss_at(0.0).soft_weight == 0 for config in of.values())
    swept = StudentTraining(loss=("huber", "mse"))
    assert [swept.settings(each) for each in swept.variants] == [
        {"alpha": 0.9, "loss": "huber"},
        {"alpha": 0.9, "loss": "mse"},
    ]
    assert StudentTraining(loss="bce").settings(StudentTraining(loss="bce").variants[0])["temperature"] == 4.0


def test_labels_that_are_none(rng: np.random.Generator) -> None:
    flags, vectors = draw(rng, "bce"), draw(rng, "mse")

    def refuse(error: type[Exception], message: str, rows: Rows, labels: torch.Tensor) -> None:
        """By the loss, and by its fused form."""
        spec = LossSpec(1.0, **BOTH, loss="bce" if rows.kind == "sigmoid" else "mse")
        z = torch.tensor(rows.z)
        with pytest.raises(error, match=message):
            distillation_loss(z, rows.soft, labels, loss=spec.loss, temperature=1.0, **BOTH)
        with pytest.raises(error, match=message):
            linear_distillation_loss(z, torch.eye(5).double(), None, rows.soft, labels, spec, classes=5)

    wrong = flags.hard.clone()
    wrong[3, 2] = 2
    refuse(LabelError, r"a flag is 2: flags are 0, 1 or -1 \(unknown\)", flags, wrong)
    refuse(
        ClassMismatch,
        r"int8 of shape \(12, 4\), and the student gives 5 outputs; .*kind sigmoid",
        flags,
        flags.hard[:, :4],
    )
    refuse(ClassMismatch, r"float32 of shape \(12, 5\)", flags, flags.hard.float())
    refuse(ClassMismatch, r"int64 of shape \(12,\)", flags, torch.zeros(12).long())
    refuse(ClassMismatch, r"labels of shape \(11, 5\)", flags, flags.hard[1:])
    wrong = vectors.hard.clone()
    wrong[1, 2] = np.nan
    refuse(LabelError, "a hard label is NaN in 1 of its values", vectors, wrong)
    wrong[1, 2] = -np.inf
    refuse(LabelError, "a hard label holds -inf", vectors, wrong)
    refuse(ClassMismatch, r"float32 of shape \(12,\), and the student gives 5", vectors, vectors.hard[:, 0])
    check_labels(torch.full((3, 5), torch.nan), 5, "values")


def test_weights_of_flags_are_numbers() -> None:
    labels = np.zeros((4, 3), np.int8)
    assert resolved((1.0, 2.0, 3.0), labels, 3, "sigmoid") == (1.0, 2.0, 3.0)
    with pytest.raises(ConfigError, match=r"balanced counts rows of one class each, .*kind sigmoid; give a number"):
        resolved("balanced", labels, 3, "sigmoid")
    with pytest.raises(ClassMismatch, match="class_weights has 2 numbers, and there are 3 classes"):
        resolved((1.0, 2.0), labels, 3, "sigmoid")


def test_values_are_known_at_no_temperature(rng: np.random.Generator) -> None:
    from softlabels.labels.encoding import ValuesEncoding

    require_temperatures(ValuesEncoding(), TrainingConfig(loss="mse"))


def test_a_row_whose_members_exclude_each_other_is_named(rng: np.random.Generator, tmp_path: Path) -> None:
    rows = draw(rng, "bce")
    rows.v[7, 0, 2], rows.v[7, 1, 2] = np.inf, -np.inf
    batches = runs.MemoryBatches(rows.batch, 12, seed=None)
    config = TrainingConfig(loss="bce", mean="geometric", threads=1, device="cpu")
    student = Student.begin("", config, lambda: nn.Linear(5, 5))
    with pytest.raises(NoPossibleClass, match=r"one member gives a class probability 0 and another 1 \(row 7\)"):
        Trainer([student], batches, None, tmp_path / "run", {}).run()


def test_a_student_that_gives_probabilities_of_anything_but_classes_is_trained(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    """Values may sum to 1; of distributions that is a softmax too many."""
    rows = draw(rng, "mse", rows=40)
    batches = runs.MemoryBatches(rows.batch, 40, seed=None)

    def begin() -> nn.Module:
        return nn.Sequential(nn.Linear(5, 5), nn.Softmax(dim=-1))

    config = TrainingConfig(loss="mse", epochs=1, threads=1, device="cpu")
    Trainer([Student.begin("", config, begin)], batches, batches, tmp_path / "run", {}).run()
