"""Class weights in the loss against its definition in float64, and against scikit-learn's `balanced`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from softlabels.errors import ClassMismatch, ConfigError
from softlabels.student.class_weights import resolved
from softlabels.student.config import TrainingConfig
from softlabels.student.fused import linear_distillation_loss
from softlabels.student.learner import Student
from softlabels.student.loss_spec import LossSpec
from softlabels.student.losses import distillation_loss, require_loss
from softlabels.student.trainer import Trainer
from tests.student import batches
from tests.student import loss_reference as reference
from tests.student.loss_reference import PER_ROW


def expected(loss: str, z: np.ndarray, v: np.ndarray, labels: np.ndarray, w: np.ndarray, t: float, mean: str) -> float:
    """0.3 / L * sum_n w_y CE_n + 0.7 / N * sum_n (sum_c w_c p_nc) term_n, row by row."""
    share = np.full(v.shape[1], 1 / v.shape[1])
    hard, soft, has = 0.0, 0.0, labels >= 0
    p = reference.teacher(v, 1.0, mean, share)
    for n in range(len(z)):
        if has[n]:
            hard -= w[labels[n]] * np.log(reference.softmax(z[n])[labels[n]])
        row = reference.soft_term(loss, z[n : n + 1], v[n : n + 1], labels[n : n + 1], temperature=t, mean=mean)
        soft += (w * p[n]).sum() * row
    return 0.3 * hard / max(has.sum(), 1) + 0.7 * soft / len(z)


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
@pytest.mark.parametrize("loss", PER_ROW)
def test_the_loss_is_its_definition(rng: np.random.Generator, loss: str, mean: str) -> None:
    z, v = reference.draw(rng, rows=10, classes=5)
    labels = rng.integers(0, 5, 10)
    if loss not in ("dkd", "nkd"):
        labels[rng.random(10) < 0.4] = -1
    w = rng.uniform(0.2, 5, 5)
    options = {"temperature": 3.0, "loss": loss, "mean": mean, "hard_weight": 0.3, "soft_weight": 0.7}
    soft, student = reference.soft_labels(v), torch.tensor(z).float()
    weights = torch.tensor(w).float()
    got = distillation_loss(student, soft, torch.tensor(labels), class_weights=weights, **options)  # type: ignore[arg-type]
    assert got.item() == pytest.approx(expected(loss, z, v, labels, w, 3.0, mean), rel=2e-5)
    cut = {"positions": 10, "labelled": int((labels >= 0).sum()), "class_weights": weights}
    parts = [
        distillation_loss(student[part], soft[part], torch.tensor(labels)[part], **cut, **options)  # type: ignore[arg-type]
        for part in (slice(0, 3), slice(3, 10))
    ]
    assert sum(parts).item() == pytest.approx(got.item(), rel=1e-5)  # type: ignore[union-attr]
    alike = distillation_loss(student, soft, torch.tensor(labels), class_weights=torch.ones(5), **options)  # type: ignore[arg-type]
    plain = distillation_loss(student, soft, torch.tensor(labels), **options)  # type: ignore[arg-type]
    assert alike.item() == pytest.approx(plain.item(), rel=1e-5)
    leaf = student.clone().requires_grad_()
    spec = LossSpec(**options, class_weights=weights)  # type: ignore[arg-type]
    blocks = linear_distillation_loss(
        leaf, torch.eye(5), None, soft, torch.tensor(labels), spec, classes=5, block_bytes=4 * 5 * 3
    )
    assert blocks.item() == pytest.approx(got.item(), rel=1e-5)
    student.requires_grad_()
    distillation_loss(student, soft, torch.tensor(labels), class_weights=weights, **options).backward()  # type: ignore[arg-type,no-untyped-call]
    assert student.grad is not None
    torch.testing.assert_close(torch.autograd.grad(blocks, leaf)[0], student.grad, rtol=1e-4, atol=1e-6)


def test_weights_of_no_term_are_no_loss(rng: np.random.Generator) -> None:
    leaf, labels = torch.tensor(rng.normal(size=(4, 5))).requires_grad_(), torch.zeros(4).long()
    spec = LossSpec(1.0, 0.0, 0.0, class_weights=torch.ones(5))
    loss = linear_distillation_loss(leaf, torch.eye(5), None, None, labels, spec, classes=5)
    assert loss.item() == 0
    assert (torch.autograd.grad(loss, leaf)[0] == 0).all()


def test_balanced_is_scikit_learns(rng: np.random.Generator) -> None:
    labels = rng.choice(6, 400, p=[0.5, 0.3, 0.1, 0.05, 0.05, 0.0])
    found = resolved("balanced", np.append(labels, [-1, -1]), 6)
    assert found is not None
    present = np.unique(labels)
    right = compute_class_weight("balanced", classes=present, y=labels)
    assert [found[c] for c in present] == pytest.approx(right)
    assert np.mean([found[label] for label in labels]) == pytest.approx(1.0)
    assert found[5] == 1.0
    assert resolved((1, 2), labels, 2) == (1.0, 2.0)
    assert resolved(None, labels, 2) is None
    with pytest.raises(ConfigError, match="none has a label; give a number for each class"):
        resolved("balanced", np.full(4, -1), 6)
    with pytest.raises(ClassMismatch, match="class_weights has 2 numbers, and there are 6 classes"):
        resolved((1.0, 2.0), labels, 6)


@pytest.mark.parametrize("weights", [(), (0.0, 1.0), (-1.0,), (float("nan"), 1.0), (float("inf"),)])
def test_weights_are_finite_numbers_above_zero(weights: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="give balanced, or one finite number above 0 for each class"):
        TrainingConfig(class_weights=weights)


def test_a_loss_over_the_whole_batch_has_none() -> None:
    options = {"label_free_rows": 0, "micro_batch": None, "reduce": "none", "classes": 3}
    with pytest.raises(
        ConfigError, match=r"dist correlates over the whole batch, so rows have no weights.*drop class_weights"
    ):
        require_loss(LossSpec(1.0, loss="dist"), class_weights=True, **options)  # type: ignore[arg-type]


class Fixed:
    """Batches of rows with hard labels only, all in one."""

    steps_per_epoch, order_digest = 1, "x"

    def __init__(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:

        self.batch = batches.plain(inputs, labels, None, np.arange(len(labels)))

    def epoch(self, epoch: int, start: int = 0) -> object:
        return iter([self.batch][start:])


def test_a_trained_step_and_the_validation_loss_have_them(rng: np.random.Generator, tmp_path: Path) -> None:
    """One step of plain SGD on hard labels, and the loss after it, in float64."""
    x, labels, w = rng.normal(size=(40, 4)), rng.choice(3, 40, p=[0.8, 0.15, 0.05]), np.array([0.5, 2.0, 6.0])
    batches = Fixed(torch.tensor(x).float(), torch.tensor(labels))
    settings = {"epochs": 1, "hard_weight": 1.0, "soft_weight": 0.0, "micro_batch": 7, "threads": 1}
    config = TrainingConfig(**settings, class_weights=tuple(w), optimizer=sgd(), device="cpu")  # type: ignore[arg-type]
    student = Student.begin("", config, lambda: nn.Linear(4, 3))
    weight, bias = (each.detach().double().numpy().copy() for each in student.model.parameters())

    def slopes() -> tuple[np.ndarray, float]:
        q = reference.softmax(x @ weight.T + bias)
        loss = -(w[labels] * np.log(q[np.arange(40), labels])).sum() / 40
        return w[labels][:, None] * (q - np.eye(3)[labels]) / 40, float(loss)

    at_z, _ = slopes()
    weight, bias = weight - 0.5 * at_z.T @ x, bias - 0.5 * at_z.sum(0)
    [result] = Trainer([student], batches, batches, tmp_path / "run", {}).run()  # type: ignore[arg-type]
    assert next(student.model.parameters()).detach().numpy() == pytest.approx(weight, abs=1e-5)
    assert result.kept_validation == pytest.approx(slopes()[1], rel=1e-5)


def sgd() -> object:
    from softlabels.objects import ObjectSpec

    return ObjectSpec("torch.optim.SGD", {"lr": 0.5})
