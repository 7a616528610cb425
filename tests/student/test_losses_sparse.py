"""Losses on sparse labels: against the float64 reference of what is stored, and refused where it cannot serve them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from softlabels.errors import ConfigError, LogitsError
from softlabels.labels.stored import IMPOSSIBLE
from softlabels.student.loss_spec import LOSS_NAMES, LossSpec
from softlabels.student.losses import require_loss, soft_sum
from tests.student.loss_reference import DEFAULTS, cross_entropy, kl, row_term, soft_gradient, soft_only, softmax
from tests.student.sparse_samples import TAILS, Sparse

FULL = ("lowrank", "prior", "uniform")
REFUSED = {
    "bucket": ("dkd", "nkd", "dist", "logit_mse"),
    "renormalised": ("reverse_kl", "dkd", "nkd", "dist", "logit_mse"),
    **dict.fromkeys(FULL, ("dist", "logit_mse")),
}
SERVED = [(tail, loss) for tail in TAILS for loss in LOSS_NAMES["softmax"] if loss not in REFUSED[tail]]


def require(loss: str, tail: str, **options: Any) -> None:
    spec = LossSpec(1.0, loss=loss, **options)
    require_loss(spec, label_free_rows=0, micro_batch=None, reduce="none", classes=13, tail=tail)


def reference(sparse: Sparse, loss: str, z: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """Mean over the positions of the term's definition, in float64."""
    p, p_one, total = sparse.probabilities(temperature), sparse.probabilities(1.0), 0.0
    if loss in ("dkd", "nkd"):
        p, p_one = (exact_at_label(sparse, each, t, labels) for each, t in ((p, temperature), (p_one, 1.0)))
    for n, row in enumerate(z):
        if loss in ("dkd", "nkd"):
            total += row_term(loss, row, row, p[n], p_one[n], int(labels[n]), temperature, DEFAULTS[loss])
            continue
        one, other = p[n], softmax(row / temperature)
        if sparse.encoding.tail == "bucket":
            ids, stored, mass = sparse.outcomes(temperature)
            one, other = np.append(stored[n], mass[n]), np.append(other[ids[n]], np.delete(other, ids[n]).sum())
        total += temperature**2 * divergence(loss, one, other)
    return total / len(z)


def divergence(loss: str, p: np.ndarray, q: np.ndarray) -> float:
    if loss == "js":
        return kl(p, (p + q) / 2) / 2 + kl(q, (p + q) / 2) / 2
    return kl(q, p) if loss == "reverse_kl" else (kl if loss == "forward_kl" else cross_entropy)(p, q)


def exact_at_label(sparse: Sparse, p: np.ndarray, temperature: float, labels: np.ndarray) -> np.ndarray:
    """p with the label's own probability from its stored logit, at most the tail's mass, the tail's other classes scaled to
    what is left of that; one member.
    """
    ids, stored, mass = sparse.outcomes(temperature)
    p = p.copy()
    for n, label in enumerate(labels):
        logit, top = sparse.columns["label_logit"][n, 0], sparse.columns["top_logit"][n, 0]
        if label in ids[n] or np.isnan(logit) or logit > top.min():
            continue
        own = min(np.exp(np.float64(logit) / temperature) * stored[n].max(), mass[n])  # the largest logit is 0
        others = np.setdiff1d(np.arange(p.shape[1]), [*ids[n], label])
        p[n, others] *= (mass[n] - own) / p[n, others].sum()
        p[n, label] = own
    return p


@pytest.mark.parametrize("temperature", [1.0, 1.3, 2.0, 8.0])
@pytest.mark.parametrize(("tail", "loss"), SERVED)
def test_matches_the_definition(rng: np.random.Generator, tail: str, loss: str, temperature: float) -> None:
    require(loss, tail)
    sparse = Sparse(rng, tail, always=True)
    z, labels = rng.normal(0, 3, (9, 13)), rng.integers(0, 13, 9)
    got = soft_only(torch.tensor(z), sparse.soft, labels, temperature=temperature, loss=loss)
    assert got.item() == pytest.approx(reference(sparse, loss, z, labels, temperature), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(("tail", "loss"), SERVED)
def test_gradients_are_the_slopes_of_the_definition(rng: np.random.Generator, tail: str, loss: str) -> None:
    sparse = Sparse(rng, tail, always=True)
    z, labels = rng.normal(0, 2, (9, 13)), rng.integers(0, 13, 9)
    gradient = soft_gradient(z, sparse.soft, labels, temperature=2.0, loss=loss)
    for step in rng.normal(size=(4, *z.shape)):
        ends = [reference(sparse, loss, z + sign * 1e-5 * step, labels, 2.0) for sign in (1, -1)]
        assert (gradient * step).sum() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=2e-3, abs=2e-4)


