"""Encoding on the device against the definition in `topk_reference`, and what it lost against KL's definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from softlabels.errors import ConfigError, LabelError, LogitsError
from softlabels.labels.class_ids import widen
from softlabels.labels.encoding import Tail, TopkEncoding
from softlabels.labels.fidelity import table
from softlabels.labels.topk_reference import topk_log_probs
from tests.labels import topk_reference as reference
from tests.labels.columns import check_columns
from tests.labels.test_topk import basis_of, encoding_of

N, M, C, K = 7, 2, 60, 6


def encode(
    z: np.ndarray, encoding: TopkEncoding, basis: np.ndarray | None = None, **options: object
) -> dict[str, np.ndarray]:
    tensor = None if basis is None else torch.from_numpy(basis)
    return encoding.encode(torch.from_numpy(z), basis=tensor, **options)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", reference.SHAPES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(("k", "beta_max"), [(6, 1.0), (1, 2.0), (59, 1.0), (60, 1.0), (30, 0.5)])
def test_columns_are_the_definition(rng: np.random.Generator, shape: str, dtype: str, k: int, beta_max: float) -> None:
    encoding = encoding_of("uniform", k, count=7, beta_max=beta_max)
    z = reference.some_logits(rng, shape, N, M, C).astype(dtype)
    z[0, 0, rng.random(C) < 0.5] = -np.inf
    z[0, 0, 5] = z[0, 0].max()  # a tie, and the same in float16 many times
    z[1, 1, 1:] = -np.inf  # all mass on one class
    z[1, 1, 0] = 2.0
    columns = encode(z, encoding)
    assert [(name, values.dtype.name, values.shape[1:]) for name, values in columns.items()] == [
        (name, dtype, shape) for name, dtype, shape, _ in encoding.columns(C, M)
    ]
    check_columns(columns, encoding, C)
    wide = z.astype(np.float64)
    if dtype == "float32":  # z - max is taken in float32
        wide = (z - z.max(axis=-1, keepdims=True)).astype(np.float64)
    made = reference.columns_of(wide, k, 7, beta_max)
    assert np.array_equal(widen(columns, C), made["ids"])
    if dtype == "float64":  # torch rounds to float32 on the way to float16
        some = np.isfinite(made["top_logit"])
        assert np.array_equal(np.isfinite(columns["top_logit"]), some)
        np.testing.assert_allclose(columns["top_logit"][some], made["top_logit"][some], rtol=2**-10, atol=1e-6)
    else:
        assert np.array_equal(columns["top_logit"], made["top_logit"])
    found, expected = columns["tail_odds"].astype(np.float64), made["tail_odds"].astype(np.float64)
    assert np.array_equal(np.isneginf(found), np.isneginf(expected))
    some = np.isfinite(expected[..., 0])
    found, expected = found[some], expected[some]
    step = np.abs(expected).max(axis=-1, keepdims=True) * 2**-10 + 2e-5  # of float16
    assert (np.abs(found - expected) <= 1.5 * step).all()
    curve, definition = columns["tail_curve"].astype(int), made["tail_curve"].astype(int)
    assert (curve[~some] == 0).all()
    assert (np.abs(curve - definition)[some] <= 1 + 1.5 * 2048 * step).all()  # they follow their ends
    assert np.isnan(columns["label_logit"]).all()


def test_bfloat16_logits(rng: np.random.Generator) -> None:
    encoding = encoding_of("uniform", K)
    z = torch.from_numpy(rng.normal(size=(N, M, C)) * 4).bfloat16()
    found = encoding.encode(z)[0]
    expected = encoding.encode(z.float())[0]
    assert all(np.array_equal(found[name], expected[name], equal_nan=name == "label_logit") for name in expected)


@pytest.mark.parametrize("tail", ["lowrank", "prior", "uniform", "renormalised"])
def test_blocks_of_any_size_give_the_same(rng: np.random.Generator, tail: Tail) -> None:
    encoding = encoding_of(tail, K)
    z = reference.some_logits(rng, "gaussian", 23, M, C).astype(np.float32).round(1)  # many ties
    basis, labels = basis_of(rng, encoding, C), torch.from_numpy(rng.integers(-1, C, 23))
    mask = torch.from_numpy(rng.random(23) < 0.7)
    given = None if basis is None else torch.from_numpy(basis)
    logits = torch.from_numpy(z)
    whole, lost = encoding.encode(logits, basis=given, labels=labels, mask=mask)
    for size in (1, 4 * 12 * M * C * 5, 4 * 12 * M * C * 22):
        parts, again = encoding.encode(logits, basis=given, labels=labels, mask=mask, block_bytes=size)
        for name, values in whole.items():
            if name == "tail_fine":  # a product of matrices may round otherwise
                assert np.abs(parts[name].astype(int) - values).max() <= 1
            elif name == "tail_coarse":
                for shift in (0, 4):
                    one, other = (pairs.astype(int) >> shift & 15 for pairs in (parts[name], values))
                    assert np.abs(one - other).max() <= 1
            elif name == "tail_scale":
                np.testing.assert_allclose(parts[name].astype(float), values.astype(float), rtol=2**-10)
            else:
                assert np.array_equal(parts[name], values, equal_nan=values.dtype.kind == "f"), name
        for one, other in zip(lost.fidelity, again.fidelity, strict=True):
            assert (one.samples, one.top1_agreed) == (other.samples, other.top1_agreed)
            assert one.kl_sum is None or other.kl_sum == pytest.approx(one.kl_sum, rel=0.02, abs=1e-6)


def test_ties_take_the_lowest_ids() -> None:
    z = np.zeros((1, 1, 9), np.float32)
    z[0, 0, [4, 7]] = 1.0
    assert widen(encode(z, encoding_of("uniform", 5)), 9).tolist() == [[[0, 1, 2, 4, 7]]]
    z[0, 0, [0, 1, 2, 3, 5]] = -np.inf
    assert widen(encode(z, encoding_of("uniform", 6)), 9).tolist() == [[[0, 1, 4, 6, 7, 8]]]


@pytest.mark.parametrize("classes", [66_000, 132_000])
def test_ids_beyond_16_bits(rng: np.random.Generator, classes: int) -> None:
    z = rng.normal(size=(2, 1, classes)).astype(np.float32)
    high = [65_535, 65_536, classes - 1] + ([131_071, 131_072] if classes > 131_072 else [1, 2])
    z[1, 0, high] += 30
    ids = widen(encode(z, encoding_of("uniform", 5)), classes)
    assert ids[1, 0].tolist() == sorted(high)
    assert ids[0, 0].tolist() == sorted(np.argsort(-z[0, 0])[:5].tolist())


def test_labels_logits_and_positions_that_do_not_count(rng: np.random.Generator) -> None:
    encoding = encoding_of("prior", K)
    z = reference.some_logits(rng, "gaussian", N, M, C)
    z[2, 0, 9] = np.nan  # at a position that does not count
    z[3, :, 4] = -np.inf
    labels = np.array([5, -1, 3, 4, 0, 59, 7])
    mask = np.array([True, True, False, True, True, False, True])
    basis = torch.from_numpy(basis_of(rng, encoding, C))
    columns, lost = encoding.encode(
        torch.from_numpy(z), basis=basis, labels=torch.from_numpy(labels), mask=torch.from_numpy(mask)
    )
    below = z - z.max(axis=-1, keepdims=True)
    for n in range(N):
        if labels[n] < 0 or not mask[n]:
            assert np.isnan(columns["label_logit"][n]).all()
        else:
            assert np.array_equal(columns["label_logit"][n], below[n, :, labels[n]].astype(np.float16))
    nothing = encode(np.zeros((1, M, C)), encoding, basis.numpy())
    for name, values in columns.items():
        for n in (2, 5):
            assert np.array_equal(values[n], nothing[name][0], equal_nan=values.dtype.kind == "f")
    real, alone = encoding.encode(torch.from_numpy(z[mask]), basis=basis)
    assert all(np.array_equal(columns[name][mask], real[name]) for name in real if name != "label_logit")
    assert lost == alone
    assert {line.samples for line in lost.fidelity} == {mask.sum() * M}


@pytest.mark.parametrize("tail", ["lowrank", "prior", "uniform", "bucket"])
@pytest.mark.parametrize("beta_max", [1.0, 0.3, 0.03])  # the last serves none of the table's temperatures
def test_what_was_lost_is_the_definition(rng: np.random.Generator, tail: Tail, beta_max: float) -> None:
    members = 1 if tail == "bucket" else M
    encoding = encoding_of(tail, K, beta_max=beta_max)
    z = reference.some_logits(rng, "gaussian", N, members, C)
    z[0, 0, 10:] = -np.inf
    basis = basis_of(rng, encoding, C)
    given = None if basis is None else torch.from_numpy(basis)
    columns, lost = encoding.encode(torch.from_numpy(z), basis=given)
    assert [line.temperature for line in lost.fidelity] == [t for t in (1.0, 2.0, 4.0, 8.0, 20.0) if t * beta_max >= 1]
    for line in lost.fidelity:
        log_q = topk_log_probs(columns, encoding, C, basis, line.temperature)
        kls, masses, agreed = [], [], 0
        for at in np.ndindex(N, members):
            log_p = reference.log_softmax(z[at] / line.temperature)
            possible = log_p > -math.inf
            kls.append(math.fsum(np.exp(log_p[possible]) * (log_p[possible] - log_q[at][possible])))
            ids = widen(columns, C)[at]
            masses.append(abs(math.fsum(np.exp(log_p[ids])) - math.fsum(np.exp(log_q[at][ids]))))
            agreed += log_p.argmax() == log_q[at].argmax()
        assert line.samples == len(kls)
        assert line.kl_sum == pytest.approx(math.fsum(kls), rel=1e-4, abs=1e-5)
        assert line.kl_max == pytest.approx(max(kls), rel=1e-4, abs=1e-6)
        assert line.tail_mass_error == pytest.approx(max(masses), abs=2e-6)
        assert line.top1_agreed == agreed


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("far", [-50.0, -95.0, -100.0, -200.0, -1e4])
def test_a_class_of_next_to_no_probability_does_not_spoil_what_was_lost(dtype: torch.dtype, far: float) -> None:
    """About half the mass in one tail class, spread over three: KL = p log 3, p the mass, whatever float32 makes of exp."""
    z = torch.tensor([[[0.0, -0.125, far, far]]], dtype=dtype)
    lost = encoding_of("uniform", 1, count=8).encode(z)[1].fidelity[0]
    tail = math.exp(-0.125) / (1 + math.exp(-0.125))
    assert lost.temperature == 1
    assert lost.kl_sum == pytest.approx(tail * math.log(3), rel=2e-3)


def test_labels_without_a_tail_lose_infinitely_much(rng: np.random.Generator) -> None:
    z = torch.from_numpy(rng.normal(size=(N, 1, C)))
    z[0] *= 200  # far classes have probability 0 in float32, on both sides
    columns, lost = encoding_of("renormalised", K).encode(z)
    assert not [name for name in columns if name.startswith("tail")]
    for line in table([lost.fidelity]).values():
        assert (line.kl_mean, line.kl_max) == (None, None)
        assert line.tail_mass_error > 0.1
    whole = table([encoding_of("renormalised", C).encode(z)[1].fidelity])
    assert all(line.kl_mean is not None and line.kl_mean < 1e-4 for line in whole.values())


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.nan, "logits are NaN"),
        (np.inf, r"a logit is \+inf"),
        (-np.inf, "all classes are -inf"),
        (-70_000.0, "more than 65504 below"),
    ],
)
@pytest.mark.parametrize("block_bytes", [1, 1 << 28])
def test_refused_with_position_and_member(rng: np.random.Generator, value: float, words: str, block_bytes: int) -> None:
    z = rng.normal(size=(N, M, C)).astype(np.float32)
    n, m = int(rng.integers(N)), int(rng.integers(M))
    z[n, m, slice(None) if value == -np.inf else 7] = value
    with pytest.raises(LogitsError, match=rf"{words}.*\(row {n}, member {m}\)"):
        encode(z, encoding_of("uniform", K), block_bytes=block_bytes)


def test_other_refusals(rng: np.random.Generator) -> None:
    z = torch.from_numpy(rng.normal(size=(N, M, C)))
    with pytest.raises(LogitsError, match="floats of shape"):
        encoding_of("uniform", K).encode(z[0])
    with pytest.raises(LogitsError, match="floats of shape"):
        encoding_of("uniform", K).encode(z.long())
    for label in (-2, C):
        with pytest.raises(LabelError, match=f"a label is {label}, and there are {C} classes"):
            encoding_of("uniform", K).encode(z, labels=torch.full((N,), label))
    with pytest.raises(ConfigError, match="2 members"):
        encoding_of("bucket", K).encode(z)
    with pytest.raises(ConfigError, match=f"k is {C + 1}, and there are {C} classes"):
        encoding_of("uniform", C + 1).encode(z)
    z[3, 1, K:] = -60_000
    z[3, 1, :K] = 0
    with pytest.raises(LogitsError, match=r"mass of the tail is too small.*\(row 3, member 1\)"):
        encoding_of("uniform", K, beta_max=4.0).encode(z)


def test_no_positions_give_empty_columns() -> None:
    encoding = encoding_of("lowrank", K)
    columns, lost = encoding.encode(torch.zeros(0, M, C), basis=torch.zeros(5, C).half())
    assert [(name, values.dtype.name, values.shape) for name, values in columns.items()] == [
        (name, dtype, (0, *shape)) for name, dtype, shape, _ in encoding.columns(C, M)
    ]
    assert table([lost.fidelity]) == {}


def test_of_many_classes_one_position_of_several_is_measured(rng: np.random.Generator) -> None:
    encoding, classes = encoding_of("uniform", K), 3 * 1024
    z, mask = rng.normal(size=(20, M, classes)), rng.random(20) < 0.7
    mask[:2] = False, True
    chosen = np.flatnonzero(mask)[::3]
    for size in (1, 4 * 12 * M * classes * 7, 1 << 28):
        lost = encoding.encode(torch.from_numpy(z), mask=torch.from_numpy(mask), block_bytes=size)[1]
        exact, stored = z[chosen], encode(z[chosen], encoding)
        for line in lost.fidelity:
            log_q = topk_log_probs(stored, encoding, classes, None, line.temperature)
            log_p = [[reference.log_softmax(row / line.temperature) for row in position] for position in exact]
            assert line.samples == len(chosen) * M > 0
            assert line.kl_sum == pytest.approx((np.exp(log_p) * (log_p - log_q)).sum(), rel=1e-3)
