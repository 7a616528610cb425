"""Logit standardization: what it must not see, what it must keep, and its gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from softlabels.errors import MeanUnavailable
from softlabels.labels.soft import SoftLabels
from softlabels.labels.standardise import standardise
from softlabels.student.loss_spec import LOSS_NAMES
from tests.student.loss_reference import draw, soft_gradient, soft_labels, soft_only


def test_rows_have_mean_0_and_deviation_1_and_keep_their_order(rng: np.random.Generator) -> None:
    z = rng.normal(5, 30, (4, 3, 9))
    got = standardise(torch.tensor(z)).double().numpy()
    np.testing.assert_allclose(got, (z - z.mean(-1, keepdims=True)) / z.std(-1, keepdims=True), atol=1e-5)
    assert (got.argsort(-1) == z.argsort(-1)).all()
    assert np.abs(got).max() <= np.sqrt(8) + 1e-5  # sqrt(C - 1), one class against all others


def test_it_is_torchs_layer_norm_in_value_and_gradient(rng: np.random.Generator) -> None:
    z, g = rng.normal(0, 3, (2, 6, 5)).astype(np.float32)
    ours, theirs = (torch.tensor(z, requires_grad=True) for _ in range(2))
    standardise(ours).backward(torch.tensor(g))
    functional.layer_norm(theirs, (5,), eps=0.0).backward(torch.tensor(g))
    assert ours.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)


def test_the_authors_code_is_ours_at_another_temperature(rng: np.random.Generator) -> None:
    z = torch.tensor(rng.normal(0, 4, (6, 10)))
    theirs = (z - z.mean(-1, keepdim=True)) / (z.std(-1, keepdim=True) + 1e-7)  # torch divides by C - 1
    ours = standardise(z) / np.sqrt(10 / 9)
    torch.testing.assert_close(theirs.float(), ours.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", LOSS_NAMES["softmax"])
def test_no_loss_sees_a_shift_or_a_positive_scale_of_either_side(rng: np.random.Generator, loss: str) -> None:
    z, v = draw(rng)
    labels = rng.integers(0, 7, len(z))
    options = {"temperature": 2.0, "loss": loss, "logit_standardization": True}
    base = soft_only(torch.tensor(z), soft_labels(v), labels, **options).item()
    scaled_z = z * rng.uniform(0.1, 10, (len(z), 1)) + rng.normal(0, 10, (len(z), 1))
    scaled_v = v * rng.uniform(0.1, 10, (*v.shape[:2], 1)) + rng.normal(0, 10, (*v.shape[:2], 1))
    assert soft_only(torch.tensor(scaled_z), soft_labels(v), labels, **options).item() == pytest.approx(base, rel=1e-3)
    assert soft_only(torch.tensor(z), soft_labels(scaled_v), labels, **options).item() == pytest.approx(base, rel=1e-3)
    gradient = soft_gradient(z, soft_labels(v), labels, **options)
    size = np.abs(gradient).sum(axis=1)
    assert (np.abs(gradient.sum(axis=1)) < 1e-4 * size + 1e-6).all()  # no push along a shift
    assert (np.abs((gradient * z).sum(axis=1)) < 1e-3 * size + 1e-6).all()  # nor along the scale
    options["logit_standardization"] = False
    plain, scaled = (soft_gradient(z, soft_labels(each), labels, **options) for each in (v, scaled_v))
    assert np.abs(plain - scaled).max() > 1e-2 * np.abs(plain).max()  # of values, two may be close by chance


def test_members_are_standardised_before_the_mean_is_taken(rng: np.random.Generator) -> None:
    _, v = draw(rng)
    soft = soft_labels(v, rng.uniform(0.2, 1, 3)).standardised()
    z = (v - v.mean(-1, keepdims=True)) / v.std(-1, keepdims=True)
    np.testing.assert_allclose((soft.members.logits + soft.members.shift[:, :, None]).numpy(), z, atol=1e-5)
    assert (soft.members.logits.amax(dim=-1) == 0).all()  # as `SoftLabels` promises
    np.testing.assert_allclose(soft.mean_logits(), np.einsum("m,bmc->bc", soft.weights.numpy(), z), atol=1e-5)
    reduced = SoftLabels.dense(soft.members.logits[:, :1], soft.members.shift[:, :1], torch.ones(1), "geometric")
    with pytest.raises(MeanUnavailable, match=r"only the members' mean.*reduce: none"):
        reduced.standardised()


def test_impossible_classes_stay_impossible_and_do_not_count(rng: np.random.Generator) -> None:
    z = rng.normal(0, 3, (5, 6)).astype(np.float32)
    padded = np.concatenate([z, np.full((5, 2), -np.inf, np.float32)], axis=1)
    student = torch.tensor(padded, requires_grad=True)
    got = standardise(student)
    torch.testing.assert_close(got[:, :6], standardise(torch.tensor(z)))
    assert torch.isneginf(got[:, 6:]).all()
    got[:, :6].square().mul(torch.arange(6)).sum().backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert (student.grad[:, 6:] == 0).all()


@pytest.mark.parametrize("value", [0.0, 0.3, -1e6])
@pytest.mark.parametrize("loss", LOSS_NAMES["softmax"])
def test_a_row_without_shape_gives_zeros_and_passes_no_gradient(
    rng: np.random.Generator, loss: str, value: float
) -> None:
    """A student whose last layer starts at zero, say: the formula's gradient would be 1e7 there, or NaN."""
    z, v = draw(rng)
    z[:3] = value
    v[2:5] = value
    assert (standardise(torch.tensor(z))[:3] == 0).all()
    options = {"temperature": 2.0, "loss": loss, "logit_standardization": True}
    gradient = soft_gradient(z, soft_labels(v), rng.integers(0, 7, len(z)), **options)
    assert (gradient[:3] == 0).all()
    assert np.abs(gradient).max() < 100
