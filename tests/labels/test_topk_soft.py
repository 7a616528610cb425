"""`SoftLabels` of sparse columns against the numpy reference (itself tested against the definition) and against definitions
written out here.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from softlabels.errors import ConfigError, MeanUnavailable
from softlabels.labels.class_ids import narrow, widen
from softlabels.labels.encoding import Tail, TopkEncoding
from softlabels.labels.ensemble import MEANS, log_probs
from softlabels.labels.soft import SoftLabels
from softlabels.labels.stored import IMPOSSIBLE
from softlabels.labels.topk_reference import topk_log_probs
from softlabels.labels.topk_soft import TopkMembers
from tests.labels import topk_reference as reference
from tests.labels.test_topk import basis_of, columns_of, encoding_of

TAILS: tuple[Tail, ...] = ("lowrank", "prior", "uniform", "bucket", "renormalised")
TEMPERATURES = (1.0, 1.3, 2.0, 4.0, 8.0, 20.0)
N, M, C, K = 5, 3, 60, 7


def soft_of(
    columns: dict[str, np.ndarray],
    encoding: TopkEncoding,
    classes: int,
    basis: np.ndarray | None,
    weights: list[float] | None = None,
    reduce: str = "none",
) -> SoftLabels:
    members = columns["top_logit"].shape[1]
    share = torch.tensor([1 / members] * members if weights is None else weights)
    tensors = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in columns.items()}
    stored = encoding.members(tensors, classes, None if basis is None else torch.from_numpy(basis))
    return SoftLabels(stored, share / share.sum(), reduce)


def assert_same(found: torch.Tensor, expected: np.ndarray) -> None:
    """float32 against float64: impossible classes alike, log-probabilities to float32's digits."""
    assert found.dtype == torch.float32
    assert np.array_equal(np.isneginf(found.numpy()), np.isneginf(expected))
    possible = np.isfinite(expected)
    np.testing.assert_allclose(found.numpy()[possible], expected[possible], rtol=3e-6, atol=2e-5)


def ensemble(log_p: list[np.ndarray], temperature: float, mean: str, share: list[float]) -> np.ndarray:
    """A position's log-probabilities (C,) from its members' at T, or at 1 for "tempered", a class at a time."""
    used = [m for m in range(len(share)) if share[m] > 0]
    classes = range(len(log_p[0]))
    if mean == "geometric":
        return reference.log_softmax(np.array([sum(share[m] * log_p[m][c] for m in used) for c in classes]))
    averaged = np.array([reference.lse([math.log(share[m]) + log_p[m][c] for m in used]) for c in classes])
    return averaged if mean == "arithmetic" else reference.log_softmax(averaged / temperature)


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("impossible", [False, True])
@pytest.mark.parametrize(("classes", "k"), [(60, 7), (2, 1), (2, 2), (30, 29), (30, 30), (5, 5)])
def test_a_member_is_the_reference(
    rng: np.random.Generator, tail: Tail, classes: int, k: int, impossible: bool
) -> None:
    encoding = encoding_of(tail, k)
    z = reference.some_logits(rng, "gaussian", N, 1, classes)
    if impossible:
        z[rng.random(z.shape) < 0.5] = -np.inf
        z[0, 0, : classes - 1] = -np.inf  # all mass on one class
        z[..., -1] = 3.0
    columns, basis = columns_of(rng, z, encoding), basis_of(rng, encoding, classes)
    soft = soft_of(columns, encoding, classes, basis)
    assert (len(soft), soft.classes, soft.stored_members, soft.tail) == (N, classes, 1, tail)
    for temperature in TEMPERATURES:
        expected = topk_log_probs(columns, encoding, classes, basis, temperature)[:, 0]
        for mean in MEANS:
            assert_same(soft.log_probs(temperature, mean), expected)
        ids, log_p, log_tail = soft.stored(temperature)
        assert_same(log_p, np.take_along_axis(expected, ids.numpy(), -1))
        rest = [[expected[n, i] for i in range(classes) if i not in ids[n]] for n in range(N)]
        assert_same(log_tail, np.array([reference.lse(row) for row in rest]))


