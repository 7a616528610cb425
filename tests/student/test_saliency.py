"""Saliencies against the definition in float64: second derivatives of a loss that is written out here, by finite differences
and by differentiating twice; and against the rise of the loss that is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from softlabels.errors import ConfigError
from softlabels.labels.soft import SoftLabels
from softlabels.stream.batch import Batch
from softlabels.student.config import TrainingConfig
from softlabels.student.curvature import factor_of, row_columns
from softlabels.student.learner import Student
from softlabels.student.loss_spec import LossSpec
from softlabels.student.saliency import Saliency, saliency
from softlabels.student.units import chains_of
from tests.student.batches import plain as batch_of

ROWS, FEATURES, CLASSES = 24, 4, 3
T = 3.0
CPU = torch.device("cpu")


def labels_of(logits: Tensor) -> SoftLabels:
    """Of a teacher of one member, in float32."""
    most = logits.max(dim=1).values
    return SoftLabels.dense((logits - most[:, None])[:, None], most[:, None], torch.ones(1))


def hessian(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return jacrev(jacrev(function))  # torch.func.hessian warns that torch.jit is old


class Fixed:
    """The same rows in batches of 10, every other one with a label."""

    order_digest, steps_per_epoch = "", 3

    def __init__(self, inputs: Tensor, teacher: Tensor, labels: Tensor) -> None:
        self.inputs, self.teacher, self.labels = inputs, teacher, labels

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for at in range(0, len(self.inputs), 10):
            part = slice(at, at + 10)
            soft = labels_of(self.teacher[part])
            yield batch_of(self.inputs[part], self.labels[part], soft, np.arange(len(self.inputs))[part])


@pytest.fixture
def rows(rng: np.random.Generator) -> Fixed:
    labels = torch.from_numpy(rng.integers(0, CLASSES, ROWS))
    labels[::2] = -1
    teacher = torch.from_numpy(rng.normal(size=(ROWS, CLASSES)) * 2).float()
    return Fixed(torch.from_numpy(rng.normal(size=(ROWS, FEATURES))).float(), teacher, labels)


def loss_of(rows: Fixed, settings: dict[str, Any], logits: Tensor) -> Tensor:
    """The mean loss of all rows in float64: hard cross-entropy over the labelled ones, the soft term over all."""
    z, v, labelled = logits.double(), rows.teacher.double(), rows.labels >= 0
    hard, soft = settings["hard_weight"], settings["soft_weight"]
    total = hard * nn.functional.cross_entropy(z[labelled], rows.labels[labelled])
    if settings["loss"] == "forward_kl":
        p = (v / T).softmax(1)
        total = total + soft * T**2 * (p * (p.log() - (z / T).log_softmax(1))).sum(1).mean()
    else:
        gap = (z - z.mean(1, keepdim=True)) - (v - v.mean(1, keepdim=True))
        total = total + soft * (gap.square().sum(1) / (2 * CLASSES)).mean()
    return total


def student(model: nn.Module, settings: dict[str, Any]) -> Student:
    return Student.begin("s", TrainingConfig(temperature=T, **settings), lambda: model)


SETTINGS = [
    {"loss": "forward_kl", "hard_weight": 0.0, "soft_weight": 1.0},
    {"loss": "forward_kl", "hard_weight": 1.0, "soft_weight": 0.0},
    {"loss": "forward_kl", "hard_weight": 0.3, "soft_weight": 0.7},
    {"loss": "logit_mse", "hard_weight": 0.0, "soft_weight": 1.0},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda each: f"{each['loss']}-{each['hard_weight']}")
def test_of_a_linear_model_it_is_the_whole_hessian(rows: Fixed, settings: dict[str, Any]) -> None:
    model = nn.Linear(FEATURES, CLASSES)  # whose Gauss-Newton matrix is the Hessian
    found = saliency(student(model, settings), rows, device=CPU).weights["weight"]
    weight, bias = model.weight.detach().double(), model.bias.detach().double()

    def loss(moved: Tensor) -> Tensor:
        return loss_of(rows, settings, rows.inputs.double() @ moved.T + bias)

    whole = hessian(loss)(weight).flatten(2).flatten(0, 1)
    by_hessian = whole.diagonal().view_as(weight) * weight**2 / 2
    torch.testing.assert_close(found, by_hessian, rtol=1e-4, atol=1e-9)

    step, by_differences = 1e-3, torch.zeros_like(weight)
    for place in np.ndindex(*weight.shape):
        moved = torch.zeros_like(weight)
        moved[place] = step
        second = (loss(weight + moved) - 2 * loss(weight) + loss(weight - moved)) / step**2
        by_differences[place] = second * weight[place] ** 2 / 2
    torch.testing.assert_close(found, by_differences, rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda each: f"{each['loss']}-{each['hard_weight']}")
def test_of_a_network_it_is_gauss_newton(rows: Fixed, settings: dict[str, Any]) -> None:
    model = nn.Sequential(nn.Linear(FEATURES, 5), nn.Tanh(), nn.Linear(5, CLASSES))
    found = saliency(student(model, settings), rows, device=CPU).weights
    wide = {name: weight.detach().double() for name, weight in model.named_parameters()}
    logits = functional_call(model, wide, (rows.inputs.double(),))
    curvature = hessian(lambda z: loss_of(rows, settings, z))(logits)  # (R, C, R, C)
    for name in ("0.weight", "2.weight"):
        jacobian = jacrev(
            lambda moved, name=name: functional_call(model, wide | {name: moved}, (rows.inputs.double(),))
        )(wide[name]).flatten(2)
        whole = torch.einsum("rck,rcsd,sdk->k", jacobian, curvature, jacobian)
        torch.testing.assert_close(found[name].flatten(), whole * wide[name].flatten() ** 2 / 2, rtol=1e-4, atol=1e-9)
        assert (found[name] >= 0).all()


def test_rows_of_positions_are_the_same_rows(rows: Fixed) -> None:
    model = nn.Linear(FEATURES, CLASSES)
    settings = {"loss": "forward_kl", "hard_weight": 0.3, "soft_weight": 0.7}
    alone = saliency(student(model, settings), rows, device=CPU)

    class Paired(Fixed):
        def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
            extra = torch.full((ROWS // 2, 1, FEATURES), 9.0)  # a third position, that does not count
            inputs = torch.cat([self.inputs.view(-1, 2, FEATURES), extra], 1)
            labels = torch.cat([self.labels.view(-1, 2), torch.full((ROWS // 2, 1), -1)], 1)
            teacher = torch.cat([self.teacher.view(-1, 2, CLASSES), torch.zeros(ROWS // 2, 1, CLASSES)], 1)
            mask = torch.tensor([[True, True, False]]).expand(ROWS // 2, 3)
            soft = labels_of(teacher.view(-1, CLASSES))
            yield batch_of(inputs, labels, soft, np.arange(ROWS // 2), mask)

    paired = saliency(student(model, settings), Paired(rows.inputs, rows.teacher, rows.labels), device=CPU)
    torch.testing.assert_close(paired.weights["weight"], alone.weights["weight"], rtol=1e-5, atol=1e-10)


class Recurrent(nn.Module):
    """Torch cannot take an LSTM for rows apart."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(2, 3, batch_first=True), nn.Linear(3, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.lstm(inputs.unflatten(1, (2, 2)))[0][:, -1])


