"""DKD and NKD: the decomposition of KL that they start from, torch's own forms, and rows that leave nothing to decompose."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from softlabels.errors import NoPossibleClass
from softlabels.labels.soft import SoftLabels
from tests.student.loss_reference import draw, soft_gradient, soft_labels, soft_only, softmax

TCKD, NCKD = {"alpha": 1.0, "beta": 0.0}, {"alpha": 0.0, "beta": 1.0}


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("scale", [2.0, 15.0])
@pytest.mark.parametrize("classes", [2, 7])
def test_kl_is_tckd_and_one_minus_pt_times_nckd(
    rng: np.random.Generator, classes: int, scale: float, members: int
) -> None:
    """Row by row, in value and in gradient."""
    z, v = draw(rng, rows=5, members=members, classes=classes, scale=scale)
    labels, t = rng.integers(0, classes, len(z)), 3.0
    for row in range(len(z)):
        one, soft, label = z[[row]], soft_labels(v[[row]]), labels[[row]]
        one_minus_pt = np.delete(softmax(v[row] / t).mean(axis=0), labels[row]).sum()
        terms = [
            {"temperature": t, "loss": "dkd", "loss_args": TCKD},
            {"temperature": t, "loss": "dkd", "loss_args": NCKD},
            {"temperature": t},
        ]
        tckd, nckd, whole = (soft_only(torch.tensor(one), soft, label, **options).item() for options in terms)
        assert tckd + one_minus_pt * nckd == pytest.approx(whole, rel=1e-3, abs=1e-4)
        tckd, nckd, whole = (soft_gradient(one, soft, label, **options) for options in terms)
        np.testing.assert_allclose(tckd + one_minus_pt * nckd, whole, rtol=1e-3, atol=1e-4)


def test_they_are_sums_of_torchs_own_forms(rng: np.random.Generator) -> None:
    z, v = draw(rng, members=1)
    labels, t = rng.integers(0, 7, len(z)), 4.0
    student, teacher = torch.tensor(z), torch.tensor(v[:, 0])
    own = torch.tensor(labels)[:, None]
    keep = torch.ones_like(student, dtype=torch.bool).scatter_(1, own, False)
    log_p, log_q = (torch.log_softmax(x[keep].reshape(len(z), -1) / t, dim=-1) for x in (teacher, student))
    nckd = functional.kl_div(log_q, log_p, log_target=True, reduction="batchmean")
    pairs = [torch.softmax(x / t, dim=-1).gather(1, own) for x in (teacher, student)]
    p, q = (torch.cat([pair, 1 - pair], dim=1) for pair in pairs)
    tckd = functional.kl_div(q.log(), p, reduction="batchmean")
    got = soft_only(student, soft_labels(v), labels, temperature=t, loss="dkd", loss_args={"alpha": 0.7, "beta": 3.0})
    assert got.item() == pytest.approx(16 * (0.7 * tckd + 3 * nckd).item(), rel=1e-4)

    p_one = torch.softmax(teacher, dim=-1).gather(1, own)[:, 0]
    of_own = (p_one * functional.cross_entropy(student, own[:, 0], reduction="none")).mean()
    of_others = functional.cross_entropy(student[keep].reshape(len(z), -1) / t, log_p.exp())
    got = soft_only(student, soft_labels(v), labels, temperature=t, loss="nkd", loss_args={"gamma": 0.8})
    assert got.item() == pytest.approx((of_own + 0.8 * 16 * of_others).item(), rel=1e-4)


def test_the_defaults_are_the_papers(rng: np.random.Generator) -> None:
    z, v = draw(rng)
    labels = rng.integers(0, 7, len(z))
    for loss, args in (("dkd", {"alpha": 1.0, "beta": 8.0}), ("nkd", {"gamma": 1.5})):
        one, other = (
            soft_only(torch.tensor(z), soft_labels(v), labels, temperature=4.0, loss=loss, loss_args=given)
            for given in (None, args)
        )
        assert one.item() == other.item()


def test_one_minus_pt_does_not_round_to_zero() -> None:
    """The teacher is sure to 1 part in 10^26, where 1 - p_t is 0 in float32; its ranking of the others is still taught."""
    v, z = np.array([[[60.0, 2.0, 1.0, 0.0]]]), np.array([[55.0, 0.0, 1.0, 2.0]])
    p, q = softmax(np.array([2.0, 1.0, 0.0])), softmax(np.array([0.0, 1.0, 2.0]))
    got = soft_only(torch.tensor(z), soft_labels(v), np.array([0]), temperature=1.0, loss="dkd", loss_args=NCKD)
    assert got.item() == pytest.approx((p * np.log(p / q)).sum(), rel=1e-5)
    gradient = soft_gradient(z, soft_labels(v), np.array([0]), temperature=1.0, loss="dkd", loss_args=NCKD)
    np.testing.assert_allclose(gradient, [[0, *(q - p)]], atol=1e-5)


@pytest.mark.parametrize("loss", ["dkd", "nkd"])
def test_a_teacher_that_allows_only_the_label_teaches_nothing_of_the_others(
    rng: np.random.Generator, loss: str
) -> None:
    z, v = draw(rng, members=1, rows=4)
    labels = np.array([0, 1, 2, 3])
    v[np.arange(7) != labels[:, None, None]] = -np.inf
    got = soft_only(torch.tensor(z), soft_labels(v), labels, temperature=2.0, loss=loss).item()
    t = 2.0 if loss == "dkd" else 1.0
    q = softmax(z / t)[np.arange(4), labels]
    assert got == pytest.approx(t * t * -np.log(q).mean(), rel=1e-4)
    z[0, 1:] = -np.inf  # and a student that agrees
    gradient = soft_gradient(z, soft_labels(v), labels, temperature=2.0, loss=loss)
    assert np.isfinite(gradient).all()
    assert (gradient[0] == 0).all()
    assert (np.abs(gradient[1:]) > 0).all()


@pytest.mark.parametrize("loss", ["dkd", "nkd"])
def test_a_label_that_the_teacher_excludes_is_no_fault(rng: np.random.Generator, loss: str) -> None:
    z, v = draw(rng, members=1)
    labels = np.full(len(z), 2)
    v[:, :, 2] = -np.inf
    q = softmax(z / 3)
    rest = np.delete(q, 2, axis=1)
    p = np.delete(softmax(v[:, 0] / 3), 2, axis=1)
    share = rest / rest.sum(axis=1, keepdims=True)
    want = {
        "dkd": 9 * (-np.log(1 - q[:, 2]) + 8 * (p * np.log(p / share)).sum(axis=1)).mean(),
        "nkd": 9 * 1.5 * -(p * np.log(share)).sum(axis=1).mean(),
    }[loss]
    assert soft_only(torch.tensor(z), soft_labels(v), labels, temperature=3.0, loss=loss).item() == pytest.approx(
        want, rel=1e-4
    )
    assert np.isfinite(soft_gradient(z, soft_labels(v), labels, temperature=3.0, loss=loss)).all()
    z[:, 2] = -np.inf  # impossible on both sides
    assert np.isfinite(soft_gradient(z, soft_labels(v), labels, temperature=3.0, loss=loss)).all()


@pytest.mark.parametrize("loss", ["dkd", "nkd"])
def test_a_student_that_excludes_what_the_teacher_allows_is_infinitely_wrong(
    rng: np.random.Generator, loss: str
) -> None:
    z, v = draw(rng)
    labels = np.full(len(z), 2)
    for wrong in (2, 3):
        student = z.copy()
        student[0, wrong] = -np.inf
        got = soft_only(torch.tensor(student), soft_labels(v), labels, temperature=2.0, loss=loss)
        assert got.item() == math.inf


def test_members_without_a_common_class_do_not_pass_as_a_loss_of_zero() -> None:
    v = np.array([[[0.0, -np.inf, -np.inf], [-np.inf, 0.0, 0.0]]])
    soft: SoftLabels = soft_labels(v)
    for loss in ("forward_kl", "js", "dkd", "nkd", "dist"):
        with pytest.raises(NoPossibleClass, match="position 0 of 1"):
            soft_only(torch.zeros(1, 3), soft, np.array([0]), temperature=1.0, mean="geometric", loss=loss)