@pytest.mark.parametrize("shape", reference.SHAPES)
@pytest.mark.parametrize("beta_max", [1.0, 2.5])
def test_shapes_and_low_temperatures(rng: np.random.Generator, shape: str, beta_max: float) -> None:
    encoding = encoding_of("lowrank", 16, count=8, beta_max=beta_max)
    z = reference.some_logits(rng, shape, 3, 1, 500)
    columns, basis = columns_of(rng, z, encoding), basis_of(rng, encoding, 500)
    soft = soft_of(columns, encoding, 500, basis)
    for temperature in (1 / beta_max, 1.1 / beta_max, 3.0, 50.0):
        assert_same(soft.log_probs(temperature), topk_log_probs(columns, encoding, 500, basis, temperature)[:, 0])
    with pytest.raises(ConfigError, match=rf"from {1 / beta_max:g} up"):
        soft.log_probs(0.99 / beta_max)


def test_where_the_stored_classes_hold_nearly_all_of_the_reconstruction(rng: np.random.Generator) -> None:
    """The prior puts the stored classes 60 above the tail: a difference of two sums would lose the tail altogether."""
    encoding = encoding_of("prior", 4)
    z = reference.some_logits(rng, "gaussian", N, 1, C)
    z[..., :4] += 30
    columns = columns_of(rng, z, encoding)
    basis = rng.normal(size=(1, C)).astype(np.float16)
    basis[0, :4] += 60
    found = soft_of(columns, encoding, C, basis).log_probs(1.0)
    assert_same(found, topk_log_probs(columns, encoding, C, basis, 1.0)[:, 0])
    tail = reference.log_softmax(basis[0, 4:].astype(np.float64))
    np.testing.assert_allclose(
        torch.log_softmax(found[:, 4:], -1).numpy(), np.broadcast_to(tail, (N, C - 4)), atol=1e-4
    )


@pytest.mark.parametrize("tail", ["lowrank", "prior"])
@pytest.mark.parametrize("whole", [False, True])
def test_classes_that_the_prior_holds_for_impossible(rng: np.random.Generator, tail: Tail, whole: bool) -> None:
    encoding = encoding_of(tail, K)
    columns = columns_of(rng, reference.some_logits(rng, "gaussian", N, 1, C), encoding)
    basis = basis_of(rng, encoding, C)
    assert basis is not None
    held = np.setdiff1d(np.arange(C), widen(columns, C)[0, 0])  # all of the first position's tail
    basis[0, held if whole else held[::2]] = IMPOSSIBLE
    soft = soft_of(columns, encoding, C, basis)
    for temperature in (1.0, 4.0, 1000.0):
        expected = topk_log_probs(columns, encoding, C, basis, temperature)[:, 0]
        assert np.isneginf(expected).any()
        assert_same(soft.log_probs(temperature), expected)


@pytest.mark.parametrize("tail", ["lowrank", "prior", "uniform", "renormalised"])
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.2, 0.0, 3.0]])
@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("temperature", [1.0, 2.0, 8.0])
def test_ensembles_are_means_of_full_distributions(
    rng: np.random.Generator, tail: Tail, weights: list[float], mean: str, temperature: float
) -> None:
    encoding = encoding_of(tail, K)
    z = reference.some_logits(rng, "gaussian", N, M, C)
    z[:, :, 3:] = np.where(rng.random((N, M, C - 3)) < 0.2, -np.inf, z[:, :, 3:])
    z[..., :2] += 12  # every member stores them: a geometric mean of members exists
    columns, basis = columns_of(rng, z, encoding), basis_of(rng, encoding, C)
    members = topk_log_probs(columns, encoding, C, basis, 1.0 if mean == "tempered" else temperature)
    share = [weight / sum(weights) for weight in weights]
    expected = np.array([ensemble(list(members[n]), temperature, mean, share) for n in range(N)])
    soft = soft_of(columns, encoding, C, basis, weights)
    if (tail, mean) == ("renormalised", "geometric"):
        with pytest.raises(MeanUnavailable, match=f"the geometric mean of {np.count_nonzero(weights)} members"):
            soft.log_probs(temperature, mean)
        return
    assert_same(soft.log_probs(temperature, mean), expected)
    for m in range(M):
        one = soft.member(m)
        assert (one.stored_members, one.weights.tolist()) == (1, [1.0])
        assert_same(
            one.log_probs(temperature, "arithmetic"), topk_log_probs(columns, encoding, C, basis, temperature)[:, m]
        )


