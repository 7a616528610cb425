from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

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


def measure_dense(exact: np.ndarray, stored: np.ndarray, *temperatures: float) -> tuple[FidelitySums, ...]:
    below = torch.from_numpy(exact - exact.max(axis=-1, keepdims=True))
    return dense_encode.measure_rounded(below, torch.from_numpy(stored), temperatures or TEMPERATURES)


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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [0.01, 1, 6, 100, 3000])
def test_sums_are_those_of_a_direct_kl(rng: np.random.Generator, scale: float, dtype: str) -> None:
    z = some_logits(rng, 200, scale).astype(dtype)
    stored = dense_columns(z).logits
    exact = z - z.max(axis=-1, keepdims=True)
    for sums in measure_dense(z, stored):
        kl = direct_kl(exact, stored, sums.temperature)
        assert sums.samples == 200 * M
        assert 0 < sums.kl_sum == pytest.approx(float(kl.sum()), rel=1e-5)
        assert sums.kl_max == pytest.approx(float(kl.max()), rel=1e-5)
        assert sums.tail_mass_error == 0
        assert sums.top1_agreed == (z.argmax(-1) == stored.argmax(-1)).sum()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_errors_that_are_alike_do_not_cancel(dtype: str) -> None:
    """All classes but one have the same logit, and so the same error, as of a teacher with a floor."""
    z = np.full((2, M, 9000), -9.2103, dtype)
    z[0, :, 3], z[1, :, 7] = 0, -4.6
    stored = dense_columns(z).logits
    exact = z - z.max(axis=-1, keepdims=True)
    for sums in measure_dense(z, stored):
        kl = direct_kl(exact, stored, sums.temperature)
        assert sums.kl_sum == pytest.approx(float(kl.sum()), rel=1e-3)
        assert sums.kl_max == pytest.approx(float(kl.max()), rel=1e-3)


def test_any_temperatures_in_any_order(rng: np.random.Generator) -> None:
    """Twice another one it is had from its square."""
    z = some_logits(rng, 50)
    stored = dense_columns(z).logits
    exact = z - z.max(axis=-1, keepdims=True)
    found = measure_dense(z, stored, 0.5, 6.0, 1.5, 3.0, 0.1)
    assert [sums.temperature for sums in found] == [0.5, 6.0, 1.5, 3.0, 0.1]
    for sums in found:
        assert sums.kl_sum == pytest.approx(float(direct_kl(exact, stored, sums.temperature).sum()), rel=1e-5)


def test_a_crude_encoding_shows(rng: np.random.Generator) -> None:
    """The measure can see a loss: logits rounded to the 8 bits of bfloat16."""
    z = some_logits(rng, 100)
    z -= z.max(axis=-1, keepdims=True)
    crude = torch.from_numpy(z).bfloat16().half().numpy()
    fine = dense_columns(z).logits
    for bad, good in zip(measure_dense(z, crude), measure_dense(z, fine), strict=True):
        kl = direct_kl(z, crude, bad.temperature)
        assert bad.kl_sum == pytest.approx(float(kl.sum()), rel=1e-3)
        assert bad.kl_max == pytest.approx(float(kl.max()), rel=1e-3)
        assert bad.kl_sum > 10 * good.kl_sum


def test_classes_that_float16_cannot_tell_apart_may_change_the_largest() -> None:
    z = np.zeros((4, 1, 3), np.float32)
    z[0, 0] = -1e-9, 0, -1e-9  # the second class, stored as the first
    z[1, 0] = 0, -1e-9, 0
    z[2, 0] = -1e-9, -1, 0  # the third, stored as the first
    z[3, 0] = -1e-3, 0, -np.inf
    stored = dense_columns(z).logits
    assert (z.argmax(-1) == stored.argmax(-1))[:, 0].tolist() == [False, True, False, True]
    assert [each.top1_agreed for each in measure_dense(z, stored)] == [2] * len(TEMPERATURES)


def test_exact_storage_loses_nothing(rng: np.random.Generator) -> None:
    z = rng.integers(-500, 0, size=(50, M, C)).astype(np.float32)
    z[..., 3] = 0
    for line in table([measure_dense(z, z.astype(np.float16))]).values():
        assert (line.kl_mean, line.kl_max, line.tail_mass_error, line.top1_agreement) == (0, 0, 0, 1)


def test_shards_add_up_to_one_pass(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    z = some_logits(rng, 90)
    stored = dense_columns(z).logits
    whole = table([measure_dense(z, stored)])
    cuts = [0, 1, 40, 90]
    shards = [measure_dense(z[a:b], stored[a:b]) for a, b in itertools.pairwise(cuts)]
    merged = table(shards)
    monkeypatch.setattr(dense_encode, "_CACHED", C * 7)  # blocks of seven distributions
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


def test_half_precision_around_it_does_not_blur_what_was_lost(rng: np.random.Generator) -> None:
    logits = torch.from_numpy(rng.standard_normal((8, 1, 100)))
    with torch.autocast("cpu", torch.bfloat16):
        inside = DenseEncoding().encode(logits)[1]
    assert inside == DenseEncoding().encode(logits)[1]
