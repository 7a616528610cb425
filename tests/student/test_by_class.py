"""Scores by class against scikit-learn, however the rows are cut into batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, f1_score, recall_score, roc_auc_score

from softlabels.student import by_class
from softlabels.student.metrics import Metrics


def scores(logits: np.ndarray, labels: np.ndarray, cuts: tuple[int, ...] = (40, 41)) -> dict:
    metrics = Metrics(by_class=True)
    for part in np.split(np.arange(len(labels)), cuts):
        metrics.update(torch.from_numpy(logits[part]), torch.from_numpy(labels[part]), None)
    return dict(metrics.result())


@pytest.mark.parametrize("classes", [2, 3, 7, 40])
def test_they_equal_scikit_learns(rng: np.random.Generator, classes: int) -> None:
    labels = rng.choice(classes, 300, p=rng.dirichlet(np.ones(classes)))
    labels[labels == classes - 1] = 0  # a class that no row has
    logits = rng.normal(0, 1, (300, classes))
    logits[np.arange(300), labels] += 1
    labels = np.where(rng.random(300) < 0.2, -1, labels)
    found, predicted, has = scores(logits, labels), logits.argmax(1), labels >= 0
    true, said, every = labels[has], predicted[has], np.arange(classes)
    present = np.unique(true)

    matrix = confusion_matrix(true, said, labels=every)
    recall = recall_score(true, said, labels=every, average=None, zero_division=np.nan)
    f1 = f1_score(true, said, labels=every, average=None, zero_division=0)
    assert found["classes"]["labelled"] == matrix.sum(1).tolist()
    assert found["classes"]["predicted"] == np.bincount(predicted, minlength=classes).tolist()
    for name, right in (("recall", recall), ("f1", f1)):
        ours = found["classes"][name]
        assert [ours[c] for c in present] == pytest.approx(right[present], rel=1e-12)
        assert all(ours[c] is None for c in every if c not in present)
    assert found["macro"]["recall"] == pytest.approx(recall[present].mean(), rel=1e-12)
    assert found["macro"]["f1"] == pytest.approx(f1_score(true, said, labels=present, average="macro"), rel=1e-12)
    assert found.get("confusion") == (matrix.tolist() if classes <= 20 else None)
    wrong = matrix - np.diag(np.diag(matrix))
    assert [count for _, _, count in found["confused"]] == sorted(wrong[wrong > 0].tolist(), reverse=True)[:20]
    assert all(wrong[label, other] == count for label, other, count in found["confused"])


def test_the_area_under_the_curve_counts_ties_by_half(rng: np.random.Generator) -> None:
    labels = rng.integers(0, 2, 400)
    odds = np.round(rng.normal(labels, 1.5), 1)  # many equal ones
    found = scores(np.stack([np.zeros(400), odds], axis=1), labels)
    assert found["auc"] == pytest.approx(roc_auc_score(labels, odds), rel=1e-12)
    assert "auc" not in scores(np.zeros((5, 2)), np.ones(5, np.int64), ())  # rows of one class only


def test_without_a_label_only_what_is_predicted_is_counted(rng: np.random.Generator) -> None:
    found = scores(rng.normal(size=(50, 3)), np.full(50, -1))
    assert sum(found["classes"]["predicted"]) == 50
    assert not {"macro", "confusion", "confused", "auc"} & set(found)


def test_a_vocabulary_is_not_counted_by_class(rng: np.random.Generator) -> None:
    assert "classes" not in scores(rng.normal(size=(4, by_class.MOST + 1)), np.arange(4), ())