def test_a_recurrent_model_row_by_row(rows: Fixed) -> None:
    settings = {"loss": "forward_kl", "hard_weight": 0.0, "soft_weight": 1.0}
    found = saliency(student(model := Recurrent(), settings), rows, device=CPU).weights["lstm.weight_ih_l0"]
    step, place = 1e-2, (1, 0)  # Gauss-Newton by the outputs' own differences

    def logits(by: float) -> Tensor:
        with torch.no_grad():
            moved = {name: weight.clone() for name, weight in model.named_parameters()}
            moved["lstm.weight_ih_l0"][place] += by
            return functional_call(model, moved, (rows.inputs,)).double()

    slope, q = (logits(step) - logits(-step)) / (2 * step), (logits(0) / T).softmax(1)
    curve = ((q * slope**2).sum(1) - (q * slope).sum(1) ** 2).mean()
    expected = curve * model.lstm.weight_ih_l0[place].detach().double() ** 2 / 2
    assert float(found[place]) == pytest.approx(float(expected), rel=1e-3)


def test_the_saliency_of_a_unit_is_what_its_deletion_costs(rows: Fixed) -> None:
    model = nn.Sequential(nn.Linear(FEATURES, 5), nn.Tanh(), nn.Linear(5, CLASSES))
    with torch.no_grad():
        model[2].weight *= 0.02  # where the loss is all but quadratic
    settings = {"loss": "logit_mse", "hard_weight": 0.0, "soft_weight": 1.0}
    with torch.no_grad():  # a teacher that says the same: the slope is 0 here
        rows.teacher = model(rows.inputs)
    [found] = saliency(student(model, settings), rows, chains_of(model, rows.inputs), device=CPU).units
    for unit in range(5):
        with torch.no_grad():
            weights = {name: weight.clone() for name, weight in model.named_parameters()}
            weights["2.weight"][:, unit] = 0
            rise = loss_of(rows, settings, functional_call(model, weights, (rows.inputs,)))
        assert float(found[unit]) == pytest.approx(float(rise), rel=1e-4)


def test_drawn_columns_have_the_right_mean(rng: np.random.Generator) -> None:
    """More than 64 classes: the Fisher information of both terms; fewer, at many positions: random signs."""
    spec = LossSpec(2.0, hard_weight=0.5, soft_weight=1.0)
    logits = torch.from_numpy(rng.normal(size=(1, 70))).float().repeat(4000, 1)
    soft = labels_of(logits)
    batch = batch_of(logits, torch.zeros(4000, dtype=torch.int64), soft, np.arange(4000))
    columns = row_columns(logits, batch, spec, torch.Generator().manual_seed(0))
    mean = columns.flatten(0, 1).T @ columns.flatten(0, 1) / 4000
    expected = sum(
        weight * (p.diag() - p[:, None] * p)
        for weight, p in ((0.5, logits[0].softmax(0)), (1.0, (logits[0] / 2).softmax(0)))
    )
    torch.testing.assert_close(mean, expected, rtol=0.1, atol=2e-3)


def test_what_is_not_convex_is_cut_to_its_convex_part() -> None:
    matrix = torch.tensor([[[2.0, 0.0], [0.0, -3.0]]])
    factor = factor_of(matrix)
    torch.testing.assert_close(factor @ factor.mT, torch.tensor([[[2.0, 0.0], [0.0, 0.0]]]))


def test_a_loss_over_batches_has_none(rows: Fixed) -> None:
    settings = {"loss": "dist", "hard_weight": 0.0, "soft_weight": 1.0}
    with pytest.raises(ConfigError, match=r"dist correlates over a batch.*--rule=magnitude"):
        saliency(student(nn.Linear(FEATURES, CLASSES), settings), rows, device=CPU)
    settings = {"loss": "forward_kl", "hard_weight": 0.0, "soft_weight": 1.0, "logit_standardization": True}
    with pytest.raises(ConfigError, match=r"not taken through logit_standardization; use --rule=magnitude"):
        saliency(student(nn.Linear(FEATURES, CLASSES), settings), rows, device=CPU)
    assert Saliency().units == []