@pytest.mark.parametrize(("k", "weights"), [(12, [0.5, 0.2, 0.3]), (5, [0.0, 1.0, 0.0])])
def test_renormalised_members_have_a_geometric_mean_where_all_classes_are_stored_or_one_member_counts(
    rng: np.random.Generator, k: int, weights: list[float]
) -> None:
    encoding, classes = encoding_of("renormalised", k), 12
    columns = columns_of(rng, reference.some_logits(rng, "gaussian", N, M, classes), encoding)
    members = topk_log_probs(columns, encoding, classes, None, 2.0)
    expected = log_probs(members, 1.0, "geometric", weights)  # those of T = 2 already
    soft = soft_of(columns, encoding, classes, None, weights)
    assert_same(soft.log_probs(2.0, "geometric"), expected)
    assert_same(soft.log_probs(2.0, "geometric", torch.full((N,), -1)), expected)


def test_an_ensemble_of_dense_like_labels_is_the_ensemble_of_their_logits(rng: np.random.Generator) -> None:
    """Where every class is stored, sparse labels are dense ones: all three means must agree with those."""
    encoding = encoding_of("lowrank", 12)
    z = reference.some_logits(rng, "gaussian", N, M, 12)
    columns, basis = columns_of(rng, z, encoding), basis_of(rng, encoding, 12)
    weights = torch.tensor([0.5, 0.2, 0.3])
    dense = SoftLabels.dense(torch.from_numpy(columns["top_logit"]), torch.zeros(N, M), weights)
    sparse = soft_of(columns, encoding, 12, basis, weights.tolist())
    for mean in MEANS:
        for temperature in (1.0, 3.0):
            torch.testing.assert_close(
                sparse.log_probs(temperature, mean), dense.log_probs(temperature, mean), rtol=1e-5, atol=1e-5
            )


@pytest.mark.parametrize("classes", [70_000, 140_000, (1 << 20) + 10])
def test_large_class_ids(rng: np.random.Generator, classes: int) -> None:
    encoding = encoding_of("prior", 6)
    columns = columns_of(rng, rng.normal(size=(2, 1, 20)), encoding)
    ids = np.array([[[0, 65_535, 65_536, classes - 3, classes - 2, classes - 1]], [[1, 2, 3, 65_536, 65_537, 69_999]]])
    if classes > 131_072:
        ids[1, 0, 3:] = 131_071, 131_072, 131_073
    columns |= narrow(ids, classes)
    basis = basis_of(rng, encoding, classes)
    soft = soft_of(columns, encoding, classes, basis)
    assert np.array_equal(soft.stored(1.0)[0].numpy(), ids[:, 0])
    found = soft.log_probs(2.0)
    assert_same(found, topk_log_probs(columns, encoding, classes, basis, 2.0)[:, 0])


def test_many_stored_classes_beside_pages(rng: np.random.Generator) -> None:
    """More than 127 and more than 255 stored classes: page counts are unsigned."""
    for k in (200, 300):
        encoding = encoding_of("uniform", k)
        columns = columns_of(rng, rng.normal(size=(1, 1, k + 5)), encoding)
        ids = np.sort(rng.choice(65_536, k - 1, replace=False))
        columns |= narrow(np.append(ids, 70_001)[None, None], 70_002)
        soft = soft_of(columns, encoding, 70_002, None)
        assert soft.stored(1.0)[0].tolist() == [[*ids.tolist(), 70_001]]


