"""What the checks ask of sigmoid and values targets: no logits, outputs that contradict, and what the live teacher says."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from softlabels.checks.contradictions import apart, require_consistent
from softlabels.checks.probabilities import looks, require_logits, rows_of_positions
from softlabels.errors import ContradictingOutputs, InfiniteLogits, LogitsError, LogitsOverflow
from softlabels.labels.encoding import Encoding, SigmoidEncoding, ValuesEncoding
from softlabels.store import StoreWriter, open_store
from softlabels.store.findings import ask as ask_store
from softlabels.store.findings import keys_of
from softlabels.store.new_spec import store_spec
from softlabels.teacher import sentinels
from softlabels.teacher.comparison import compare, nothing_seen
from softlabels.teacher.deviation import Deviation, ValuesDeviation
from softlabels.teacher.encode import looks_among
from softlabels.teacher.ensemble import Ensemble
from tests.checks.samples import CLASSES, Model, live, some_rows

R = 200
WHAT = r"lie in \[0, 1\], many near 0 and none below, as probabilities do and logits hardly ever"


def sigmoid(z: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-z)))


def ask(values: np.ndarray, total: int = R, **options: str) -> None:
    require_logits(looks(values, "sigmoid"), target="sigmoid", total=total, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("classes", [1, 2, 20])
def test_probabilities_of_a_sigmoid(rng: np.random.Generator, classes: int, dtype: type) -> None:
    z = rng.normal(-2, 3, size=(R, 2, classes))
    p = sigmoid(z)
    ask(z.astype(dtype))
    ask(np.log(p / (1 - p)).astype(dtype))
    ask((2 * p - 1).astype(dtype))
    both = np.stack([z[:, 0], p[:, 0]], axis=1).astype(dtype)
    with pytest.raises(LogitsError, match=rf"it: all outputs of member 1 of 200 rows {WHAT}.*log\(p / \(1 - p\)\)"):
        ask(both, who="it")
    with pytest.raises(LogitsError, match=f"all outputs of 200 rows {WHAT}; say so"):
        ask(p[:, :1].astype(dtype), remedy="say so")
    for values in (both, np.where(both < 0.5, both, 1.2)):
        assert np.array_equal(looks_among(torch.from_numpy(values.astype(dtype)), "sigmoid"), looks(values, "sigmoid"))
        half = torch.from_numpy(values).bfloat16()
        assert np.array_equal(looks_among(half, "sigmoid"), looks(half.float().numpy(), "sigmoid"))


def test_logits_that_are_weak(rng: np.random.Generator) -> None:
    """Of a teacher of one class that is never sure many rows lie in [0, 1], and some do not."""
    for middle, spread in ((0.5, 0.25), (0.1, 0.2), (0.02, 0.002), (0.9, 0.05)):
        ask(rng.normal(middle, spread, size=(2000, 1, 1)), total=2000)
    ask(np.full((R, 1, 3), 0.01))  # untrained
    ask(np.zeros((R, 1, 3)))
    ask(sigmoid(rng.normal(-2, 3, size=(15, 1, 4))), total=15)  # too few to tell
    p = sigmoid(rng.normal(-2, 3, size=(R, 1, 4)))
    p[77, 0, 2] = -0.5
    ask(p)


def test_positions_that_count(rng: np.random.Generator) -> None:
    p, mask = sigmoid(rng.normal(-2, 3, size=(R, 6, 1, 3))), rng.integers(0, 2, (R, 6)).astype(np.uint8)
    mask[:4] = 0
    z = np.where(mask[..., None, None] == 1, p, rng.normal(size=p.shape) * 9)
    found = rows_of_positions(looks(z, "sigmoid"), mask, "sigmoid")
    assert found.shape == (R, 1)
    with pytest.raises(LogitsError, match=WHAT):
        require_logits(found, target="sigmoid", total=R)
    z[9, np.flatnonzero(mask[9])[0], 0, 0] = 1.5
    require_logits(rows_of_positions(looks(z, "sigmoid"), mask, "sigmoid"), target="sigmoid", total=R)


def test_values_may_be_anything(rng: np.random.Generator) -> None:
    values = np.full((R, 1, 2), 0.5)
    found = looks(values, "values")
    assert np.array_equal(found, looks_among(torch.from_numpy(values), "values"))
    require_logits(rows_of_positions(found[:, None], np.ones((R, 1)), "values"), target="values", total=R)


@pytest.mark.parametrize("encoding", [SigmoidEncoding(), SigmoidEncoding(dtype="float32"), ValuesEncoding()], ids=str)
def test_outputs_that_contradict(rng: np.random.Generator, encoding: Encoding) -> None:
    z = rng.normal(size=(R, 2, CLASSES)) * 4
    if encoding.target == "sigmoid":
        z[5, :, 1], z[6, :, 2] = np.inf, -np.inf
    other = z * (1 + 1e-6 * rng.normal(size=z.shape))
    other[10, 1, 3] += 2.0
    other[11, 0, 0] += 40.0
    columns = [encoding.encode(torch.tensor(each))[0] for each in (z, other)]
    for exact, one, two in ((False, *columns), (True, encoding.exact(z), encoding.exact(other))):
        gap = apart(one, two, encoding=encoding, classes=CLASSES, precision="float32")
        assert np.flatnonzero(gap).tolist() == [10, 11]
        if encoding.target == "sigmoid":
            expected = np.abs(sigmoid(z) - sigmoid(other))[[10, 11], [1, 0], [3, 0]]
        else:
            sizes = np.abs(np.stack([z, other]))
            usual = np.quantile(sizes.reshape(-1, CLASSES), 0.75, axis=0, method="lower")
            largest = (sizes / usual).max(axis=(0, -1))[[10, 11], [1, 0]]
            expected = np.array([2.0, 40.0]) / usual[[3, 0]] / np.maximum(largest, 1)
        np.testing.assert_allclose(gap[10:12], expected, rtol=1e-4 if exact else 1e-2)
    keys = np.zeros((R, 16), np.uint8)
    keys[:, 0] = np.arange(R)
    half = {name: np.concatenate([values, columns[1][name]]) for name, values in columns[0].items()}
    read = lambda rows: {name: values[rows] for name, values in half.items()}  # noqa: E731
    compare_ = partial(apart, encoding=encoding, classes=CLASSES, precision="float32")
    words = rf"2 of the 200 rows of here .* have other outputs: row 210 \(as row 10, {encoding.off.split('{')[0]}0"
    with pytest.raises(ContradictingOutputs, match=words):
        require_consistent(np.concatenate([keys, keys]), read, compare_, row_bytes=1, where="here", off=encoding.off)


@pytest.mark.parametrize("unit", [1e-7, 1.0, 1e5])
def test_values_contradict_in_any_unit(rng: np.random.Generator, unit: float) -> None:
    """Also beside one pair that is far larger, outputs of other sizes, and padding."""
    z = rng.normal(size=(R, 3, 1, 4)) * unit * np.array([1, 100, 1, 0])
    z[..., 2] *= rng.random((R, 3, 1)) < 0.3  # mostly 0
    z[40] *= 1e6
    other = z * (1 + 1e-6 * rng.normal(size=z.shape)) + 1e-7 * unit * rng.normal(size=z.shape)
    other[[3, 4, 5], 1, 0, [0, 1, 2]] += np.array([0.5, 50, 0.5]) * unit
    mask = np.ones((R, 3), np.uint8)
    mask[:, 2] = 0
    other[:, 2], z[:, 2] = np.nan, 1e9 * unit
    pair = [{"values": each.astype(np.float32), "position_mask": mask} for each in (z, other)]
    gap = apart(*pair, encoding=ValuesEncoding(), classes=4, precision="float32")
    assert np.flatnonzero(gap).tolist() == [3, 4, 5]


def test_classes_that_both_are_sure_of_do_not_contradict() -> None:
    one, other = {"logits": np.array([[[50.0, -40.0]]])}, {"logits": np.array([[[90.0, -np.inf]]])}
    assert apart(one, other, encoding=SigmoidEncoding(), classes=2, precision="float32").tolist() == [0.0]
    flipped = {"logits": np.array([[[np.inf, np.inf]]])}
    assert apart(other, flipped, encoding=SigmoidEncoding(), classes=2, precision="float32").tolist() == [1.0]


class _Changed(Model):
    """z of `Model`, and what `change` makes of it."""

    def __init__(self, change: nn.Module) -> None:
        super().__init__()
        self.change = change

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.change(super().forward(inputs))
        return found


class _Huge(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, z: Tensor) -> Tensor:
        z = z.clone()
        z[:, 0] = torch.where(z[:, 0] > 0, z[:, 0], self.value)
        return z


def check_sentinels(ensemble: Ensemble, inputs: np.ndarray, encoding: Encoding) -> int:
    ensemble.expect(targets={"": encoding})
    return sentinels.check_sentinels(ensemble, inputs)[""]


def test_live_teacher(rng: np.random.Generator) -> None:
    inputs = some_rows(rng)
    logits, halves = live(_Changed(nn.Identity())), live(_Changed(nn.Sigmoid()))
    for encoding in (SigmoidEncoding(), ValuesEncoding(), SigmoidEncoding(reduce="geometric")):
        assert check_sentinels(logits, inputs, encoding=encoding) == CLASSES
    assert check_sentinels(halves, inputs, encoding=ValuesEncoding()) == CLASSES
    with pytest.raises(
        LogitsError, match=rf"the teacher \(live\): all outputs of 64 rows {WHAT}; leave out the sigmoid"
    ):
        check_sentinels(halves, inputs, encoding=SigmoidEncoding())
    infinite, huge = live(_Changed(_Huge(-np.inf))), live(_Changed(_Huge(-1e5)))
    check_sentinels(infinite, inputs, encoding=SigmoidEncoding())
    check_sentinels(huge, inputs, encoding=SigmoidEncoding(dtype="float32"))
    check_sentinels(huge, inputs, encoding=ValuesEncoding())
    with pytest.raises(LogitsOverflow, match=r"beyond 65504, the largest float16 \(row \d+, member 0\)"):
        check_sentinels(huge, inputs, encoding=SigmoidEncoding())
    with pytest.raises(LogitsOverflow, match=r"beyond 65504"):
        check_sentinels(huge, inputs, encoding=ValuesEncoding(dtype="float16"))
    with pytest.raises(InfiniteLogits, match=r"a value is infinite \(row \d+, member 0\)"):
        check_sentinels(infinite, inputs, encoding=ValuesEncoding())


def deviation(encoding: Encoding, live: np.ndarray, stored: np.ndarray) -> Deviation | ValuesDeviation:
    found = nothing_seen(encoding, live.shape[-1], precision="float32", lines=[])
    columns = encoding.encode(torch.tensor(stored))[0]
    compare(encoding, torch.tensor(live).float(), np.ones(1), columns, np.full(R, -1), found)
    return found


@pytest.mark.parametrize("encoding", [SigmoidEncoding(), SigmoidEncoding(dtype="float32"), ValuesEncoding()], ids=str)
@pytest.mark.parametrize("unit", [1.0, 1e-6])
def test_against_the_live_teacher(rng: np.random.Generator, encoding: Encoding, unit: float) -> None:
    if encoding.target == "sigmoid" and unit < 1:
        return
    z = rng.normal(size=(R, 1, CLASSES)) * np.array([0.3, 1, 2, 4, 8]) * unit
    if encoding.target == "sigmoid":
        z[5, :, 1], z[6, :, 2] = np.inf, -np.inf
    noise = rng.normal(size=z.shape)
    found = deviation(encoding, z, z * (1 + 1e-5 * noise) + 1e-6 * noise * unit)
    assert found.sound, found.line
    assert found.distributions == R
    assert ("same decisions 100.00%" in found.line) == (encoding.target == "sigmoid")
    assert ("of a value" in found.line) == (encoding.target == "values")
    swapped = z[..., [0, 1, 2, 4, 3]]
    one = z.copy()
    one[9, 0, 0] += 0.3 * unit * (1 if encoding.target == "values" else 10)
    for wrong in (swapped, z * 1.02, z + 0.05 * unit * np.array([0.3, 1, 2, 4, 8]), one):
        assert not deviation(encoding, z, wrong).sound
    if encoding.target == "sigmoid":
        for row, number, value in ((5, 1, 30.0), (6, 2, np.inf), (7, 0, np.inf)):
            certain = z.copy()
            certain[row, 0, number] = value
            assert not deviation(encoding, z, certain).sound


def test_a_store_of_probabilities(rng: np.random.Generator, work: Path) -> None:
    """The writer refuses a shard of them, and what was written all the same is found when the store is asked."""
    z = rng.normal(-2, 3, size=(R, 1, 3))
    keys = rng.integers(0, 256, (R, 16), np.uint8)
    spec = store_spec(SigmoidEncoding(), teacher="it", name="rows", keys=keys, classes=3, rows_per_chunk=16)
    rows = {"keys": keys, "labels": None}
    for name, outputs in (("honest", z), ("wrong", sigmoid(z))):
        with StoreWriter(work / name, spec) as writer:
            if name == "wrong":
                with pytest.raises(LogitsError, match=f"all outputs of 200 rows {WHAT}"):
                    writer.write_logits(0, logits=outputs, **rows)  # type: ignore[arg-type]
            writer.write_logits(0, logits=outputs, are_logits=True, **rows)  # type: ignore[arg-type]
            writer.seal()
        store = open_store(work / name)
        found = [str(error) for error in ask_store(store, keys_of(store))]
        assert len(found) == (name == "wrong")
        assert not found or re.search(f"wrong: all outputs of 200 rows {WHAT}; label the transfer set again", found[0])
    np.testing.assert_allclose(
        open_store(work / "honest").probabilities(range(R), temperature=2.0), sigmoid(z[:, 0] / 2), atol=2e-3
    )


def test_values_are_measured_in_the_unit_of_all_rows(rng: np.random.Generator) -> None:
    """Not in that of a batch, which may be a row whose value is near 0 by chance; nor in that of an output that is rounding."""
    z, found = (
        rng.normal(size=(R, 1, 3)) * np.array([1.0, 1e3, 1e-9]),
        nothing_seen(ValuesEncoding(), 3, precision="float32", lines=[]),
    )
    z[R - 1] = [[1e-4, 3e2, 0]]
    live = torch.tensor(z + 1e-6 * rng.normal(size=z.shape) * np.array([1.0, 1e3, 1]), dtype=torch.float32)
    columns = ValuesEncoding().encode(torch.tensor(z))[0]
    for start in range(R):
        part = {name: values[start : start + 1] for name, values in columns.items()}
        compare(ValuesEncoding(), live[start : start + 1], np.ones(1), part, np.full(1, -1), found)
    assert found.sound, found.line
    live[7, 0, 0] = torch.nan
    part = {name: values[7:8] for name, values in columns.items()}
    compare(ValuesEncoding(), live[7:8], np.ones(1), part, np.full(1, -1), found)
    assert not found.sound
    assert "largest deviation of a value inf of its output's root mean square" in found.line
