"""DIST: which changes of the student it does not see, what it does where nothing varies, and how batches are averaged."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.regression import pearson_corrcoef

from softlabels.student.loss_spec import LossSpec
from softlabels.student.losses import soft_sum
from tests.student.loss_reference import draw, soft_gradient, soft_labels, soft_only, softmax

INTER, INTRA = {"beta": 1.0, "gamma": 0.0}, {"beta": 0.0, "gamma": 1.0}


def dist(z: np.ndarray, v: np.ndarray, temperature: float = 1.0, args: dict[str, float] | None = None) -> float:
    return soft_only(torch.tensor(z), soft_labels(v), temperature=temperature, loss="dist", loss_args=args).item()


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_it_is_what_torchmetrics_computes(rng: np.random.Generator, temperature: float) -> None:
    z, v = draw(rng, members=1)
    p, q = (torch.tensor(softmax(x / temperature)) for x in (v[:, 0], z))
    inter, intra = (1 - pearson_corrcoef(*pair).mean().item() for pair in ((q.T, p.T), (q, p)))
    assert dist(z, v, temperature, INTER) == pytest.approx(inter, rel=1e-4, abs=1e-5)
    assert dist(z, v, temperature, INTRA) == pytest.approx(intra, rel=1e-4, abs=1e-5)
    assert dist(z, v, temperature, {"beta": 2, "gamma": 0.5}) == pytest.approx(2 * inter + 0.5 * intra, rel=1e-4)


@pytest.mark.parametrize("a", [1.0, 0.3, 0.02])
def test_probabilities_that_are_a_positive_affine_map_of_the_teachers_cost_nothing(
    rng: np.random.Generator, a: float
) -> None:
    """q = a p + (1 - a) / C is one map for all entries: both correlations are 1, and the gradient is 0."""
    _, v = draw(rng, members=1, scale=1.0)
    p = softmax(v[:, 0] / 2)
    student = 2 * np.log(a * p + (1 - a) / 7)
    assert dist(student, v, 2.0) == pytest.approx(0, abs=2e-5)
    assert np.abs(soft_gradient(student, soft_labels(v), temperature=2.0, loss="dist")).max() < 1e-4
    b = -0.9 * p.min() / p.max()
    opposed = 2 * np.log(b * p + (1 - b) / 7)  # a negative one: as wrong as can be
    assert dist(opposed, v, 2.0, INTER) == pytest.approx(2, abs=1e-4)


def test_it_sees_neither_shifts_nor_the_order_of_rows_and_needs_no_t_squared(rng: np.random.Generator) -> None:
    z, v = draw(rng)
    shifted = z + rng.normal(0, 20, (len(z), 1))
    assert dist(shifted, v, 2.0) == pytest.approx(dist(z, v, 2.0), abs=1e-5)
    order = rng.permutation(len(z))
    assert dist(z[order], v[order], 2.0) == pytest.approx(dist(z, v, 2.0), abs=1e-5)
    sizes = [np.abs(soft_gradient(z, soft_labels(v), temperature=t, loss="dist")).sum() for t in (20.0, 200.0)]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.2)


def test_what_does_not_vary_has_no_correlation_and_passes_no_gradient(rng: np.random.Generator) -> None:
    _, v = draw(rng)
    uniform = np.full((len(v), 7), rng.normal())
    assert dist(uniform, v) == pytest.approx(2.0)
    assert (soft_gradient(uniform, soft_labels(v), temperature=1.0, loss="dist") == 0).all()
    z, v = draw(rng, rows=1)  # one row: nothing varies over the rows
    assert dist(z, v, 1.0, INTRA) == pytest.approx(1.0)
    assert (soft_gradient(z, soft_labels(v), temperature=1.0, loss="dist", loss_args=INTRA) == 0).all()


def test_rare_classes_count_as_much_as_common_ones(rng: np.random.Generator) -> None:
    """Probabilities around 1e-25, whose squares float32 cannot hold, still have a correlation."""
    z, v = draw(rng, members=1)
    z[:, 0] -= 55
    v[:, :, 0] -= 55
    p, q = softmax(v[:, 0]), softmax(z)
    want = np.mean([1 - np.corrcoef(p[:, c], q[:, c])[0, 1] for c in range(7)])
    assert dist(z, v, 1.0, INTRA) == pytest.approx(want, rel=1e-3, abs=1e-4)
    assert np.isfinite(soft_gradient(z, soft_labels(v), temperature=1.0, loss="dist")).all()


@pytest.mark.parametrize("gap", [64.0, 72.0, 80.0, 88.0, 92.0, 100.0, 104.0, 200.0])
def test_a_class_that_underflows_over_the_whole_batch_does_not_vary(rng: np.random.Generator, gap: float) -> None:
    """Down to float32's denormal numbers (from a gap of 88) and below them: finite all the way, 0 from 1e-30 on."""
    z, v = draw(rng, members=1, scale=1.0)
    z[:, 2] -= gap
    gradient = soft_gradient(z, soft_labels(v), temperature=1.0, loss="dist")
    assert np.isfinite(gradient).all()
    if gap >= 80:
        p, q = softmax(v[:, 0]), softmax(z)
        want = [0.0 if c == 2 else np.corrcoef(p[:, c], q[:, c])[0, 1] for c in range(7)]
        assert dist(z, v, 1.0, INTRA) == pytest.approx(1 - np.mean(want), rel=1e-4)


def test_a_class_that_one_side_alone_excludes_is_well_defined(rng: np.random.Generator) -> None:
    z, v = draw(rng, members=1)
    z[:, 1], v[:, :, 2] = -np.inf, -np.inf
    z[0, 3], v[0, :, 3] = -np.inf, -np.inf  # both, in one row: that entry does not count
    p, q = softmax(v[:, 0]), softmax(z)
    keep = np.ones_like(p, bool)
    keep[0, 3] = False
    rows = [np.corrcoef(a[k], b[k])[0, 1] for a, b, k in zip(p, q, keep, strict=True)]
    columns = [
        0.0 if c in (1, 2) else np.corrcoef(p[keep[:, c], c], q[keep[:, c], c])[0, 1] for c in range(7)
    ]  # a column of zeros does not vary
    assert dist(z, v, 1.0, INTER) == pytest.approx(1 - np.mean(rows), rel=1e-4)
    assert dist(z, v, 1.0, INTRA) == pytest.approx(1 - np.mean(columns), rel=1e-4)
    assert np.isfinite(soft_gradient(z, soft_labels(v), temperature=1.0, loss="dist")).all()


def test_batches_are_averaged_by_their_rows_and_cutting_one_changes_it(rng: np.random.Generator) -> None:
    z, v = draw(rng)
    soft, student = soft_labels(v), torch.tensor(z)
    sums = [
        soft_sum(student[part], soft[part], None, LossSpec(2.0, loss="dist")) for part in (slice(0, 4), slice(4, 12))
    ]
    values = [dist(z[part], v[part], 2.0) for part in (slice(0, 4), slice(4, 12))]
    cut = sum(sums).item() / 12  # type: ignore[union-attr]
    assert cut == pytest.approx((4 * values[0] + 8 * values[1]) / 12, rel=1e-5)
    assert abs(cut - dist(z, v, 2.0)) > 1e-4