@pytest.mark.parametrize("tail", ["lowrank", "prior", "uniform", "bucket"])
def test_the_labels_own_probability_is_exact(rng: np.random.Generator, tail: Tail) -> None:
    encoding = encoding_of(tail, K)
    z = reference.some_logits(rng, "gaussian", 40, 1, C)
    columns, basis = columns_of(rng, z, encoding), basis_of(rng, encoding, C)
    labels = rng.integers(0, C, 40)
    columns["label_logit"] = (z - z.max(-1, keepdims=True))[np.arange(40), :, labels].astype(np.float16)
    columns["label_logit"][0] = np.nan  # the store knew no label
    labels[1] = -1
    soft = soft_of(columns, encoding, C, basis)
    for temperature in (1.0, 2.0, 8.0):
        plain = soft.log_probs(temperature).numpy()
        found = soft.log_probs(temperature, "arithmetic", torch.from_numpy(labels)).numpy()
        assert np.array_equal(found[:2], plain[:2])
        for n in range(2, 40):
            label = labels[n]
            exact = reference.log_softmax(z[n, 0] / temperature)
            assert abs(found[n, label] - exact[label]) < 0.02
            assert math.fsum(np.exp(found[n].astype(np.float64))) == pytest.approx(1, abs=1e-5)
            stored = soft.stored(temperature)[0][n]
            assert np.array_equal(found[n, stored], plain[n, stored])
            others = np.delete(found[n] - plain[n], [*stored, label])
            np.testing.assert_allclose(others, others[0], atol=2e-5)
            if label in stored:
                assert np.array_equal(found[n], plain[n])
    assert np.abs(found - plain).max() > 0.1  # the tail's shape alone is wrong about some


@pytest.mark.parametrize("tail", ["lowrank", "prior", "uniform", "bucket"])
def test_a_label_has_at_most_the_tails_mass_and_all_of_it_where_it_is_alone(
    rng: np.random.Generator, tail: Tail
) -> None:
    encoding = encoding_of(tail, K)
    z = reference.some_logits(rng, "gaussian", 2, 1, C)
    columns, basis = columns_of(rng, z, encoding), basis_of(rng, encoding, C)
    order = z[:, 0].argsort(-1)
    labels = order[:, -1 - K]  # the largest of the tail
    columns["label_logit"][:, 0] = columns["top_logit"][:, 0].min(-1)
    columns["tail_odds"][:] = -40.0  # the mass is far too small for it
    found = soft_of(columns, encoding, C, basis).log_probs(1.0, "arithmetic", torch.from_numpy(labels))
    for n in range(2):
        tail_of = order[n, :-K]
        assert found[n, tail_of].exp().sum().item() == pytest.approx(found[n, labels[n]].exp().item(), rel=1e-6)
        assert found[n].double().exp().sum().item() == pytest.approx(1, abs=1e-5)
    if basis is not None:  # a label that alone is possible by the prior takes the whole tail
        basis[0, np.setdiff1d(np.arange(C), [*order[0, -K:], labels[0]])] = IMPOSSIBLE
        columns["tail_odds"][:], columns["label_logit"][:, 0] = -6.0, -20.0
        soft = soft_of(columns, encoding, C, basis)
        found = soft[:1].log_probs(1.0, "arithmetic", torch.from_numpy(labels[:1]))
        # z + (log mass - z) is rounded twice, by at most half a float32 step of 128
        torch.testing.assert_close(found, soft[:1].log_probs(1.0), rtol=0, atol=2.0**-16)


def test_a_logit_that_is_another_classs_is_not_believed(rng: np.random.Generator) -> None:
    encoding = encoding_of("uniform", K)
    z = reference.some_logits(rng, "gaussian", N, 1, C)
    columns = columns_of(rng, z, encoding)
    columns["label_logit"][:] = 0.0  # of the most probable class, not of the labels below
    soft = soft_of(columns, encoding, C, None)
    labels = torch.from_numpy(z[:, 0].argmin(-1))
    assert torch.equal(soft.log_probs(1.0, "arithmetic", labels), soft.log_probs(1.0))


