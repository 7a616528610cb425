"""Prior, basis and coefficients against the singular value decomposition and least squares of numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from softlabels.errors import ConfigError, LogitsError
from softlabels.labels import tail_basis, tail_fit
from softlabels.labels.stored import IMPOSSIBLE
from softlabels.labels.tail_basis import coefficient_columns, find_basis
from softlabels.labels.tail_fit import TailBasis
from softlabels.labels.topk_fields import check_basis
from softlabels.labels.topk_reference import coefficients, topk_log_probs
from tests.labels.test_topk import encoding_of

C, RANK, K = 200, 5, 8


def low_rank_logits(rng: np.random.Generator, count: int, noise: float = 0.0) -> np.ndarray:
    """(n, 1, C): a product of hidden states and an output matrix of rank `RANK`, and noise."""
    output = np.random.default_rng(7).normal(size=(RANK, C)) * (3.0 / np.arange(1, RANK + 1))[:, None]
    prior = np.random.default_rng(8).normal(size=C)
    z = prior + rng.normal(size=(count, RANK)) @ output + noise * rng.normal(size=(count, C))
    return (z + 10 * rng.normal(size=(count, 1)))[:, None]


def test_prior_and_basis_are_those_of_a_singular_value_decomposition(rng: np.random.Generator) -> None:
    z = low_rank_logits(rng, 300, noise=0.3)
    found = find_basis(torch.from_numpy(z).split(70), RANK).astype(np.float64)
    below = z[:, 0] - z[:, 0].max(axis=-1, keepdims=True)
    prior = below.mean(axis=0)
    np.testing.assert_allclose(found[0], prior, rtol=2e-3, atol=2e-3)
    rest = below - prior
    rest -= rest.mean(axis=1, keepdims=True)
    _, values, vectors = np.linalg.svd(rest, full_matrices=False)
    expected = values[:RANK, None] * vectors[:RANK] / np.sqrt(300)
    expected *= np.sign(np.take_along_axis(expected, np.abs(expected).argmax(1)[:, None], 1))
    np.testing.assert_allclose(found[1:], expected, rtol=0.02, atol=0.02)
    check_basis(find_basis(torch.from_numpy(z).split(70), RANK), (1 + RANK, C))


def test_the_same_sample_gives_the_same_basis_whatever_the_blocks(rng: np.random.Generator) -> None:
    z = torch.from_numpy(low_rank_logits(rng, 120, noise=0.5))
    one = find_basis([z], 3)
    assert np.array_equal(one, find_basis(z.split(7), 3))
    members = z.reshape(60, 2, C)
    assert np.array_equal(one, find_basis(iter([members[:10], members[10:]]), 3))
    torch.manual_seed(99)  # the global generator has no say
    assert np.array_equal(one, find_basis([z], 3))


def test_chunks_of_classes_do_not_matter(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    z = torch.from_numpy(low_rank_logits(rng, 100))
    z[:, :, 11] = -torch.inf
    whole = find_basis([z], 3)
    monkeypatch.setattr(tail_basis, "_CHUNK_BYTES", 4 * 100 * 17)
    np.testing.assert_allclose(find_basis([z], 3).astype(float), whole.astype(float), rtol=2e-3, atol=2e-3)


def test_impossible_classes(rng: np.random.Generator) -> None:
    z = low_rank_logits(rng, 100)
    z[:, :, 3] = -np.inf
    z[:50, :, 4] = -np.inf
    found = find_basis([torch.from_numpy(z)], 3)
    check_basis(found, (4, C))
    assert found[0, 3] == IMPOSSIBLE
    assert (found[1:, 3] == 0).all()
    below = (z[50:, 0, 4] - z[50:, 0].max(axis=-1)).astype(np.float32).astype(np.float16)  # by float32, as torch does
    mean = float(below.mean(dtype=np.float64))
    assert found[0, 4] == pytest.approx(mean, abs=0.501 * float(np.spacing(np.float16(-mean))))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rank", [0, 3])
def test_positions_without_a_distribution_are_refused(rng: np.random.Generator, value: float, rank: int) -> None:
    z = low_rank_logits(rng, 30)
    z[7, 0, slice(None) if value == -np.inf else 4] = value
    with pytest.raises(LogitsError, match=r"row 7 of a sampled block, member 0"):
        find_basis([torch.from_numpy(z)], rank)


def test_a_class_that_the_sample_never_allows_does_not_spoil_the_others(rng: np.random.Generator) -> None:
    sample, z = low_rank_logits(rng, 300), torch.from_numpy(low_rank_logits(rng, 50))
    sample[:, :, 3] = -np.inf
    basis = torch.from_numpy(find_basis([torch.from_numpy(sample)], RANK))
    encoding = encoding_of("lowrank", K, count=8, rank=RANK, fine=RANK)
    columns, _ = encoding.encode(z, basis=basis)
    log_q = topk_log_probs(columns, encoding, C, basis.numpy(), 2.0)[:, 0]
    rest = np.delete(np.arange(C), 3)
    found, exact = (torch.log_softmax(torch.as_tensor(one[:, rest]), -1) for one in (log_q, z[:, 0].numpy() / 2))
    assert (exact.exp() * (exact - found)).sum(dim=1).max() < 0.05


def test_rank_zero_is_the_prior_alone(rng: np.random.Generator) -> None:
    z = torch.from_numpy(low_rank_logits(rng, 20))
    assert find_basis([z], 0).shape == (1, C)
    assert np.array_equal(find_basis([z], 0)[0], find_basis([z], 4)[0])


@pytest.mark.parametrize("impossible", ["nowhere", "at some positions", "throughout the sample"])
def test_calls_that_share_a_basis_give_the_columns_of_one_alone(rng: np.random.Generator, impossible: str) -> None:
    z = low_rank_logits(rng, 60, noise=0.3)
    if impossible != "nowhere":
        z[(slice(None) if impossible == "throughout the sample" else slice(10, 20)), 0, 7] = -np.inf
    basis = torch.from_numpy(find_basis([torch.from_numpy(z)], RANK))
    encoding, shared = encoding_of("lowrank", K, rank=RANK, fine=1), TailBasis(basis)
    for part in np.split(z, [25]):
        alone, _ = encoding.encode(torch.from_numpy(part), basis=basis.clone())
        found, _ = encoding.encode(torch.from_numpy(part), basis=shared)
        assert all(
            np.array_equal(found[name], values, equal_nan=name == "label_logit") for name, values in alone.items()
        )


@pytest.mark.parametrize(("count", "rank"), [(4, 5), (0, 1), (500, 201)])
def test_samples_too_small_for_the_rank(rng: np.random.Generator, count: int, rank: int) -> None:
    blocks = [torch.from_numpy(low_rank_logits(rng, count))] if count else []
    remedy = "keep so few classes densely" if count == 500 else "a larger transfer set"
    with pytest.raises(
        ConfigError, match=rf"a sample of {count} distributions.*rank {rank}; take a lower rank.*{remedy}"
    ):
        find_basis(blocks, rank)


def test_coefficients_are_those_of_least_squares_over_the_tail(rng: np.random.Generator) -> None:
    basis = find_basis([torch.from_numpy(low_rank_logits(rng, 300, noise=0.3))], RANK)
    z = low_rank_logits(rng, 20, noise=0.3)[:, 0]
    z -= z.max(axis=-1, keepdims=True)
    ids = np.sort(np.argsort(-z, axis=-1)[:, :K], axis=-1)
    tail = z.copy()
    np.put_along_axis(tail, ids, -np.inf, axis=-1)
    found = TailBasis(torch.from_numpy(basis)).coefficients(torch.from_numpy(tail), torch.from_numpy(ids)).numpy()
    wide = basis.astype(np.float64)
    for n in range(20):
        rest = np.setdiff1d(np.arange(C), ids[n])
        terms = np.vstack([np.ones(len(rest)), wide[1:, rest]]).T
        ridged = np.vstack([terms, np.sqrt(tail_fit._RIDGE) * np.eye(1 + RANK)[1:]])
        target = np.append(z[n, rest] - wide[0, rest], np.zeros(RANK))
        expected = np.linalg.lstsq(ridged, target, rcond=None)[0][1:]
        np.testing.assert_allclose(found[n], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("left", [0, 1, 2])
def test_tails_of_few_classes_have_coefficients(rng: np.random.Generator, left: int) -> None:
    encoding = encoding_of("lowrank", C - left, rank=RANK)
    basis = find_basis([torch.from_numpy(low_rank_logits(rng, 300))], RANK)
    z = torch.from_numpy(low_rank_logits(rng, 4))
    z[0, 0, 1:] = -torch.inf
    columns, lost = encoding.encode(z, basis=torch.from_numpy(basis))
    assert np.isfinite(coefficients(columns, encoding)).all()
    assert all(line.kl_max is not None and line.kl_max < 1e-3 for line in lost.fidelity)


def test_tails_of_low_rank_come_back(rng: np.random.Generator) -> None:
    """What the basis can say is kept but for int8's rounding; a prior alone says far less, uniform less still."""
    sample = torch.from_numpy(low_rank_logits(rng, 300))
    basis = torch.from_numpy(find_basis([sample], RANK))
    z = torch.from_numpy(low_rank_logits(rng, 200))

    def kl(tail: str) -> float:
        encoding = encoding_of(tail, K, count=8, rank=RANK, fine=RANK)  # type: ignore[arg-type]
        given = {"lowrank": basis, "prior": basis[:1]}.get(tail)
        sums = encoding.encode(z, basis=given)[1].fidelity[1]
        assert sums.kl_sum is not None
        return sums.kl_sum / sums.samples

    assert kl("lowrank") < 2e-3 < 0.1 * kl("prior")
    assert kl("prior") < kl("uniform")


