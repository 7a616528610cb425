"""How good predictions are class by class: recall, F1, confusions; of two classes the area under the ROC curve.

Adds up whole numbers, a batch at a time, over the rows that have a hard label; `metrics` has the scores over all classes.

A class without a labelled row has no recall and no F1 (None), and takes no part in the macro averages. R rows, C classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

MOST = 1024  # classes up to which pairs are counted: a vocabulary's tokens are not
WHOLE = 20  # classes up to which the whole confusion matrix is kept
PAIRS = 20  # pairs of classes that are kept, the most frequent mistakes first


class ByClass:
    """Counts of C classes."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._pairs = torch.zeros(classes * classes, dtype=torch.int64)  # label * C + predicted
        self._predicted = torch.zeros(classes, dtype=torch.int64)  # of all rows, labelled or not
        self._odds: list[tuple[Tensor, Tensor]] = []  # of two classes: log-odds and label of each row

    def add_predicted(self, predicted: Tensor) -> None:
        """Count the most probable classes (R,) of rows, whether they have a label or not."""
        self._predicted += torch.bincount(predicted.cpu(), minlength=self._classes)

    def add(self, log_p: Tensor, predicted: Tensor, labels: Tensor) -> None:
        """Count labelled rows: log-probabilities (R, C), the most probable classes (R,) and the labels (R,)."""
        labels = labels.cpu()
        pairs = labels * self._classes + predicted.cpu()
        self._pairs.index_add_(0, pairs, torch.ones_like(pairs))
        if self._classes == 2:
            self._odds.append(((log_p[:, 1] - log_p[:, 0]).cpu(), labels))

    def result(self) -> dict[str, Any]:
        """`classes`, `macro`, `confusion` (C <= 20), `confused` and `auc` (C = 2), as `metrics.Scores` says."""
        pairs = self._pairs.view(self._classes, self._classes)
        labelled, said, right = pairs.sum(dim=1), pairs.sum(dim=0), pairs.diagonal()
        recall, f1 = _shares(right, labelled), _shares(2 * right, torch.where(labelled > 0, labelled + said, 0))
        found: dict[str, Any] = {
            "classes": {
                "labelled": labelled.tolist(),
                "predicted": self._predicted.tolist(),
                "recall": recall,
                "f1": f1,
            }
        }
        if int(labelled.sum()):
            found["macro"] = {"recall": _mean(recall), "f1": _mean(f1)}
            found["confused"] = _worst(pairs)
            if self._classes <= WHOLE:
                found["confusion"] = pairs.tolist()
            if self._classes == 2 and bool((labelled > 0).all()):
                odds, labels = (torch.cat(column) for column in zip(*self._odds, strict=True))
                found["auc"] = area(odds, labels)
        return found


def area(scores: Tensor, labels: Tensor) -> float:
    """The area under the ROC curve: the share of pairs of a row of class 1 and one of class 0 that the scores (R,) put in that
    order, equal scores counting a half.
    """
    _, place, count = torch.unique(scores, return_inverse=True, return_counts=True)
    rank = (count.cumsum(dim=0).double() - (count.double() - 1) / 2)[place]  # from 1; equal scores share the middle one
    ones = int(labels.sum())
    return float((rank[labels == 1].sum() - ones * (ones + 1) / 2) / (ones * (len(labels) - ones)))


def _shares(part: Tensor, whole: Tensor) -> list[float | None]:
    return [p / w if w else None for p, w in zip(part.tolist(), whole.tolist(), strict=True)]


def _mean(values: list[float | None]) -> float:
    there = [value for value in values if value is not None]
    return sum(there) / len(there)


def _worst(pairs: Tensor) -> list[list[int]]:
    """[label, predicted, rows] of the most frequent mistakes."""
    wrong = pairs.clone().fill_diagonal_(0).flatten()
    order = wrong.sort(descending=True, stable=True).indices[:PAIRS].tolist()
    classes = len(pairs)
    return [[at // classes, at % classes, count] for at in order if (count := int(wrong[at]))]