@pytest.mark.parametrize("loss", ["forward_kl", "reverse_kl", "js", "dkd"])
@pytest.mark.parametrize("tail", TAILS)
def test_a_divergence_is_nothing_where_the_student_is_the_decoded_teacher(
    rng: np.random.Generator, tail: str, loss: str
) -> None:
    if loss in REFUSED[tail]:
        return
    sparse = Sparse(rng, tail, always=True)
    sparse.soft = sparse.as_soft(label_logit=np.full((9, 1), np.nan, np.float16))
    with np.errstate(divide="ignore"):
        z = np.maximum(np.log(sparse.probabilities(3.0)) * 3, -1e5)
    labels = rng.integers(0, 13, 9)
    assert abs(soft_only(torch.tensor(z), sparse.soft, labels, temperature=3.0, loss=loss).item()) < 2e-5
    if tail == "bucket":  # whatever its shape inside the bucket
        ids, _, _ = sparse.outcomes(3.0)
        others = np.exp(rng.normal(size=z.shape))
        np.put_along_axis(others, ids, 0.0, axis=1)
        mass = 1 - np.take_along_axis(softmax(z / 3), ids, 1).sum(1)
        with np.errstate(divide="ignore"):
            spread = np.log(others / others.sum(1, keepdims=True) * mass[:, None]) * 3
        np.put_along_axis(
            spread, ids, np.take_along_axis(z - np.log(np.exp(z / 3).sum(1, keepdims=True)) * 3, ids, 1), 1
        )
        assert abs(soft_only(torch.tensor(spread), sparse.soft, labels, temperature=3.0, loss=loss).item()) < 2e-5


def test_all_classes_stored_are_the_dense_labels(rng: np.random.Generator) -> None:
    """k >= C, also C = 2: no tail is left, whatever it is called."""
    for classes in (2, 5):
        z = rng.normal(0, 3, (9, classes))
        for tail in TAILS:
            sparse = Sparse(rng, tail, classes=classes, k=classes)
            if "tail_odds" in sparse.columns:
                sparse.columns["tail_odds"][:] = -np.inf
                sparse.soft = sparse.as_soft()
            p = sparse.probabilities(2.0)
            for loss in ("forward_kl", "soft_ce", "js"):
                want = np.mean(
                    [row_term(loss, z[n], z[n], p[n], p[n], 0, 2.0, DEFAULTS.get(loss, {})) for n in range(9)]
                )
                got = soft_only(torch.tensor(z), sparse.soft, temperature=2.0, loss=loss)
                assert got.item() == pytest.approx(want, rel=1e-4)


def test_a_student_whose_tail_is_all_but_nothing_still_has_a_gradient(rng: np.random.Generator) -> None:
    """1 - sum of the stored would round to 0 there."""
    sparse = Sparse(rng, "bucket", positions=1, always=True)
    ids, _, mass = sparse.outcomes(1.0)
    z = np.full((1, 13), -60.0)
    z[0, ids[0]] = rng.normal(size=ids.shape[1])
    got = soft_only(torch.tensor(z), sparse.soft, temperature=1.0)
    assert got.item() == pytest.approx(reference(sparse, "forward_kl", z, np.zeros(1, int), 1.0), rel=1e-4)
    gradient = soft_gradient(z, sparse.soft, temperature=1.0)
    tail = np.setdiff1d(np.arange(13), ids[0])
    np.testing.assert_allclose(gradient[0, tail], -mass[0] / len(tail), rtol=1e-4)


@pytest.mark.parametrize("tail", TAILS)
def test_what_is_stored_cannot_serve_every_loss(rng: np.random.Generator, tail: str) -> None:
    z, soft = torch.tensor(rng.normal(size=(9, 13))), Sparse(rng, tail).soft
    for loss in REFUSED[tail]:
        message = rf"the loss {loss} is not available for labels with encoding topk, tail {tail}: .*; use loss="
        with pytest.raises(ConfigError, match=message):
            require(loss, tail)
        with pytest.raises(ConfigError, match=message):
            soft_sum(z, soft, torch.zeros(9).long(), LossSpec(2.0, loss=loss))
    with pytest.raises(ConfigError, match="logit_standardization needs the mean and deviation of all logits"):
        require("forward_kl", tail, logit_standardization=True)
    with pytest.raises(ConfigError, match="logit_standardization needs the mean and deviation of all logits"):
        soft_sum(z, soft, None, LossSpec(2.0, logit_standardization=True))
    if tail != "renormalised":
        with pytest.raises(ConfigError, match=r"temperatures from 1 up, not at 0\.9"):
            soft_sum(z, soft, None, LossSpec(0.9))


def test_reverse_kl_where_nothing_is_left_for_the_tail(rng: np.random.Generator) -> None:
    for tail in ("lowrank", "bucket"):
        sparse = Sparse(rng, tail)
        sparse.soft = sparse.as_soft(tail_odds=np.full_like(sparse.columns["tail_odds"], -np.inf))
        with pytest.raises(LogitsError, match="reverse_kl is infinite"):
            soft_only(torch.tensor(rng.normal(size=(9, 13))), sparse.soft, temperature=2.0, loss="reverse_kl")


@pytest.mark.parametrize("tail", ["lowrank", "prior"])
def test_reverse_kl_where_the_prior_holds_a_class_for_impossible(rng: np.random.Generator, tail: str) -> None:
    sparse, z = Sparse(rng, tail, always=True), rng.normal(size=(9, 13))
    assert sparse.basis is not None
    held = int(np.setdiff1d(np.arange(13), sparse.outcomes(1.0)[0][0])[0])
    sparse.basis[0, held] = IMPOSSIBLE
    with pytest.raises(LogitsError, match="reverse_kl is infinite"):
        soft_only(torch.tensor(z), sparse.as_soft(), temperature=2.0, loss="reverse_kl")
    z[:, held] = -np.inf  # to the student too; where the class is stored, that is another matter: only q counts
    got = soft_only(torch.tensor(z), sparse.as_soft(), temperature=2.0, loss="reverse_kl")
    sparse.soft = sparse.as_soft()
    assert got.item() == pytest.approx(reference(sparse, "reverse_kl", z, np.zeros(9, int), 2.0), rel=1e-4)