@pytest.mark.parametrize(("rank", "fine"), [(9, 9), (9, 0), (9, 4), (8, 4), (1, 0)])
def test_rounding_to_a_position_s_largest(rng: np.random.Generator, rank: int, fine: int) -> None:
    def never(bad: torch.Tensor, what: str, remedy: str) -> None:
        assert not bad.any()

    encoding = encoding_of("lowrank", K, rank=rank, fine=fine)
    exact = torch.from_numpy(rng.normal(size=(500, rank)) * 10 ** rng.uniform(-3, 3, (500, 1)))
    columns = {name: values.numpy() for name, values in coefficient_columns(exact, encoding, never).items()}
    declared = {name: (dtype, shape) for name, dtype, shape, _ in encoding.columns(C, 1)}
    for name, values in columns.items():
        assert (values.dtype.name, (1, *values.shape[1:])) == declared[name]
    back = coefficients(columns, encoding)
    assert back.shape == exact.shape
    for which, steps in ((slice(fine), 127), (slice(fine, None), 7)):
        one, other = exact.numpy()[:, which], back[:, which]
        if one.size:
            scale = np.abs(one).max(axis=1, keepdims=True)
            assert (np.abs(other - one) <= np.maximum(scale * (0.502 / steps + 2**-11), tail_basis.SMALLEST)).all()
            np.testing.assert_allclose(
                np.abs(other).max(axis=1, keepdims=True), scale, rtol=2**-10, atol=tail_basis.SMALLEST
            )


