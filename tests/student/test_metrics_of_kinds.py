"""Scores of flags and vectors against scikit-learn, torchmetrics and direct definitions, however rows are cut into batches."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, log_loss, mean_squared_error, r2_score
from sklearn.metrics.pairwise import paired_cosine_distances
from torch import nn
from torchmetrics.classification import BinaryCalibrationError

from softlabels.student import flag_metrics
from softlabels.student.evaluate import Asked, evaluate_student, evaluate_teacher
from softlabels.student.metrics import Metrics, metrics_of
from softlabels.student.runlog import finite
from tests.student import runs
from tests.student.kind_reference import Rows, draw, probabilities, sigmoid

CUTS = (0, 1, 90, 250, 400)


def scores(rows: Rows, cuts: tuple[int, ...] = (0, 400), *, temperature: float = 4.0, mean: str = "arithmetic") -> Any:
    metrics = metrics_of("values" if rows.kind == "values" else "sigmoid", (temperature,), mean)
    for ends in pairwise(cuts):
        part = rows.at(slice(*ends))
        metrics.update(torch.tensor(part.z), part.hard, part.soft)
    found = dict(metrics.result())
    json.dumps(found, allow_nan=False)
    return found


def flags(rng: np.random.Generator) -> Rows:
    """Of which some are likely, some rare and some unknown; logits that are often alike."""
    rows = draw(rng, "bce", rows=400)
    rows.labels[:] = np.where(rows.labels < 0, -1, rng.random(rows.labels.shape) < [0.5, 0.3, 0.1, 0.02, 0.7])
    rows.z[:] = np.round(rows.z + 2 * (rows.labels == 1), 1)
    return rows


def test_scores_of_known_flags(rng: np.random.Generator) -> None:
    rows = flags(rng)
    got, known = scores(rows), rows.labels >= 0
    p, y = sigmoid(rows.z), rows.labels
    assert (got["rows"], got["labelled"], got["flags"]) == (400, known.any(axis=1).sum(), known.sum())
    assert got["nll"] == pytest.approx(log_loss(y[known], p[known]), rel=1e-9)
    of_torch = BinaryCalibrationError(n_bins=15, norm="l1")(torch.tensor(p[known]), torch.tensor(y[known]).int())
    assert got["ece"] == pytest.approx(of_torch.item(), abs=1e-6)
    each = [(y[known[:, c], c], rows.z[known[:, c], c]) for c in range(5)]
    assert got["map"] == pytest.approx(np.mean([average_precision_score(*one) for one in each]), rel=1e-9)
    own = [f1_score(true, z > 0) for true, z in each]
    assert got["f1"]["macro"] == pytest.approx(np.mean(own), rel=1e-9)
    assert got["f1"]["micro"] == pytest.approx(f1_score(y[known], rows.z[known] > 0), rel=1e-9)


@pytest.mark.parametrize("mean", ["arithmetic", "geometric", "tempered"])
def test_scores_of_flags_against_the_teacher(rng: np.random.Generator, mean: str) -> None:
    rows = flags(rng)
    got = scores(rows, mean=mean)
    assert list(got["kl"]) == ["1", "4"]
    for t in (1.0, 4.0):
        p, q = probabilities(rows, t, mean), sigmoid(rows.z / t)
        kl = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
        assert got["kl"][f"{t:g}"] == pytest.approx(kl.sum(axis=1).mean(), rel=1e-5)
    assert got["agreement"] == pytest.approx(((rows.z > 0) == (probabilities(rows, 1.0, mean) > 0.5)).mean())


def vectors(rng: np.random.Generator) -> Rows:
    """Far from 0, so that sums of squares would lose their digits; one value never changes."""
    rows = draw(rng, "mse", rows=400)
    for values in (rows.z, rows.labels, rows.v):
        values += 3000
    rows.labels[:, 4] = np.where(np.isnan(rows.labels[:, 4]), np.nan, 0.1)
    return rows


def compared(said: np.ndarray, wanted: np.ndarray, varying: slice = slice(None)) -> dict[str, float]:
    """By scikit-learn."""
    mse = mean_squared_error(wanted, said)
    cosine = 1 - paired_cosine_distances(said, wanted).mean()
    return {"mse": mse, "rmse": mse**0.5, "r2": r2_score(wanted[:, varying], said[:, varying]), "cosine": cosine}


def test_scores_of_vectors(rng: np.random.Generator) -> None:
    rows = vectors(rng)
    got, known = scores(rows), ~np.isnan(rows.labels[:, 0])
    assert (got.pop("rows"), got.pop("labelled")) == (400, known.sum())
    v = np.einsum("m,bmc->bc", rows.share, rows.v)
    assert got.pop("teacher") == pytest.approx(compared(rows.z, v), rel=1e-5)
    assert got == pytest.approx(compared(rows.z[known], rows.labels[known].astype(np.float64), slice(4)), rel=1e-9)
    assert got["r2"] < 0 < got["cosine"]


@pytest.mark.parametrize("of", [flags, vectors])
def test_the_cut_into_batches_plays_no_part(rng: np.random.Generator, of: Any) -> None:
    rows = of(rng)
    whole, cut = scores(rows), scores(rows, CUTS)
    nested = {"kl", "f1", "teacher"} & whole.keys()
    for name in nested:
        assert cut.pop(name) == pytest.approx(whole.pop(name), rel=1e-12), name
    assert cut == pytest.approx(whole, rel=1e-12)


def test_what_does_not_apply_is_left_out(rng: np.random.Generator) -> None:
    for kind in ("sigmoid", "values"):
        metrics = metrics_of(kind, (), "arithmetic")  # type: ignore[arg-type]
        assert metrics.result() == {"rows": 0, "labelled": 0}
        nothing = torch.full((3, 5), -1).to(torch.int8) if kind == "sigmoid" else torch.full((3, 5), torch.nan)
        metrics.update(torch.zeros(3, 5), nothing, None)
        assert metrics.result() == {"rows": 3, "labelled": 0}
    metrics = metrics_of("sigmoid", (), "arithmetic")
    metrics.update(torch.randn(3, 2), torch.tensor([[0, 0], [0, -1], [-1, -1]]).to(torch.int8), None)
    assert set(metrics.result()) == {"rows", "labelled", "flags", "nll", "ece"}
    metrics.update(torch.tensor([[1.0, 2.0]]), torch.tensor([[-1, 1]]).to(torch.int8), None)  # class 0 has no flag of 1
    found = metrics.result()
    assert found["f1"]["macro"] in (1.0, 2 / 3, 0.5)
    assert found["map"] in (1.0, 1 / 2, 1 / 3)
    metrics = metrics_of("values", (), "arithmetic")
    metrics.update(torch.ones(2, 3), torch.tensor([[0.1, 0.0, 0.0], [0.1, 0.0, 0.0]]), None)  # nothing varies
    assert set(metrics.result()) == {"rows", "labelled", "mse", "rmse", "cosine"}
    metrics = metrics_of("values", (), "arithmetic")
    metrics.update(torch.ones(1, 3), torch.zeros(1, 3), None)
    assert set(metrics.result()) == {"rows", "labelled", "mse", "rmse"}


def test_zeros_and_certain_flags(rng: np.random.Generator) -> None:
    """A student's zero vector counts 0; certain flags have no KL where both sides are."""
    metrics = metrics_of("values", (), "arithmetic")
    metrics.update(
        torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]), None
    )
    assert metrics.result()["cosine"] == 0.5
    certain = np.array([[np.inf, -np.inf, 0.0]])
    rows = Rows("sigmoid", certain, certain[None], np.array([[1, 0, -1]]), np.ones(1))
    found = scores(rows, (0, 1))
    assert (found["nll"], found["ece"], found["agreement"], found["kl"]) == (0.0, 0.0, 1.0, {"1": 0.0, "4": 0.0})
    opposite = Rows("sigmoid", -certain, certain[None], np.array([[1, 0, -1]]), np.ones(1))
    metrics = metrics_of("sigmoid", (), "arithmetic")
    metrics.update(torch.tensor(opposite.z), opposite.hard, opposite.soft)
    assert finite(metrics.result())["kl"] == {"1": None}  # type: ignore[index]


