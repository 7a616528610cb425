"""The three means of an ensemble against their definitions, written again here in plain float64 arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from softlabels.errors import ConfigError, MeanUnavailable, NoPossibleClass
from softlabels.labels.ensemble import MEANS, check_mean, check_temperature, log_probs, normalised_weights
from softlabels.labels.soft import SoftLabels
from tests.labels.dense_reference import dense_columns

R, M, C = 6, 5, 10
TEMPERATURES = (1.0, 2.0, 4.0, 20.0)


def softmax(z: list[float]) -> list[float]:
    peak = max(z)
    parts = [math.exp(value - peak) for value in z]
    total = math.fsum(parts)
    return [part / total for part in parts]


def definition(z: np.ndarray, temperature: float, mean: str, weights: list[float]) -> list[float]:
    """Probabilities of one row (M, C) by the definition of each mean, a number at a time."""
    share = [weight / math.fsum(weights) for weight in weights]
    members = [m for m in range(len(z)) if share[m] > 0]
    classes = range(z.shape[1])
    if mean == "geometric":
        return softmax([math.fsum(share[m] * float(z[m, c]) for m in members) / temperature for c in classes])
    inner = temperature if mean == "arithmetic" else 1.0
    each = {m: softmax([float(z[m, c]) / inner for c in classes]) for m in members}
    averaged = [math.fsum(share[m] * each[m][c] for m in members) for c in classes]
    if mean == "arithmetic":
        return averaged
    return softmax([math.log(p) / temperature if p > 0 else -math.inf for p in averaged])


def some_logits(rng: np.random.Generator, *, impossible: bool) -> np.ndarray:
    z = rng.normal(size=(R, M, C)) * 4
    if impossible:
        z[:, :, 3] = -np.inf  # no member allows class 3; member 1 allows fewer
        z[:, 1, 5] = -np.inf
    return z


def soft_labels(z: np.ndarray, weights: list[float]) -> SoftLabels:
    shift = z.max(axis=-1)
    share = torch.tensor(weights, dtype=torch.float64) / math.fsum(weights)
    centred = torch.from_numpy(z - shift[..., None])
    return SoftLabels.dense(centred.float(), torch.from_numpy(shift).float(), share.float())


@pytest.mark.parametrize("impossible", [False, True])
@pytest.mark.parametrize("weights", [[1.0] * M, [0.3, 2.0, 0.7, 1.1, 5.0], [0.0, 0.0, 1.0, 3.0, 0.5]])
@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_each_mean_is_its_definition(
    rng: np.random.Generator, temperature: float, mean: str, weights: list[float], impossible: bool
) -> None:
    z = some_logits(rng, impossible=impossible)
    expected = np.array([definition(row, temperature, mean, weights) for row in z])
    log_p = log_probs(z, temperature, mean, weights)
    assert log_p.dtype == np.float64
    assert np.allclose(np.exp(log_p), expected, rtol=1e-12, atol=1e-300)
    assert np.array_equal(np.isneginf(log_p), expected == 0)
    assert np.allclose(np.exp(log_p).sum(axis=-1), 1, rtol=1e-12)

    torched = soft_labels(z, weights).log_probs(temperature, mean)
    assert torched.dtype == torch.float32
    assert torched.shape == (R, C)
    assert np.array_equal(np.isneginf(torched.numpy()), expected == 0)
    assert np.allclose(torched.exp().numpy(), expected, rtol=2e-5, atol=1e-30)


@pytest.mark.parametrize("mean", MEANS)
def test_a_member_of_no_weight_has_no_say(rng: np.random.Generator, mean: str) -> None:
    z, weights = rng.normal(size=(R, M, C)), [1.0, 0.0, 2.0, 0.0, 1.0]
    expected = log_probs(z[:, [0, 2, 4]], 2.0, mean, [1, 2, 1])
    z[:, 1] = -np.inf
    z[:, 1, 0] = 0  # certain of class 0
    z[:, 3, 1:] = -np.inf
    assert np.array_equal(log_probs(z, 2.0, mean, weights), expected)
    soft = soft_labels(z, weights)
    assert np.allclose(soft.log_probs(2.0, mean).numpy(), expected, rtol=1e-4, atol=1e-5)
    assert np.isfinite(soft.mean_logits().numpy()).all()


def test_the_means_are_three_different_things(rng: np.random.Generator) -> None:
    """Members that disagree: far apart at T = 1, close at high T; tempered and arithmetic meet at T = 1 only."""
    z = rng.normal(size=(2000, M, C)) * 2

    def distance(a: str, b: str, temperature: float) -> float:
        p, q = (np.exp(log_probs(z, temperature, mean)) for mean in (a, b))
        return float(np.abs(p - q).sum(axis=-1).mean() / 2)

    between = [distance("arithmetic", "geometric", t) for t in TEMPERATURES]
    assert between[0] > 0.1
    assert between == sorted(between, reverse=True)
    assert 0 < between[-1] < 0.01
    tempered = [distance("arithmetic", "tempered", t) for t in TEMPERATURES]
    assert tempered[0] < 1e-15
    assert min(tempered[1:]) > 0.003
    assert distance("geometric", "tempered", 1.0) > 0.1


@pytest.mark.parametrize("mean", MEANS)
def test_for_one_member_all_means_agree_and_constants_do_not_matter(rng: np.random.Generator, mean: str) -> None:
    z = rng.normal(size=(R, 1, C)) * 5
    expected = np.array([softmax([value / 3 for value in row[0]]) for row in z])
    assert np.allclose(np.exp(log_probs(z, 3.0, mean)), expected, rtol=1e-12)
    assert np.allclose(np.exp(log_probs(z + 1e4 * rng.random((R, 1, 1)), 3.0, mean)), expected, rtol=1e-9)
    assert np.allclose(soft_labels(z, [4.0]).log_probs(3.0, mean).exp().numpy(), expected, rtol=1e-5)


def test_high_and_low_temperature(rng: np.random.Generator) -> None:
    z = rng.normal(size=(R, M, C))
    assert np.allclose(np.exp(log_probs(z, 1024.0)), 1 / C, rtol=5e-3)
    cold = np.exp(log_probs(z * 1000, 2.0**-10))
    votes = np.array([np.bincount(row.argmax(axis=-1), minlength=C) / M for row in z])
    assert np.allclose(cold, votes, atol=1e-12)


def test_logits_come_back_from_what_is_stored(rng: np.random.Generator) -> None:
    z = rng.normal(size=(R, M, C)).astype(np.float32) * 3 + 100
    encoded = dense_columns(z)
    weights = rng.random(M).astype(np.float32)
    weights /= weights.sum()
    soft = SoftLabels.dense(
        torch.from_numpy(encoded.logits), torch.from_numpy(encoded.shift), torch.from_numpy(weights)
    )
    assert np.allclose(soft.mean_logits().numpy(), (z * weights[:, None]).sum(axis=1), atol=0.02)


def test_soft_labels_are_cut_along_the_batch(rng: np.random.Generator) -> None:
    soft = soft_labels(rng.normal(size=(R, M, C)), [1.0] * M)
    assert len(soft) == R
    rows = torch.tensor([4, 0])
    assert torch.equal(soft[rows].log_probs(2.0), soft.log_probs(2.0)[rows])
    assert torch.equal(soft[1:3].to("cpu").log_probs(2.0, "tempered"), soft.log_probs(2.0, "tempered")[1:3])


@pytest.mark.parametrize("mean", ["arithmetic", "tempered"])
def test_reduced_labels_refuse_what_they_cannot_give(mean: str) -> None:
    soft = SoftLabels.dense(torch.zeros(2, 1, 3), torch.zeros(2, 1), torch.ones(1), reduce="geometric")
    with pytest.raises(MeanUnavailable, match=f"cannot give the {mean} mean; ask for mean=geometric"):
        soft.log_probs(1.0, mean)
    assert soft[:1].log_probs(1.0, "geometric").shape == (1, 3)
    with pytest.raises(MeanUnavailable, match=mean):
        soft[:1].to("cpu").log_probs(1.0, mean)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_temperatures_are_above_zero(temperature: float) -> None:
    with pytest.raises(ConfigError, match="temperature must be a finite number above 0, not"):
        check_temperature(temperature)
    with pytest.raises(ConfigError, match="temperature"):
        log_probs(np.zeros((1, 1, 2)), temperature)


def test_only_known_means() -> None:
    with pytest.raises(ConfigError, match="'harmonic'; choose one of arithmetic, geometric, tempered"):
        check_mean("harmonic")


def test_no_geometric_mean_of_renormalised_members() -> None:
    with pytest.raises(MeanUnavailable, match="the geometric mean of 3 members needs"):
        check_mean("geometric", tail="renormalised", members=3)
    check_mean("geometric", tail="renormalised", members=1)
    check_mean("geometric", tail="uniform", members=3)
    check_mean("arithmetic", tail="renormalised", members=3)


def test_members_without_a_class_in_common_have_no_geometric_mean() -> None:
    apart = np.array([[0.0, -np.inf, -np.inf], [-np.inf, 0.0, -1.0]])
    logits = np.stack([np.zeros((2, 3)), apart])
    with pytest.raises(
        NoPossibleClass, match=r"no possible class in common \(1 of those given\); ask for mean=arithmetic"
    ):
        log_probs(logits, 2.0, "geometric")
    soft = SoftLabels.dense(torch.tensor(logits).half(), torch.zeros(2, 2), torch.full((2,), 0.5))
    with pytest.raises(NoPossibleClass, match="position 1 of 2"):
        soft.log_probs(2.0, "geometric")
    for mean in ("arithmetic", "tempered"):
        assert np.isfinite(log_probs(logits, 2.0, mean)).all()
        assert soft.log_probs(2.0, mean).isfinite().all()
    alone = log_probs(logits, 2.0, "geometric", [1, 0])  # a member of weight 0 does not count
    assert np.isneginf(alone).sum() == 2


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, math.nan], [1.0, math.inf], [1e308, 1e308]])
def test_weights_are_shares(weights: list[float]) -> None:
    with pytest.raises(ConfigError, match="2 members need 2 finite weights"):
        normalised_weights(weights, 2)