def test_coefficients_of_nothing_and_beyond_float16() -> None:
    encoding, told = encoding_of("lowrank", K, rank=2, fine=1), []

    def refuse(bad: torch.Tensor, what: str, remedy: str) -> None:
        told.append(bad.tolist())

    tiny = torch.tensor([[0.0, 0.0], [3e-7, -2e-8]], dtype=torch.float64)
    columns = coefficient_columns(tiny, encoding, refuse)
    assert columns["tail_scale"].tolist() == [[0, 0], [0, 0]]
    assert columns["tail_fine"].tolist() == [[0], [0]]
    assert columns["tail_coarse"].tolist() == [[0], [0]]
    assert told == [[False, False]] * 2
    coefficient_columns(torch.tensor([[1.0, 1.0], [1.0, 70_000.0]]), encoding, refuse)
    assert told[2:] == [[False, False], [False, True]]


def test_half_precision_around_it_blurs_no_coefficients(rng: np.random.Generator) -> None:
    basis, tail = TailBasis(torch.from_numpy(rng.standard_normal((4, 50)).astype(np.float16))), torch.randn(6, 50)
    ids = tail.topk(3, dim=1).indices
    with torch.autocast("cpu", torch.bfloat16):
        inside = basis.coefficients(tail, ids)
    assert torch.equal(inside, basis.coefficients(tail, ids))
