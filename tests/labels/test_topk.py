"""The numpy side of the top-k encoding, against its definition written again in `topk_reference`."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softlabels.errors import ConfigError
from softlabels.labels.class_ids import narrow, widen
from softlabels.labels.encoding import Tail, TopkEncoding
from softlabels.labels.stored import IMPOSSIBLE
from softlabels.labels.tail_mass import check_beta, curve_weights, nodes
from softlabels.labels.topk_fields import check_basis
from softlabels.labels.topk_reference import coefficients, stored_log_probs, topk_log_probs
from tests.labels import topk_reference as reference
from tests.labels.columns import check_columns

TEMPERATURES = (1.0, 1.3, 2.0, 4.0, 8.0, 20.0, 1000.0)
N, M = 3, 2


def encoding_of(
    tail: Tail, k: int, *, count: int = 6, beta_max: float = 1.0, rank: int = 4, fine: int = 1
) -> TopkEncoding:
    """With three coefficients of 4 bits, so that half a byte is left over."""
    return TopkEncoding(
        k=k,
        tail=tail,
        nodes=0 if tail == "renormalised" else count,
        beta_max=beta_max,
        rank=rank if tail == "lowrank" else 0,
        fine=fine if tail == "lowrank" else 0,
    )


def columns_of(rng: np.random.Generator, z: np.ndarray, encoding: TopkEncoding) -> dict[str, np.ndarray]:
    """Columns of `z` (N, M, C) by the reference's encoder, with random coefficients where the tail has any."""
    made = reference.columns_of(z, encoding.k, encoding.nodes, encoding.beta_max)
    columns: dict[str, np.ndarray] = {**narrow(made["ids"], z.shape[-1]), "top_logit": made["top_logit"]}
    if encoding.nodes:
        columns["tail_odds"] = made["tail_odds"]
    if encoding.nodes:
        columns["tail_curve"] = made["tail_curve"]
    if encoding.rank:
        columns |= some_coefficients(rng, z.shape[:-1], encoding)
    columns["label_logit"] = np.full(z.shape[:-1], np.nan, np.float16)
    return columns


def some_coefficients(
    rng: np.random.Generator, shape: tuple[int, ...], encoding: TopkEncoding
) -> dict[str, np.ndarray]:
    """Random columns of a basis' coefficients, (*shape, ...)."""
    columns, precisions = {}, 0
    if encoding.fine:
        columns["tail_fine"] = rng.integers(-127, 128, (*shape, encoding.fine)).astype(np.int8)
        precisions += 1
    if coarse := encoding.rank - encoding.fine:
        steps = rng.integers(-7, 8, (*shape, coarse + coarse % 2)) % 16
        steps[..., coarse:] = 0
        columns["tail_coarse"] = (steps[..., 0::2] + 16 * steps[..., 1::2]).astype(np.uint8)
        precisions += 1
    columns["tail_scale"] = rng.random((*shape, precisions)).astype(np.float16)
    return columns


def basis_of(rng: np.random.Generator, encoding: TopkEncoding, classes: int) -> np.ndarray | None:
    if encoding.tail not in ("lowrank", "prior"):
        return None
    return rng.normal(size=(1 + encoding.rank, classes)).astype(np.float16)


