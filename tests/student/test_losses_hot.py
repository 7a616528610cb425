"""Values at a very high temperature, where T^2 multiplies what float32 rounds off: against float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from softlabels.labels.soft import SoftLabels
from softlabels.student.fused import linear_distillation_loss
from softlabels.student.loss_spec import LossSpec
from softlabels.student.losses import distillation_loss
from tests.student.loss_reference import kl, soft_labels, softmax
from tests.student.sparse_samples import Sparse

T, ROWS, CLASSES = 1000.0, 128, 3000
HALF_STEP = 2.0**-24  # what rounding takes of a probability, at most, as a share of it
WEIGHTS = {"temperature": T, "hard_weight": 0.0, "soft_weight": 1.0}
NONE = torch.full((ROWS,), -1)


def of(rng: np.random.Generator, kind: str) -> tuple[SoftLabels, np.ndarray, np.ndarray]:
    """Labels, their distributions (N, C) at T, and a student's logits (N, C) float32."""
    if kind == "lowrank":
        sparse = Sparse(rng, "lowrank", positions=ROWS, classes=CLASSES, k=8, always=True)
        soft, p = sparse.soft, sparse.probabilities(T)
    else:
        v = rng.normal(0, 3, (ROWS, 1 if kind == "dense" else 3, CLASSES)).astype(np.float32)
        soft = soft_labels(v)
        p = softmax(soft.members.logits.double().numpy() / T).mean(axis=1)
    z = T * np.log(p) + rng.normal(size=p.shape)
    return soft, p, (z - z.mean(axis=-1, keepdims=True) + 5).astype(np.float32)


@pytest.mark.parametrize("kind", ["dense", "members", "lowrank"])
@pytest.mark.parametrize("loss", ["forward_kl", "reverse_kl", "js"])
def test_values_are_those_of_float64(rng: np.random.Generator, kind: str, loss: str) -> None:
    soft, p, z = of(rng, kind)
    q = softmax(z.astype(np.float64) / T)
    each = {"forward_kl": kl, "reverse_kl": lambda p, q: kl(q, p), "js": jensen_shannon}[loss]
    want = T**2 * np.mean([each(*row) for row in zip(p, q, strict=True)])
    found = distillation_loss(torch.from_numpy(z), soft, NONE, loss=loss, **WEIGHTS).item()
    assert found == pytest.approx(want, abs=rounded_off(p, q))
    assert abs(want) > 0.1


@pytest.mark.parametrize("kind", ["dense", "members", "lowrank"])
def test_values_of_the_fused_loss(rng: np.random.Generator, kind: str) -> None:
    for _ in range(4):
        soft, p, z = of(rng, kind)
        q = softmax(z.astype(np.float64) / T)
        want = T**2 * np.mean([kl(*row) for row in zip(p, q, strict=True)])
        states, matrix = torch.from_numpy(z), torch.eye(CLASSES)
        found = linear_distillation_loss(states, matrix, None, soft, NONE, LossSpec(**WEIGHTS), classes=CLASSES).item()
        # each side's log-sum-exp is read off one rounded probability a position
        off = 5 * T**2 * HALF_STEP * (2 / 3 / ROWS) ** 0.5
        assert found == pytest.approx(want, abs=rounded_off(p, q) + off)


def rounded_off(p: np.ndarray, q: np.ndarray) -> float:
    """The probabilities' roundings are independent of each other, and exp's own error is a few of them."""
    spread = ((p**2).sum() + (q**2).sum()) ** 0.5 / ROWS
    return float(10 * T**2 * HALF_STEP * spread)


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> float:
    return kl(p, (p + q) / 2) / 2 + kl(q, (p + q) / 2) / 2
