from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from softlabels.labels import blocks as blocks_of_logits
from softlabels.labels import dense_encode
from softlabels.labels.encoding import DenseEncoding, TopkEncoding
from softlabels.labels.fidelity import TEMPERATURES, Fidelity, FidelitySums, table
from tests.labels.dense_reference import dense_columns

M, C = 2, 17


def direct_kl(exact: np.ndarray, stored: np.ndarray, temperature: float) -> np.ndarray:
    """KL(softmax(exact/T) || softmax(stored/T)) by its definition, in extended precision: (..., C) -> (...)."""
    log_p, log_q = (_log_softmax(z.astype(np.longdouble) / temperature) for z in (exact, stored))
    with np.errstate(invalid="ignore"):
        terms = np.exp(log_p) * (log_p - log_q)
    return np.where(np.isneginf(log_p), 0, terms).sum(axis=-1)


def measure_dense(exact: np.ndarray, stored: np.ndarray) -> tuple[FidelitySums, ...]:
    return dense_encode.measure_dense(torch.from_numpy(exact), torch.from_numpy(stored))


def _log_softmax(z: np.ndarray) -> np.ndarray:
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def some_logits(rng: np.random.Generator, rows: int, scale: float = 6) -> np.ndarray:
    z = (rng.normal(size=(rows, M, C)) * scale).astype(np.float32)
    z[rng.random(z.shape) < 0.1] = -np.inf
    z[..., 0] = 0
    return z


def test_a_tail_whose_mass_is_off_is_worth_a_word() -> None:
    def lines(*errors: float) -> dict[str, Fidelity]:
        return {
            t: Fidelity(kl_mean=0.1, kl_max=0.1, tail_mass_error=error, top1_agreement=1.0)
            for t, error in zip(("1", "2", "20"), errors, strict=True)
        }

    encoding = TopkEncoding(k=3, tail="uniform")
    assert encoding.warning(lines(0.0, 0.01, 0.003)) is None
    assert TopkEncoding(k=3, tail="renormalised", nodes=0).warning(lines(0.9, 0.9, 0.9)) is None
    assert DenseEncoding().warning(lines(0.9, 0.9, 0.9)) is None
    assert encoding.warning({}) is None
    found = encoding.warning(lines(0.02, 0.389, 0.3))
    assert found is not None
    assert "off by up to 0.39 (at T=2)" in found
    assert "-inf" in found


def test_sums_are_those_of_a_direct_kl(rng: np.random.Generator) -> None:
    z = some_logits(rng, 200)
    stored = dense_columns(z).logits
    for sums in measure_dense(z, stored):
        kl = direct_kl(z, stored, sums.temperature)
        assert sums.samples == 200 * M
        assert 0 < sums.kl_sum == pytest.approx(float(kl.sum()), rel=1e-4)
        assert sums.kl_max == pytest.approx(float(kl.max()), rel=1e-3, abs=1e-15)
        assert sums.tail_mass_error == 0
        assert sums.top1_agreed == (z.argmax(-1) == stored.argmax(-1)).sum()


def test_a_crude_encoding_shows(rng: np.random.Generator) -> None:
    """The measure can see a loss: logits rounded to whole numbers, and two classes exchanged."""
    z = some_logits(rng, 100)
    z -= z.max(axis=-1, keepdims=True)
    crude = np.round(z).astype(np.float16)
    fine = dense_columns(z).logits
    for bad, good in zip(measure_dense(z, crude), measure_dense(z, fine), strict=True):
        kl = direct_kl(z, crude, bad.temperature)
        assert bad.kl_sum == pytest.approx(float(kl.sum()), rel=1e-9)
        assert bad.kl_max == pytest.approx(float(kl.max()), rel=1e-9)
        assert bad.kl_sum > 1000 * good.kl_sum
        assert bad.top1_agreed < good.top1_agreed


def test_exact_storage_loses_nothing(rng: np.random.Generator) -> None:
    z = rng.integers(-500, 0, size=(50, M, C)).astype(np.float32)
    z[..., 3] = 0
    for line in table([measure_dense(z, z.astype(np.float16))]).values():
        assert (line.kl_mean, line.kl_max, line.tail_mass_error, line.top1_agreement) == (0, 0, 0, 1)


def test_a_possible_class_that_is_stored_as_impossible_makes_the_kl_infinite(rng: np.random.Generator) -> None:
    z = some_logits(rng, 20)
    stored = dense_columns(z).logits
    stored[7, 0, z[7, 0].argmin()] = stored[3, 1, 0] = -np.inf
    z[7, 0, z[7, 0].argmin()] = -1e5  # whose probability is 0 in float64
    for line in table([measure_dense(z[:5], stored[:5]), measure_dense(z[5:], stored[5:])]).values():
        assert line.kl_mean is None
        assert line.kl_max is None
    parts = [measure_dense(part, kept)[0] for part, kept in ((z[:3], stored[:3]), (z[5:10], stored[5:10]))]
    assert parts[0].kl_max is not None
    assert parts[1].kl_max is None


def test_shards_add_up_to_one_pass(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    z = some_logits(rng, 90)
    stored = dense_columns(z).logits
    whole = table([measure_dense(z, stored)])
    cuts = [0, 1, 40, 90]
    shards = [measure_dense(z[a:b], stored[a:b]) for a, b in itertools.pairwise(cuts)]
    merged = table(shards)
    monkeypatch.setattr(blocks_of_logits, "_COMPARED_BYTES", 8 * C * 7)  # blocks of seven distributions
    blocks = table([measure_dense(z, stored)])
    assert list(whole) == [f"{t:g}" for t in TEMPERATURES] == ["1", "2", "4", "8", "20"]
    for name, line in whole.items():
        for other in (merged[name], blocks[name]):
            assert other.kl_mean == pytest.approx(line.kl_mean, rel=1e-12)
            assert other.kl_max == line.kl_max
            assert other.top1_agreement == line.top1_agreement


def test_no_shards_no_table() -> None:
    assert table([]) == {}


@pytest.mark.parametrize("scale", [1, 10, 100])
def test_what_dense_labels_lose_is_small(rng: np.random.Generator, scale: float) -> None:
    """float16 has 11 significant bits; the squared error of the logits where the mass is bounds the KL."""
    z = some_logits(rng, 300, scale)
    for line in table([measure_dense(z, dense_columns(z).logits)]).values():
        assert 0 <= line.kl_mean <= line.kl_max < 1e-4
        assert line.top1_agreement > 0.99