@pytest.mark.parametrize("mean", MEANS)
def test_labels_of_ensembles_are_exact_in_each_member(rng: np.random.Generator, mean: str) -> None:
    encoding = encoding_of("lowrank", K)
    z = reference.some_logits(rng, "gaussian", N, M, C)
    columns, basis = columns_of(rng, z, encoding), basis_of(rng, encoding, C)
    labels = torch.from_numpy(rng.integers(0, C, N))
    columns["label_logit"] = (z - z.max(-1, keepdims=True))[np.arange(N), :, labels].astype(np.float16)
    soft = soft_of(columns, encoding, C, basis, [0.5, 0.2, 0.3])
    inner = 1.0 if mean == "tempered" else 2.0
    each = [soft.member(m).log_probs(inner, "arithmetic", labels).double().numpy() for m in range(M)]
    expected = [ensemble([one[n] for one in each], 2.0, mean, [0.5, 0.2, 0.3]) for n in range(N)]
    assert_same(soft.log_probs(2.0, mean, labels), np.array(expected))


def test_cutting_and_moving(rng: np.random.Generator) -> None:
    encoding = encoding_of("lowrank", K)
    columns = columns_of(rng, reference.some_logits(rng, "zipf", N, M, C), encoding)
    soft = soft_of(columns, encoding, C, basis_of(rng, encoding, C))
    whole = soft.log_probs(2.0)
    torch.testing.assert_close(soft[1:3].log_probs(2.0), whole[1:3])
    cut = soft[torch.tensor([4, 0])].to("cpu").log_probs(2.0)
    torch.testing.assert_close(cut, whole[[4, 0]])  # a product of other size may round its last bits differently
    mask = torch.tensor([True, False, True, False, True])
    torch.testing.assert_close(soft[mask].log_probs(2.0), whole[mask])
    assert soft[:0].log_probs(2.0).shape == (0, C)


def test_half_precision_around_it_does_not_blur_it(rng: np.random.Generator) -> None:
    encoding = encoding_of("lowrank", K)
    columns = columns_of(rng, reference.some_logits(rng, "zipf", N, M, C), encoding)
    soft = soft_of(columns, encoding, C, basis_of(rng, encoding, C))
    with torch.autocast("cpu", torch.bfloat16):
        inside = soft.log_probs(1.0)
    assert torch.equal(inside, soft.log_probs(1.0))


def test_what_sparse_labels_cannot_give(rng: np.random.Generator) -> None:
    encoding = encoding_of("uniform", K)
    columns = columns_of(rng, reference.some_logits(rng, "zipf", N, 1, C), encoding)
    soft = soft_of(columns, encoding, C, None)
    with pytest.raises(MeanUnavailable, match="mean logits need every class's logit"):
        soft.mean_logits()
    with pytest.raises(MeanUnavailable, match="logit_standardization needs every class's logit"):
        soft.standardised()
    reduced = soft_of(columns, encoding, C, None, reduce="geometric")
    for call in (lambda mean: reduced.log_probs(1.0, mean), lambda mean: reduced.member(0)[:2].log_probs(1.0, mean)):
        with pytest.raises(MeanUnavailable, match="cannot give the arithmetic mean"):
            call("arithmetic")
        assert call("geometric").shape[1] == C
    with pytest.raises(ConfigError, match="harmonic"):
        soft.log_probs(1.0, "harmonic")


@pytest.mark.parametrize("temperature", [1.0, 20.0])
def test_probabilities_sum_to_1_whatever_the_scale(rng: np.random.Generator, temperature: float) -> None:
    """The largest scale that float16 holds: a tail whose logits lie 65,504 apart is a tail all the same."""
    encoding, z = encoding_of("lowrank", 4), rng.normal(size=(64, 1, 30))
    columns = columns_of(rng, z, encoding)
    columns["tail_scale"][:] = 65504
    basis = basis_of(rng, encoding, 30)
    columns["tail_odds"][:] = 3.0  # most of the mass
    assert basis is not None
    members = TopkMembers.of(columns, encoding=encoding, classes=30, basis=torch.from_numpy(basis))
    sums = members.log_probs(0, temperature).double().exp().sum(dim=-1)
    assert (sums - 1).abs().max() < 1e-5
