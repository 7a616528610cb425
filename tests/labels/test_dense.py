from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from softlabels.errors import LogitsError
from softlabels.labels.blocks import reduced, tensor_of
from softlabels.labels.encoding import DenseEncoding
from tests.labels.dense_reference import Dense, dense_columns

R, M, C = 9, 3, 11


def some_logits(rng: np.random.Generator, dtype: str = "float32") -> np.ndarray:
    return (rng.normal(size=(R, M, C)) * 5 + rng.normal(size=(R, M, 1)) * 50).astype(dtype)


def encode_dense(logits: np.ndarray, first_row: int = 0, **options: Any) -> Dense:
    columns, _ = DenseEncoding().encode(tensor_of(logits), place=lambda n: f"row {first_row + n}", **options)
    return Dense(columns["logits"], columns["shift"])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_what_is_stored_is_the_definition(rng: np.random.Generator, dtype: str) -> None:
    logits = some_logits(rng, dtype)
    encoded = encode_dense(logits)
    assert encoded.logits.dtype == np.float16
    assert encoded.shift.dtype == np.float32
    for row in range(R):
        for member in range(M):
            peak = max(float(value) for value in logits[row, member])
            assert encoded.shift[row, member] == np.float32(peak)
            for index in range(C):
                below = logits[row, member, index].astype(np.float64) - peak
                stored = float(encoded.logits[row, member, index])
                # half a unit in the last place of float16, and of the subtraction in float32
                assert abs(stored - below) <= max(abs(below) * 2**-11, 2**-25) + abs(peak) * 2**-24
    assert (encoded.logits.max(axis=-1) == 0).all()
    again = encoded.logits.astype(np.float64) + encoded.shift[..., None]
    assert all(np.array_equal(*pair) for pair in zip(encoded, dense_columns(logits), strict=True))
    assert np.allclose(again, logits, rtol=2**-10, atol=2**-10 * np.ptp(logits.astype(np.float64), axis=-1).max())


def test_impossible_classes_are_legal(rng: np.random.Generator) -> None:
    logits = some_logits(rng)
    impossible = rng.random(logits.shape) < 0.4
    impossible[..., 0] = False
    logits[impossible] = -np.inf
    encoded = encode_dense(logits)
    assert np.array_equal(np.isneginf(encoded.logits), impossible)
    assert np.isfinite(encoded.shift).all()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda row: row.__setitem__(4, np.nan), "logits are NaN"),
        (lambda row: row.__setitem__(4, np.inf), r"a logit is \+inf"),
        (lambda row: row.__setitem__([2, 4], [np.inf, np.nan]), "logits are NaN"),
        (lambda row: row.__setitem__(slice(None), -np.inf), "all classes are -inf"),
        (lambda row: row.__setitem__(4, -70_000.0), "more than 65504 below"),
        (lambda row: row.__setitem__([2, 4], [3e38, -3e38]), "more than 65504 below"),
    ],
    ids=["nan", "+inf", "nan and +inf", "all -inf", "float16", "float32"],
)
def test_refused_with_row_and_member(rng: np.random.Generator, spoil: object, words: str) -> None:
    logits = some_logits(rng)
    row, member = int(rng.integers(R)), int(rng.integers(M))
    spoil(logits[row, member])  # type: ignore[operator]
    with pytest.raises(LogitsError, match=rf"{words}.*\(row {1000 + row}, member {member}\)"):
        encode_dense(logits, first_row=1000)


def test_a_peak_beyond_float32_is_refused(rng: np.random.Generator) -> None:
    logits = some_logits(rng, "float64")
    logits[3, 1] += 1e300
    with pytest.raises(LogitsError, match=r"float32.*\(row 3, member 1\)"):
        encode_dense(logits)


def test_the_edge_of_float16() -> None:
    logits = np.zeros((1, 1, 3), np.float32)
    logits[0, 0, 1:] = -65_504, -65_519.996
    assert encode_dense(logits).logits.tolist() == [[[0.0, -65_504.0, -65_504.0]]]
    logits[0, 0, 2] = -65_520
    with pytest.raises(LogitsError, match="65504"):
        encode_dense(logits)


@pytest.mark.parametrize("logits", [np.zeros((2, 3), np.float32), np.zeros((2, 1, 3), np.int64)])
def test_only_floats_of_three_axes(logits: np.ndarray) -> None:
    with pytest.raises(LogitsError, match="floats of shape"):
        DenseEncoding().encode(torch.from_numpy(logits))


def test_mean_logits(rng: np.random.Generator) -> None:
    logits, weights = some_logits(rng), rng.random(M) + 0.1
    logits[0, 2, 5] = -np.inf
    weights[1] = 0
    logits[:, 1, 3] = -np.inf  # of no weight: its word does not count
    mean = reduced(torch.from_numpy(logits), weights).numpy()
    assert mean.shape == (R, 1, C)
    share = weights / weights.sum()
    expected = share[0] * logits[:, 0].astype(np.float64) + share[2] * logits[:, 2].astype(np.float64)
    assert np.allclose(mean[:, 0], expected, rtol=1e-14)
    assert np.isneginf(mean[0, 0, 5])
    assert np.isfinite(mean[:, 0, 3]).all()
    stored = encode_dense(logits, weights=weights)
    assert all(np.array_equal(*pair) for pair in zip(stored, dense_columns(mean), strict=True))


def test_doubles_are_rounded_once() -> None:
    """1 + 2^-11 + 2^-40 lies above the middle of two numbers of float16, and in float32 right in it."""
    z = np.array([[[0.0, -(1 + 2**-11 + 2**-40), -1 - 2**-11]]])
    assert encode_dense(z).logits[0, 0].tolist() == [0.0, -(1 + 2**-10), -1.0]


def test_blocks_and_masks_change_nothing(rng: np.random.Generator) -> None:
    logits, mask = some_logits(rng), torch.from_numpy(rng.random(R) < 0.7)
    expected = dense_columns(np.where(mask.numpy()[:, None, None], logits, np.float32(0)))
    found = encode_dense(logits, mask=mask, block_bytes=1)
    assert all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))
    _, lost = DenseEncoding().encode(torch.from_numpy(logits), mask=mask)
    assert {each.samples for each in lost.fidelity} == {int(mask.sum()) * M}


def test_a_member_that_is_no_distribution_is_named_though_it_is_reduced(rng: np.random.Generator) -> None:
    logits = some_logits(rng)
    logits[5, 2, 1] = np.nan
    with pytest.raises(LogitsError, match=r"NaN \(row 5, member 2\)"):
        encode_dense(logits, weights=np.ones(M))
