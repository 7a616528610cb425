"""The Jensen-Shannon term: symmetric, bounded, finite where one side alone excludes a class, and its limits in beta."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from torchmetrics.functional.regression import jensen_shannon_divergence, kl_divergence

from tests.student.loss_reference import draw, soft_gradient, soft_labels, soft_only, softmax


def js(z: np.ndarray, v: np.ndarray, temperature: float = 1.0, **args: float) -> float:
    """The library's value with a teacher of one member, both (B, C)."""
    return soft_only(
        torch.tensor(z), soft_labels(v[:, None]), temperature=temperature, loss="js", loss_args=args
    ).item()


@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_it_is_what_scipy_and_torchmetrics_compute(rng: np.random.Generator, temperature: float) -> None:
    z, v = draw(rng, members=1)
    p, q = softmax(v[:, 0] / temperature), softmax(z / temperature)
    got = js(z, v[:, 0], temperature)
    assert got == pytest.approx(temperature**2 * (jensenshannon(p, q, axis=1) ** 2).mean(), rel=1e-4)
    theirs = jensen_shannon_divergence(torch.tensor(p), torch.tensor(q))
    assert got == pytest.approx(temperature**2 * theirs.item(), rel=1e-4)


@pytest.mark.parametrize(("loss", "swap"), [("forward_kl", False), ("reverse_kl", True)])
def test_the_kls_are_what_torchmetrics_computes(rng: np.random.Generator, loss: str, swap: bool) -> None:
    z, v = draw(rng, members=1)
    pair = [torch.tensor(softmax(v[:, 0] / 3)), torch.tensor(softmax(z / 3))]
    theirs = kl_divergence(*reversed(pair)) if swap else kl_divergence(*pair)
    got = soft_only(torch.tensor(z), soft_labels(v), temperature=3.0, loss=loss)
    assert got.item() == pytest.approx(9 * theirs.item(), rel=1e-4)


@pytest.mark.parametrize("scale", [3.0, 100.0])
def test_it_is_symmetric_and_at_most_log_2(rng: np.random.Generator, scale: float) -> None:
    z, v = draw(rng, members=1, scale=scale)
    for temperature in (1.0, 4.0):
        one, other = js(z, v[:, 0], temperature), js(v[:, 0], z, temperature)
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
        assert 0 < one <= temperature**2 * math.log(2) * (1 + 1e-6)
    assert js(z, v[:, 0], 2.0, beta=0.2) == pytest.approx(js(v[:, 0], z, 2.0, beta=0.8), rel=1e-4)
    far = np.array([[0.0, 200.0, 0.0]]), np.array([[200.0, 0.0, 0.0]])
    assert js(*far) == pytest.approx(math.log(2), rel=1e-6)


def test_its_limits_in_beta_are_the_two_kls(rng: np.random.Generator) -> None:
    z, v = draw(rng, members=1, scale=1.0)
    student, soft = torch.tensor(z), soft_labels(v)
    for loss, beta, scale in (("forward_kl", 1e-3, 1e-3), ("reverse_kl", 1 - 1e-3, 1e-3)):
        limit = soft_only(student, soft, temperature=2.0, loss=loss).item()
        assert js(z, v[:, 0], 2.0, beta=beta) / scale == pytest.approx(limit, rel=0.05)


def test_at_high_temperature_it_is_beta_times_one_minus_beta_of_a_kl(rng: np.random.Generator) -> None:
    z, v = draw(rng, members=1)
    limit = soft_gradient(z, soft_labels(v), temperature=1.0, loss="logit_mse")
    for beta in (0.5, 0.2):
        got = soft_gradient(z, soft_labels(v), temperature=1000.0, loss="js", loss_args={"beta": beta})
        assert np.abs(got / (beta * (1 - beta)) - limit).max() < 0.03 * np.abs(limit).max()


def test_a_class_that_one_side_alone_excludes_is_well_defined(rng: np.random.Generator) -> None:
    z, v = draw(rng, members=1)
    z[:, 1], z[2, 4] = -np.inf, -np.inf
    v[:, 0, 3], v[2, 0, 4] = -np.inf, -np.inf
    p, q = softmax(v[:, 0] / 2), softmax(z / 2)
    want = 4 * (jensenshannon(p, q, axis=1) ** 2).mean()
    assert js(z, v[:, 0], 2.0) == pytest.approx(want, rel=1e-4)
    gradient = soft_gradient(z, soft_labels(v), temperature=2.0, loss="js")
    assert np.isfinite(gradient).all()
    assert (gradient[np.isneginf(z)] == 0).all()
    assert (gradient[:, 3] > 0).all()  # the student is told to leave the class alone