def tail_shape(
    columns: dict[str, np.ndarray], basis: np.ndarray | None, at: tuple[int, int], classes: int
) -> np.ndarray:
    """z (C,) of one position's tail."""
    if basis is None:
        return np.zeros(classes)
    found = [int(step) * float(columns["tail_scale"][at][0]) / 127 for step in columns.get("tail_fine", {at: ()})[at]]
    for pair in columns.get("tail_coarse", {at: ()})[at]:
        steps = [int(step) - 16 * (step >= 8) for step in (pair % 16, pair // 16)]
        found += [step * float(columns["tail_scale"][at][-1]) / 7 for step in steps]
    z = basis[0].astype(np.float64)
    for row, coefficient in zip(basis[1:], found, strict=False):  # the last of an odd number has half a byte beside it
        z = z + coefficient * row.astype(np.float64)
    return z


@pytest.mark.parametrize("tail", ["lowrank", "prior", "uniform", "bucket", "renormalised"])
@pytest.mark.parametrize(("classes", "k"), [(40, 7), (2, 1), (40, 39), (40, 40), (5, 5)])
@pytest.mark.parametrize("impossible", [False, True])
def test_decoding_is_the_definition(
    rng: np.random.Generator, tail: Tail, classes: int, k: int, impossible: bool
) -> None:
    encoding = encoding_of(tail, k)
    z = reference.some_logits(rng, "gaussian", N, M, classes)
    if impossible:
        z[rng.random(z.shape) < 0.5] = -np.inf
        z[0, 0, : classes - 1] = -np.inf  # all mass on one class
        z[..., -1] = 3.0
    columns, basis = columns_of(rng, z, encoding), basis_of(rng, encoding, classes)
    check_columns(columns, encoding, classes)
    for temperature in TEMPERATURES:
        log_p = topk_log_probs(columns, encoding, classes, basis, temperature)
        ids, log_stored, log_tail = stored_log_probs(columns, encoding, classes, temperature)
        assert np.allclose(np.exp(log_p).sum(axis=-1), 1, rtol=1e-12)
        for at in np.ndindex(N, M):
            shape = tail_shape(columns, basis, at, classes)
            stored_tail = (columns["tail_odds"][at], columns["tail_curve"][at]) if encoding.nodes else None
            expected = reference.decode_one(ids[at], columns["top_logit"][at], stored_tail, shape, 1.0, temperature)
            np.testing.assert_allclose(log_p[at], expected, rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(log_stored[at], expected[ids[at]], rtol=1e-9, atol=1e-9)
            rest = [i for i in range(classes) if i not in ids[at]]
            np.testing.assert_allclose(log_tail[at], reference.lse(expected[rest]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("tail", ["lowrank", "prior"])
def test_classes_that_the_prior_holds_for_impossible_have_no_share(rng: np.random.Generator, tail: Tail) -> None:
    """But where it holds the whole tail for impossible, all of the tail are alike: the first position."""
    encoding, classes = encoding_of(tail, 7), 40
    columns = columns_of(rng, reference.some_logits(rng, "gaussian", N, 1, classes), encoding)
    basis, ids = basis_of(rng, encoding, classes), widen(columns, classes)
    assert basis is not None
    basis[0, np.setdiff1d(np.arange(classes), ids[0, 0])] = IMPOSSIBLE
    log_p = topk_log_probs(columns, encoding, classes, basis, 1000.0)
    for n in range(N):
        shape = np.where(basis[0] == IMPOSSIBLE, -np.inf, tail_shape(columns, basis, (n, 0), classes))
        odds = (columns["tail_odds"][n, 0], columns["tail_curve"][n, 0])
        shape = np.zeros(classes) if n == 0 else shape
        expected = reference.decode_one(ids[n, 0], columns["top_logit"][n, 0], odds, shape, 1.0, 1000.0)
        np.testing.assert_allclose(log_p[n, 0], expected, rtol=1e-9, atol=1e-9)
    assert np.isneginf(log_p[1:]).any()


@pytest.mark.parametrize("shape", reference.SHAPES)
@pytest.mark.parametrize("beta_max", [1.0, 0.5, 2.0])
def test_mass_and_stored_probabilities_are_those_of_the_logits(
    rng: np.random.Generator, shape: str, beta_max: float
) -> None:
    """The encoding is right at every temperature from 1 / beta_max up, not only at the nodes."""
    classes, k = 3000, 32
    encoding = encoding_of("uniform", k, count=8, beta_max=beta_max)
    z = reference.some_logits(rng, shape, 2, 1, classes)
    columns = columns_of(rng, z, encoding)
    for temperature in (1 / beta_max, 1.3 / beta_max, 1.5 / beta_max, 2 / beta_max, 3 / beta_max, 8.0, 12.0, 20.0):
        ids, log_p, log_tail = stored_log_probs(columns, encoding, classes, temperature)
        for n in range(2):
            exact = reference.log_softmax(z[n, 0] / temperature)
            mass = 1 - math.fsum(np.exp(exact[ids[n, 0]]))
            assert abs(math.exp(log_tail[n, 0]) - mass) <= 1e-3
            half_step = np.spacing(columns["top_logit"][n, 0]).astype(np.float64) / 2
            allowed = np.abs(half_step) / temperature + 6e-3 * max(1.0, beta_max)
            assert (np.abs(log_p[n, 0] - exact[ids[n, 0]]) <= allowed).all()


def test_renormalised_sums_to_one_at_any_temperature(rng: np.random.Generator) -> None:
    z = reference.some_logits(rng, "gaussian", N, M, 50)
    encoding = encoding_of("renormalised", 5)
    columns = columns_of(rng, z, encoding)
    logits = columns["top_logit"].astype(np.float64)
    for temperature in (0.1, 1.0, 30.0):
        ids, log_p, log_tail = stored_log_probs(columns, encoding, 50, temperature)
        assert np.isneginf(log_tail).all()
        expected = [[reference.log_softmax(logits[n, m] / temperature) for m in range(M)] for n in range(N)]
        np.testing.assert_allclose(log_p, expected, rtol=1e-6, atol=1e-9)
        assert np.isneginf(topk_log_probs(columns, encoding, 50, None, temperature)).sum() == N * M * 45
        assert ids.shape == (N, M, 5)


@pytest.mark.parametrize("temperature", [0.9, 0.5, 0.999])
def test_temperatures_below_what_the_tail_knows_are_refused(rng: np.random.Generator, temperature: float) -> None:
    encoding = encoding_of("uniform", 4, beta_max=1.0)
    columns = columns_of(rng, reference.some_logits(rng, "flat", 1, 1, 9), encoding)
    with pytest.raises(ConfigError, match=rf"from 1 up, not at {temperature:g}; take a temperature of at least 1"):
        stored_log_probs(columns, encoding, 9, temperature)
    with pytest.raises(ConfigError, match="finite number above 0"):
        stored_log_probs(columns, encoding, 9, 0.0)


@given(st.floats(0.01, 100))
def test_the_lowest_temperature_is_allowed_whatever_rounding_does(lowest: float) -> None:
    encoding = encoding_of("uniform", 4, beta_max=1 / lowest)
    assert check_beta(encoding, lowest) <= encoding.beta_max
    with pytest.raises(ConfigError, match="not at"):
        check_beta(encoding, lowest * 0.9999)


@given(st.integers(2, 12), st.floats(0.1, 10), st.floats(0, 1))
def test_interpolation_is_lagranges(count: int, beta_max: float, along: float) -> None:
    places = nodes(count, beta_max)
    assert (places[0], places[-1]) == (0, beta_max)
    assert list(places) == sorted(set(places))
    expected = [beta_max / 2 * (1 - math.cos(math.pi * j / (count - 1))) for j in range(count)]
    assert np.allclose(places, expected, atol=1e-14 * beta_max)
    for beta in (along * beta_max, *places):
        weights = curve_weights(beta, count, beta_max)
        direct = [
            reference.lagrange(list(places), [float(i == j) for i in range(count)], beta) for j in range(1, count)
        ]
        assert np.allclose(weights, direct, atol=1e-9)


@pytest.mark.parametrize(
    ("classes", "dtype", "pages"),
    [
        (2, "uint16", 0),
        (65_536, "uint16", 0),
        (65_537, "uint16", 1),
        (131_072, "uint16", 1),
        (131_073, "uint16", 2),
        (151_936, "uint16", 2),
        (1 << 20, "uint16", 15),
        ((1 << 20) + 1, "uint32", 0),
    ],
)
def test_ids_come_back(rng: np.random.Generator, classes: int, dtype: str, pages: int) -> None:
    edges = [i for i in (0, 65_535, 65_536, 131_071, 131_072, classes - 1) if i < classes]
    for k in (1, 2, 40, 300):
        kept = min(k, classes)
        ids = np.stack([np.sort(rng.choice(classes, kept, replace=False, shuffle=False)) for _ in range(5)])
        if kept >= len(set(edges)):
            fill = [i for i in range(classes) if i not in edges][: kept - len(set(edges))]
            ids[0] = sorted({*edges, *fill})
        ids[1] = np.arange(classes - kept, classes)
        columns = narrow(ids.reshape(5, 1, kept), classes)
        assert columns["top_class"].dtype == dtype
        assert ("top_page" in columns) == (pages > 0)
        if pages:
            assert columns["top_page"].shape == (5, 1, pages)
            assert columns["top_page"].dtype == ("uint8" if kept < 256 else "uint16")
            for j in range(pages):
                assert (columns["top_page"][:, 0, j] == (ids < 65_536 * (j + 1)).sum(axis=-1)).all()
        assert np.array_equal(widen(columns, classes)[:, 0], ids)


@pytest.mark.parametrize("ids", [[[3, 3]], [[4, 2]], [[-1, 2]], [[0, 70_000]]])
def test_ids_are_checked_before_they_are_narrowed(ids: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="ascend from 0 to at most 69999"):
        narrow(np.array(ids), 70_000)


def test_columns_of_a_row() -> None:
    lowrank = encoding_of("lowrank", 32, rank=17, fine=4)
    assert lowrank.columns(151_936, 2, 255) == (
        ("top_class", "uint16", (255, 2, 32), ("position", "member", "stored")),
        ("top_page", "uint8", (255, 2, 2), ("position", "member", "page")),
        ("top_logit", "float16", (255, 2, 32), ("position", "member", "stored")),
        ("tail_odds", "float16", (255, 2, 2), ("position", "member", "end")),
        ("tail_curve", "int16", (255, 2, 5), ("position", "member", "node")),
        ("tail_fine", "int8", (255, 2, 4), ("position", "member", "component")),
        ("tail_coarse", "uint8", (255, 2, 7), ("position", "member", "pair")),
        ("tail_scale", "float16", (255, 2, 2), ("position", "member", "precision")),
        ("label_logit", "float16", (255, 2), ("position", "member")),
    )
    assert encoding_of("renormalised", 300).columns(2_000_000, 1) == (
        ("top_class", "uint32", (1, 300), ("member", "stored")),
        ("top_logit", "float16", (1, 300), ("member", "stored")),
        ("label_logit", "float16", (1,), ("member",)),
    )
    names = {name: (dtype, shape) for name, dtype, shape, _ in encoding_of("uniform", 300).columns(70_000, 1)}
    assert names["top_page"] == ("uint16", (1, 1))
    assert ("tail_curve", "int16", (1, 1), ("member", "node")) in encoding_of("uniform", 3, count=2).columns(10, 1)
    for fine, absent in ((0, "tail_fine"), (4, "tail_coarse")):
        found = {name: shape for name, _, shape, _ in encoding_of("lowrank", 3, fine=fine).columns(10, 2)}
        assert found["tail_scale"] == (2, 1)
        assert absent not in found


def test_columns_made_by_the_reference_are_the_columns_declared(rng: np.random.Generator) -> None:
    for tail in ("lowrank", "prior", "uniform", "renormalised"):
        for classes in (40, 66_000):
            encoding = encoding_of(tail, 4)
            columns = columns_of(rng, reference.some_logits(rng, "flat", 1, 1, classes), encoding)
            declared = encoding.columns(classes, 1)
            assert [(name, values.dtype.name, values.shape[1:]) for name, values in columns.items()] == [
                (name, dtype, shape) for name, dtype, shape, _ in declared
            ]


@pytest.mark.parametrize(
    ("encoding", "members", "words"),
    [
        (TopkEncoding(k=4, tail="renormalised", nodes=6), 1, "'renormalised' cannot have 6 nodes"),
        (TopkEncoding(k=4, tail="uniform", nodes=0), 1, "'uniform' cannot have 0 nodes"),
        (TopkEncoding(k=4, tail="uniform", nodes=1), 1, "'uniform' cannot have 1 nodes"),
        (TopkEncoding(k=4, tail="lowrank", rank=0), 1, "'lowrank' cannot have rank 0"),
        (TopkEncoding(k=4, tail="prior", rank=2), 1, "'prior' cannot have rank 2"),
        (TopkEncoding(k=4, tail="lowrank", rank=2, fine=3), 1, "of 2 coefficients, 3 cannot have 8 bits"),
        (TopkEncoding(k=4, tail="bucket"), 2, "there are 2 members"),
    ],
)
def test_encodings_that_make_no_sense(encoding: TopkEncoding, members: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        encoding.check(members)


def test_encodings_that_make_sense() -> None:
    for tail in ("lowrank", "prior", "uniform", "renormalised"):
        encoding_of(tail, 4).check(3)
    encoding_of("bucket", 4).check(1)


@pytest.mark.parametrize(
    ("name", "at", "value", "words"),
    [
        ("top_class", (1, 0, 3), 4465, "not below the number of classes, 70000"),
        ("top_class", (2, 1, 1), 0, "do not ascend"),
        ("top_page", (1, 0, 0), 5, "page counts"),
        ("top_logit", (0, 1, 2), 0.5, "largest of a distribution's logits"),
        ("top_logit", (0, 1, 2), np.nan, "largest of a distribution's logits"),
        ("top_logit", (0, 1), -1.0, "largest of a distribution's logits"),
        ("top_logit", (0, 1), -np.inf, "largest of a distribution's logits"),
        ("tail_odds", (2, 0, 0), np.nan, "tail's mass"),
        ("tail_odds", (2, 0, 1), np.inf, "tail's mass"),
        ("tail_odds", (2, 0, 1), -np.inf, "tail's mass"),
        ("tail_fine", (0, 1, 0), -128, "of 8 bits is -128"),
        ("tail_coarse", (0, 1, 0), 0x81, "of 4 bits is -8"),
        ("tail_coarse", (0, 1, 1), 0x18, "of 4 bits is -8"),
        ("tail_coarse", (2, 0, 1), 0x13, "no coefficient uses"),
        ("tail_scale", (1, 1, 0), -0.5, "scale of coefficients"),
        ("tail_scale", (1, 1, 1), np.nan, "scale of coefficients"),
        ("label_logit", (2, 1), 0.25, "label's logit"),
    ],
)
def test_columns_that_no_encoder_wrote(
    rng: np.random.Generator, name: str, at: tuple[int, ...], value: float, words: str
) -> None:
    classes = 70_000
    encoding = encoding_of("lowrank", 4)
    columns = columns_of(rng, rng.normal(size=(N, M, 10)), encoding)
    columns |= narrow(np.broadcast_to([5, 9, 65_536, 69_000], (N, M, 4)).astype(np.int64), classes)
    columns["tail_odds"][0, 0] = -np.inf  # no tail: legal
    columns["label_logit"][0] = [-np.inf, 0.0]  # an impossible label, and the most probable one: legal
    check_columns(columns, encoding, classes)
    columns[name][at] = value
    with pytest.raises(ValueError, match=words):
        check_columns(columns, encoding, classes)


def test_a_basis_is_checked(rng: np.random.Generator) -> None:
    shape = (4, 30)
    good = rng.normal(size=shape).astype(np.float16)
    check_basis(good, shape)
    for bad in (good[:3], good[:, :29], good.astype(np.float32)):
        with pytest.raises(ValueError, match="the basis is"):
            check_basis(bad, shape)
    for value in (np.nan, np.inf, -np.inf):
        spoiled = good.copy()
        spoiled[0, 7] = value
        with pytest.raises(ValueError, match="NaN or infinite"):
            check_basis(spoiled, shape)


def test_coefficients_use_the_whole_scale() -> None:
    fine, coarse = np.array([[[127, -127, 0]]], np.int8), np.array([[[0x97, 0x01]]], np.uint8)
    columns = {"tail_fine": fine, "tail_coarse": coarse, "tail_scale": np.array([[[2.5, 3.5]]], np.float16)}
    expected = [2.5, -2.5, 0.0, 3.5, -3.5, 0.5]
    for rank in (6, 7):  # the last nibble, 0, is a coefficient of 0 or none
        found = coefficients(columns, encoding_of("lowrank", 4, rank=rank, fine=3))
        np.testing.assert_allclose(found, [[[*expected, 0.0][:rank]]], rtol=1e-15)


def test_leading_axes_are_free(rng: np.random.Generator) -> None:
    encoding = encoding_of("lowrank", 4)
    columns, basis = columns_of(rng, rng.normal(size=(6, M, 20)), encoding), rng.normal(size=(5, 20)).astype(np.float16)
    folded = {name: values.reshape(2, 3, *values.shape[1:]) for name, values in columns.items()}
    check_columns(folded, encoding, 20)
    flat = topk_log_probs(columns, encoding, 20, basis, 2.0)
    assert np.array_equal(topk_log_probs(folded, encoding, 20, basis, 2.0).reshape(flat.shape), flat)
