"""Values targets: what is stored, what was lost and the mean of members, each against plain float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from softlabels.errors import ConfigError, InfiniteLogits, LogitsOverflow, NanLogits
from softlabels.labels.encoding import ValuesEncoding
from softlabels.labels.lost import Errors, Lost, LostTable
from softlabels.labels.soft import SoftLabels

N, M, D = 7, 3, 4
WEIGHTS = ([1.0, 1.0, 1.0], [0.5, 0.0, 2.0], [0.0, 3.0, 0.0])


def some_values(rng: np.random.Generator) -> np.ndarray:
    return np.asarray(rng.normal(size=(N, M, D)) * np.array([1e-6, 0.1, 30.0, 6000.0]))


def soft_labels(values: np.ndarray, weights: list[float], **options: Any) -> SoftLabels:
    encoding = ValuesEncoding(**options)
    share = torch.tensor(weights) / sum(weights)
    return SoftLabels(encoding.members({"values": torch.tensor(values)}, D), share, encoding.reduce)


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_mean_of_members(rng: np.random.Generator, dtype: str, weights: list[float]) -> None:
    values = some_values(rng).astype(dtype)
    expected = np.empty((N, D))
    for row in range(N):
        for number in range(D):
            parts = [w / sum(weights) * float(values[row, m, number]) for m, w in enumerate(weights)]
            expected[row, number] = math.fsum(parts)
    exact = ValuesEncoding(dtype=dtype).values({"values": values}, weights)  # type: ignore[arg-type]
    np.testing.assert_allclose(exact, expected, rtol=1e-14, atol=1e-12)
    soft = soft_labels(values, weights, dtype=dtype)
    assert (soft.target, len(soft), soft.classes, soft.stored_members) == ("values", N, D, M)
    found = soft.values()
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-3)
    assert torch.equal(soft[torch.tensor([5, 1])].to("cpu").values(), found[[5, 1]])
    assert torch.equal(soft[1:4].values(), found[1:4])
    assert torch.equal(soft.member(2).values(), torch.from_numpy(values[:, 2]).float())


@pytest.mark.parametrize(("given", "dtype"), [("float16", "float32"), ("float32", "float16"), ("float64", "float16")])
def test_what_is_stored_is_the_nearest_number_and_its_error_is_known(
    rng: np.random.Generator, given: str, dtype: str
) -> None:
    values, mask = some_values(rng).astype(given), rng.random(N) < 0.7
    encoding = ValuesEncoding(dtype=dtype)  # type: ignore[arg-type]
    columns, lost = encoding.encode(torch.from_numpy(values), mask=torch.from_numpy(mask))
    assert columns.keys() == {"values"}
    assert columns["values"].dtype == dtype
    assert np.array_equal(columns["values"], np.where(mask[:, None, None], values, np.float16(0)).astype(dtype))
    encoding.check_column("values", columns["values"], D)
    errors = columns["values"][mask].astype(np.longdouble) - values[mask].astype(np.longdouble)
    assert lost.fidelity == ()
    assert lost.errors is not None
    assert lost.errors.samples == errors.size
    assert lost.errors.squares == pytest.approx(float((errors**2).sum()), rel=1e-12)
    assert lost.errors.largest == pytest.approx(float(np.abs(errors).max()), rel=1e-12)
    blocks, again = encoding.encode(torch.from_numpy(values), mask=torch.from_numpy(mask), block_bytes=1)
    assert np.array_equal(blocks["values"], columns["values"])
    assert again.errors is not None
    assert again.errors.squares == pytest.approx(lost.errors.squares, rel=1e-12)
    table = LostTable.of([lost, Lost(), lost])
    rmse = math.sqrt(float((errors**2).mean()))
    assert table == LostTable(errors=Errors(rmse=pytest.approx(rmse), largest=pytest.approx(lost.errors.largest)))


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_members_that_are_reduced_lose_nothing_by_it(rng: np.random.Generator, weights: list[float]) -> None:
    values = some_values(rng)
    encoding = ValuesEncoding(reduce="arithmetic")
    columns, lost = encoding.encode(torch.from_numpy(values), weights=weights)
    mean = np.average(values, axis=1, weights=weights)
    np.testing.assert_allclose(columns["values"][:, 0], mean, rtol=2**-23, atol=1e-10)
    assert lost.errors is not None
    assert lost.errors.samples == N * D
    assert lost.errors.largest <= np.abs(mean).max() * 2**-24  # of the mean, not of the members
    assert soft_labels(columns["values"], [1.0], reduce="arithmetic").values().shape == (N, D)


def test_what_no_store_can_hold(rng: np.random.Generator) -> None:
    values = torch.tensor(some_values(rng))
    for value, error, words in (
        (math.nan, NanLogits, "values are NaN"),
        (-math.inf, InfiniteLogits, "a value is infinite"),
        (math.inf, InfiniteLogits, "a value is infinite"),
    ):
        spoilt = values.clone()
        spoilt[4, 2, 1] = value
        for options in ({}, {"weights": [1.0] * M}):
            encoding = ValuesEncoding(reduce="arithmetic" if options else "none", dtype="float16")
            with pytest.raises(error, match=rf"{words} \(row 4, member 2\)"):
                encoding.encode(spoilt, block_bytes=1, **options)  # type: ignore[arg-type]
    spoilt = values.clone()
    spoilt[3, 1, 0] = -65520.0
    with pytest.raises(LogitsOverflow, match=r"beyond 65504, the largest float16 \(row 3, member 1\).*keep float32"):
        ValuesEncoding(dtype="float16").encode(spoilt)
    assert ValuesEncoding().encode(spoilt)[0]["values"][3, 1, 0] == -65520
    with pytest.raises(ConfigError, match=r"values labels cannot be reduced to the geometric mean.*none, arithmetic"):
        ValuesEncoding(reduce="geometric").encode(values, weights=[1.0] * M)
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match="row 11: a value is NaN or infinite"):
            ValuesEncoding().check_column("values", np.array([[[1.0]], [[value]]]), 1, first_row=10)


def test_what_values_have_no_answer_to(rng: np.random.Generator) -> None:
    values = some_values(rng).astype(np.float32)
    encoding, soft, columns = ValuesEncoding(), soft_labels(values, [1.0] * M), {"values": values}
    known: dict[str, Any] = {"temperature": 1.0, "mean": "arithmetic", "weights": [1.0] * M}
    for ask in (
        lambda: soft.log_probs(1.0),
        lambda: soft.logits(1.0),
        lambda: soft.mean_logits(),
        lambda: soft.standardised(),
        lambda: encoding.log_probs(columns, D, None, **known),
        lambda: encoding.probabilities(columns, D, None, **known),
        lambda: encoding.member_logits(columns, D, None, 1.0),
        lambda: encoding.check_temperature(1.0),
        lambda: encoding.check_mean("arithmetic", D, M),
    ):
        with pytest.raises(ConfigError, match=r"labels are real vectors \(values\) and have no .*ask for values"):
            ask()
    assert not [what for wrong, what in encoding.rules(1, 1) if wrong]


def test_columns_and_words() -> None:
    encoding = ValuesEncoding()
    assert encoding.columns(D, M) == (("values", "float32", (M, D), ("member", "value")),)
    assert encoding.columns(1, 1, 9) == (("values", "float32", (9, 1, 1), ("position", "member", "value")),)
    assert (encoding.kind, encoding.target, encoding.first_format) == ("values", "values", 3)
    assert encoding.decoding() == {"kind": "values", "dtype": "float32", "reduce": "none"}
    assert "float16" in ValuesEncoding(dtype="float16").words(D, "")
    empty, lost = encoding.encode(torch.zeros(0, M, D))
    assert empty["values"].shape == (0, M, D)
    assert LostTable.of([lost]) == LostTable()
