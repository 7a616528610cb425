"""The accumulators against torchmetrics and against direct definitions, however the rows are cut into batches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from softlabels.errors import ConfigError
from softlabels.labels.encoding import TopkEncoding
from softlabels.labels.ensemble import log_probs
from softlabels.labels.soft import SoftLabels
from softlabels.student.evaluate import Asked, evaluate_student, evaluate_teacher
from softlabels.student.metrics import Metrics, top_class
from tests.student import batches

CLASSES = 6


@dataclass(frozen=True)
class Rows:
    """Logits of a model and a teacher over the same rows."""

    logits: torch.Tensor
    labels: torch.Tensor
    teacher: np.ndarray

    @property
    def soft(self) -> SoftLabels:
        shift = self.teacher.max(axis=-1)
        weights = torch.tensor([0.5, 0.3, 0.2])
        return SoftLabels.dense(
            torch.tensor(self.teacher - shift[..., None]).half(), torch.tensor(shift).float(), weights
        )


@pytest.fixture
def rows(rng: np.random.Generator) -> Rows:
    labels = rng.integers(0, CLASSES, 500)
    logits = rng.normal(0, 1.5, (500, CLASSES))
    logits[np.arange(500), labels] += 1.5
    return Rows(torch.tensor(logits).float(), torch.tensor(labels), rng.normal(0, 2, (500, 3, CLASSES)))


def scores(rows: Rows, cuts: tuple[int, ...] = (), **options: object) -> dict[str, object]:
    metrics = Metrics(**options)  # type: ignore[arg-type]
    edges = (0, *cuts, len(rows.labels))
    for start, stop in pairwise(edges):
        metrics.update(rows.logits[start:stop], rows.labels[start:stop], rows.soft[start:stop])
    return dict(metrics.result())


def test_hard_scores_equal_torchmetrics_and_the_definitions(rows: Rows) -> None:
    got = scores(rows)
    p = torch.softmax(rows.logits.double(), dim=-1)
    accuracy = MulticlassAccuracy(CLASSES, average="micro")(p, rows.labels).item()
    ece = MulticlassCalibrationError(CLASSES, n_bins=15, norm="l1")(p, rows.labels).item()
    wrong = int((p.argmax(dim=-1) != rows.labels).sum())
    assert 0 < wrong < 500
    assert got["errors"] == wrong
    assert got["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert got["ece"] == pytest.approx(ece, abs=1e-6)
    assert got["nll"] == pytest.approx(nn.functional.cross_entropy(rows.logits, rows.labels).item(), rel=1e-6)
    one_hot = nn.functional.one_hot(rows.labels, CLASSES)
    assert got["brier"] == pytest.approx(((p - one_hot) ** 2).sum(dim=-1).mean().item(), rel=1e-9)


@pytest.mark.parametrize("mean", ["arithmetic", "geometric", "tempered"])
def test_teacher_scores_equal_the_definitions(rows: Rows, mean: str) -> None:
    got = scores(rows, temperatures=(4.0, 2.5), mean=mean)
    stored = rows.soft.members.logits.double().numpy()
    for temperature in (1.0, 2.5, 4.0):
        log_p = log_probs(stored, temperature, mean, rows.soft.weights.double().numpy())
        log_q = torch.log_softmax(rows.logits.double() / temperature, dim=-1).numpy()
        kl = (np.exp(log_p) * (log_p - log_q)).sum(axis=-1).mean()
        assert got["kl"][f"{temperature:g}"] == pytest.approx(kl, rel=1e-5), temperature  # type: ignore[index]
    assert list(got["kl"]) == ["1", "2.5", "4"]  # type: ignore[call-overload]
    teacher = log_probs(stored, 1.0, mean, rows.soft.weights.double().numpy()).argmax(axis=-1)
    assert got["agreement"] == pytest.approx((rows.logits.numpy().argmax(axis=-1) == teacher).mean())


def test_the_cut_into_batches_plays_no_part(rows: Rows) -> None:
    whole, cut = scores(rows, temperatures=(3.0,)), scores(rows, (1, 100, 350), temperatures=(3.0,))
    kl_whole, kl_cut = whole.pop("kl"), cut.pop("kl")
    assert cut == pytest.approx(whole, rel=1e-12)
    assert kl_cut == pytest.approx(kl_whole, rel=1e-12)


def test_rows_without_a_label_count_for_the_teacher_only(rows: Rows) -> None:
    hidden = rows.labels.clone()
    hidden[::3] = -1
    kept = hidden >= 0
    some = scores(Rows(rows.logits, hidden, rows.teacher), (64, 65))
    of_kept = scores(Rows(rows.logits[kept], rows.labels[kept], rows.teacher[kept.numpy()]))
    everything = scores(rows)
    assert some["rows"] == 500
    assert some["labelled"] == int(kept.sum())
    for name in ("errors", "accuracy", "nll", "ece", "brier"):
        assert some[name] == pytest.approx(of_kept[name], rel=1e-12), name
    assert some["agreement"] == everything["agreement"]
    assert some["kl"] == pytest.approx(everything["kl"])


def test_what_does_not_apply_is_left_out(rows: Rows) -> None:
    metrics = Metrics()
    assert metrics.result() == {"rows": 0, "labelled": 0}
    metrics.update(rows.logits, torch.full_like(rows.labels, -1), None)
    assert metrics.result() == {"rows": 500, "labelled": 0}
    metrics.update(rows.logits, rows.labels, None)
    assert set(metrics.result()) == {"rows", "labelled", "errors", "accuracy", "nll", "ece", "brier"}


def test_certain_predictions_and_impossible_classes(rows: Rows) -> None:
    logits = torch.full((4, 3), -math.inf)
    logits[:, 1] = 0.0
    metrics = Metrics((2.0,))
    soft = SoftLabels.dense(logits[:, None].half(), torch.zeros(4, 1), torch.ones(1))
    metrics.update(logits, torch.tensor([1, 1, 1, -1]), soft)
    got = metrics.result()
    assert (got["errors"], got["nll"], got["ece"], got["brier"]) == (0, 0.0, 0.0, 0.0)
    assert got["kl"] == {"1": 0.0, "2": 0.0}
    metrics.update(logits[:1], torch.tensor([0]), None)
    assert metrics.result()["nll"] == math.inf
    assert metrics.result()["ece"] == pytest.approx(0.25)
    assert metrics.result()["brier"] == pytest.approx(0.5)


class Fixed:
    """Batches of 128 rows, as a loader gives them."""

    def __init__(self, rows: Rows, with_soft: bool = True) -> None:
        self.rows, self.with_soft, self.steps_per_epoch = rows, with_soft, math.ceil(len(rows.labels) / 128)

    def epoch(self, epoch: int, start: int = 0):  # type: ignore[no-untyped-def]
        for at in range(start * 128, len(self.rows.labels), 128):
            part = slice(at, at + 128)
            rows = Rows(self.rows.logits[part], self.rows.labels[part], self.rows.teacher[part])
            yield batches.plain(
                rows.logits, rows.labels, rows.soft if self.with_soft else None, np.arange(len(rows.labels))
            )


def test_evaluate_student_runs_the_model_in_evaluation_mode(rows: Rows) -> None:
    model = nn.Sequential(nn.Dropout(0.9)).train()
    got = evaluate_student(model, Fixed(rows), {"": Asked((4.0,))}, device=torch.device("cpu"))
    want = scores(rows, temperatures=(4.0,))
    assert got.pop("kl") == pytest.approx(want.pop("kl"))
    assert {name: got[name] for name in want} == pytest.approx(want)  # by class there is more: see test_by_class.py


@pytest.mark.parametrize("mean", ["arithmetic", "geometric", "tempered"])
def test_evaluate_teacher_scores_the_ensemble_and_each_member(rows: Rows, mean: str) -> None:
    cpu = torch.device("cpu")
    ensemble, members = evaluate_teacher(Fixed(rows), {"": Asked((4.0,), mean)}, device=cpu)
    assert ensemble["kl"] == {"1": 0.0, "4": 0.0}
    assert ensemble["agreement"] == 1.0
    probs = np.exp(log_probs(rows.soft.members.logits.double().numpy(), 1.0, mean, weights=rows.soft.weights.numpy()))
    assert ensemble["errors"] == int((probs.argmax(axis=-1) != rows.labels.numpy()).sum())
    assert ensemble["nll"] == pytest.approx(-np.log(probs[np.arange(500), rows.labels.numpy()]).mean(), rel=1e-5)
    assert len(members) == 3
    for number, member in enumerate(members):
        alone = Rows(torch.tensor(rows.teacher[:, number]), rows.labels, rows.teacher)
        want = scores(alone, temperatures=(4.0,), mean=mean)
        assert member["errors"] == want["errors"]
        assert member["nll"] == pytest.approx(want["nll"], rel=1e-3)
        assert member["kl"] == pytest.approx(want["kl"], rel=1e-2)
        assert member["kl"]["1"] > 0.01
    with pytest.raises(ConfigError, match=r"no soft labels.*store"):
        evaluate_teacher(Fixed(rows, with_soft=False), {"": Asked(())}, device=cpu)


@pytest.mark.parametrize("members", [1, 3])
def test_sparse_teachers_are_judged_by_the_labels_own_logits(rng: np.random.Generator, members: int) -> None:
    """And not by the tail's shape, which says nothing here."""
    z, labels = rng.normal(0, 3, (300, members, 40)), torch.tensor(rng.integers(0, 40, 300))
    encoding = TopkEncoding(k=3, tail="uniform", nodes=8)
    columns, _ = encoding.encode(torch.tensor(z), labels=labels)
    stored = encoding.members({name: torch.from_numpy(values) for name, values in columns.items()}, 40)
    soft = SoftLabels(stored, torch.full((members,), 1 / members))
    teacher, each = Metrics((4.0,)), [Metrics((4.0,)) for _ in range(members)]
    teacher.update_teacher(labels, soft)
    for number, member in enumerate(each):
        member.update_teacher(labels, soft, number)
    for metrics, logits in [(teacher, z), *((one, z[:, m : m + 1]) for m, one in enumerate(each))]:
        exact = log_probs(logits, 1.0)[np.arange(300), labels]
        # half a step of float16 where it is coarsest here: a label's logit is at most 32 below the largest
        assert metrics.result()["nll"] == pytest.approx(-exact.mean(), abs=8e-3)
    assert teacher.result()["kl"] == {"1": 0.0, "4": 0.0}


@pytest.mark.parametrize("classes", [5, 64, 130, 128, 1000])
def test_the_first_of_the_most_probable_classes(rng: np.random.Generator, classes: int) -> None:
    values = torch.tensor(rng.integers(0, 4, (200, classes)) / 4)  # many alike
    rare = torch.tensor(rng.normal(size=(200, classes)))
    rare[:, 0] = -torch.inf
    for log_p in (values, rare, torch.zeros(3, classes)):
        assert torch.equal(top_class(log_p), log_p.argmax(dim=-1))