def test_beyond_a_number_of_flags_they_are_not_put_in_order(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flag_metrics, "KEPT", 5 * 300)
    found = scores(flags(rng), CUTS)
    assert "map" not in found
    assert found["f1"]["micro"] > 0


@pytest.mark.parametrize("loss", ["bce", "mse"])
def test_the_stored_teacher_and_its_members_are_judged_alike(rng: np.random.Generator, loss: str) -> None:
    rows = flags(rng) if loss == "bce" else vectors(rng)
    mean = "tempered" if loss == "bce" else "arithmetic"
    asked, device = {"": Asked((4.0,), mean, rows.soft.target)}, torch.device("cpu")
    batches = runs.MemoryBatches(rows.batch, 128, seed=None)
    ensemble, members = evaluate_teacher(batches, asked, device=device)
    if loss == "bce":
        assert (ensemble["agreement"], ensemble["kl"]) == (1.0, {"1": 0.0, "4": 0.0})
    else:
        assert ensemble["teacher"] == pytest.approx({"mse": 0.0, "rmse": 0.0, "r2": 1.0, "cosine": 1.0})
    assert len(members) == 3
    for number, member in enumerate(members):
        alone = Rows(rows.kind, rows.v[:, number], rows.v, rows.labels, rows.share)
        of_model = scores(alone, mean=mean)
        for name, value in of_model.items():
            assert member[name] == pytest.approx(value, rel=1e-4), name  # type: ignore[literal-required]
    student = evaluate_student(nn.Identity(), batches, asked, device=device)
    for name, value in scores(rows, mean=mean).items():
        assert student[name] == pytest.approx(value, rel=1e-4), name  # type: ignore[literal-required]


def test_distributions_keep_their_own() -> None:
    assert isinstance(metrics_of("softmax", (), "arithmetic"), Metrics)
