"""What is found out about a student before it is trained, and by a Trainer from Python at its first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from softlabels.errors import ClassMismatch, ConfigError, WeightsError
from softlabels.student.trial import leaves_one, require_trainable
from softlabels_stages import train_student, train_teacher
from tests.stages import toy
from tests.student import runs

HERE = "tests.stages.test_trial"


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(toy.FEATURES, toy.CLASSES)


class Pair(Base):
    """With auxiliary logits in training."""

    def forward(self, inputs: Tensor) -> Any:
        z = self.layer(inputs)
        return (z, z) if self.training else z


class TwoHeads(Base):
    """(B, 2, C) in training, their mean otherwise."""

    def forward(self, inputs: Tensor) -> Tensor:
        z = torch.stack([self.layer(inputs)] * 2, dim=1)
        return z if self.training else z.mean(1)


class Normed(Base):
    """With batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(toy.FEATURES)

    def forward(self, inputs: Tensor) -> Tensor:
        z: Tensor = self.layer(self.norm(inputs))
        return z


class Sparse(Base):
    """Keeps a sparse matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("graph", torch.eye(toy.FEATURES).to_sparse())

    def forward(self, inputs: Tensor) -> Tensor:
        z: Tensor = self.layer((self.graph @ inputs.t()).t())
        return z


@pytest.mark.parametrize("batch_size", [1, 2, 7, 16, 32])
@pytest.mark.parametrize("micro_batch", [None, 1, 3, 5, 40])
def test_whether_an_epoch_leaves_a_single_row(batch_size: int, micro_batch: int | None) -> None:
    for rows in range(1, 70):
        cut = [len(each) for each in np.split(np.arange(rows), range(batch_size, rows, batch_size))]
        step = micro_batch or batch_size
        sizes = {min(step, size - start) for size in cut for start in range(0, size, step)}
        assert leaves_one(rows, batch_size, micro_batch) == (1 in sizes), rows


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        (
            Pair,
            ClassMismatch,
            r"it gives tuple in training, and outputs of shape \[4, 5\] in evaluation mode; let its forward",
        ),
        (TwoHeads, ClassMismatch, r"outputs of shape \[4, 2, 5\] in training"),
        (Sparse, WeightsError, r"Sparse keeps tensors that safetensors cannot hold: graph \(sparse_coo\)"),
        (Normed, ConfigError, r"an epoch of 33 rows ends in a batch of a single row \(batch_size 32\), .* such as 33,"),
    ],
)
def test_models_that_cannot_be_trained(model: type[nn.Module], error: type[Exception], words: str) -> None:
    rows = torch.randn(4, toy.FEATURES)
    with pytest.raises(error, match=words):
        require_trainable(model(), rows, who="it", section="student", rows=33, batch_size=32, micro_batch=None)


def test_a_single_row_needs_no_batch_norm() -> None:
    rows, options = torch.randn(4, toy.FEATURES), {"who": "it", "section": "student"}
    require_trainable(Normed(), rows, rows=34, batch_size=32, micro_batch=None, **options)  # type: ignore[arg-type]
    require_trainable(nn.Linear(toy.FEATURES, 5), rows, rows=33, batch_size=32, micro_batch=None, **options)  # type: ignore[arg-type]
    with pytest.raises(
        ConfigError, match=r"\(batch_size 32, micro_batch 31\), .* give another micro_batch, such as 32"
    ):
        require_trainable(Normed(), rows, rows=64, batch_size=32, micro_batch=31, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Pair", "gives tuple in training"),
        ("Normed", "(batch_size 53), and batch norm"),
        ("Sparse", "keeps tensors that safetensors cannot hold"),
    ],
)
def test_train_student_finds_it_before_a_run_is_begun(
    store: Path, name: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """160 rows in batches of 53: one is left."""
    training = toy.recipe()["training"] | {"batch_size": 53, "validation": 0}
    toy.write_recipe(Path("recipe.yaml"), student={"class_path": f"{HERE}.{name}"}, training=training)
    assert train_student.main(["--config=recipe.yaml", "--store=store", "--out=out"]) == 2
    assert words in capsys.readouterr().err
    assert not Path("out").exists()
    training["batch_size"] = 54
    if name == "Normed":
        toy.write_recipe(Path("recipe.yaml"), student={"class_path": f"{HERE}.{name}"}, training=training)
        assert train_student.main(["--config=recipe.yaml", "--store=store", "--out=out"]) == 0


def test_train_teacher_finds_it_too(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training = {"batch_size": 53, "validation": 0, "epochs": 1, "threads": 1, "device": "cpu"}
    members = [{"class_path": f"{HERE}.Normed", "weights": "t.safetensors"}]
    toy.write_recipe(Path("recipe.yaml"), teacher={"members": members}, teacher_training=training)
    assert train_teacher.main(["--config=recipe.yaml"]) == 2
    assert "an epoch of 160 rows ends in a batch of a single row" in capsys.readouterr().err
    assert not Path("t.run").exists()


@pytest.mark.parametrize("model", [Pair, TwoHeads])
def test_a_trainer_from_python_says_it_at_the_first_step(tmp_path: Path, model: type[nn.Module]) -> None:
    student = model()
    student.layer = nn.Linear(runs.INPUTS, runs.CLASSES)
    what = "tuple" if model is Pair else r"outputs of shape \[32, 2, 5\]"
    with pytest.raises(
        ClassMismatch, match=f"the model gives {what} for a batch of 32 rows; let its forward return the"
    ):
        runs.run(tmp_path, model=student)
