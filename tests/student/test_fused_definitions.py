"""The fused linear and loss against every loss's definition in float64: value, and slopes at hidden states, matrix and bias."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from softlabels.labels.ensemble import MEANS
from softlabels.labels.soft import SoftLabels
from tests.student.loss_reference import PER_ROW, soft_labels, soft_term
from tests.student.sparse_samples import TAILS, Sparse
from tests.student.test_fused import CLASSES, POSITIONS, Student, dense_labels
from tests.student.test_losses_sparse import SERVED, reference

Definition = Callable[[np.ndarray], float]
STEP = 1e-5


def check(student: Student, soft: SoftLabels, labels: np.ndarray, define: Definition, **options: object) -> None:
    """Both terms, in blocks of 4 positions: the last one holds a single one."""

    def whole() -> float:
        z = student.logits().detach()
        of_hard = torch.nn.functional.cross_entropy(z, torch.tensor(labels)).item()
        return 1.7 * define(z.numpy()) + 0.3 * of_hard

    got = student.fused(soft, torch.tensor(labels), block=4, **options)
    assert got.item() == pytest.approx(whole(), rel=1e-5, abs=1e-5)
    gradients = torch.autograd.grad(got, student.leaves)
    rng = np.random.default_rng(0)
    for leaf, gradient in zip(student.leaves, gradients, strict=True):
        step, ends = torch.tensor(rng.normal(size=tuple(leaf.shape))), []
        for sign in (1, -2):
            with torch.no_grad():
                leaf += sign * STEP * step
            ends.append(whole())
        with torch.no_grad():
            leaf += STEP * step
        assert (gradient * step).sum().item() == pytest.approx((ends[0] - ends[1]) / (2 * STEP), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize(("tail", "loss"), SERVED)
def test_sparse_labels(rng: np.random.Generator, tail: str, loss: str, temperature: float) -> None:
    sparse, labels = Sparse(rng, tail, always=True), rng.integers(0, CLASSES, POSITIONS)
    check(
        Student(rng), sparse.soft, labels, lambda z: reference(sparse, loss, z, labels, temperature),
        loss=loss, temperature=temperature,
    )  # fmt: skip


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("loss", PER_ROW)
def test_dense_labels(rng: np.random.Generator, loss: str, mean: str, members: int, temperature: float) -> None:
    v, labels = rng.normal(0, 3, (POSITIONS, members, CLASSES)), rng.integers(0, CLASSES, POSITIONS)
    check(
        Student(rng), soft_labels(v), labels,
        lambda z: soft_term(loss, z, v, labels, temperature=temperature, mean=mean),
        loss=loss, temperature=temperature, mean=mean,
    )  # fmt: skip


@pytest.mark.parametrize("tail", ["dense", *TAILS])
def test_where_no_position_counts_there_is_nothing_to_learn(rng: np.random.Generator, tail: str) -> None:
    student, soft = Student(rng), dense_labels(rng) if tail == "dense" else Sparse(rng, tail).soft
    labels, nothing = torch.full((POSITIONS,), -1), torch.zeros(POSITIONS, dtype=torch.bool)
    loss = student.fused(soft, labels, valid=nothing)
    assert loss.item() == 0
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(loss, student.leaves))


@pytest.mark.parametrize("tail", ["dense", *TAILS])
def test_autocast_around_it_changes_nothing(rng: np.random.Generator, tail: str) -> None:
    student, soft = Student(rng, torch.float32), dense_labels(rng) if tail == "dense" else Sparse(rng, tail).soft
    labels = torch.tensor(rng.integers(-1, CLASSES, POSITIONS))
    want = student.fused(soft, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = student.fused(soft, labels)
    assert got.item() == want.item()
    for own, other in zip(student.gradients(got), student.gradients(want), strict=True):
        np.testing.assert_array_equal(own, other)
