"""The losses of flags (sigmoid) and vectors (values) in float64 numpy, written from their definitions, and rows to take them
of. Nothing of the library's arithmetic is used here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from softlabels.labels.encoding import SigmoidEncoding, ValuesEncoding
from softlabels.labels.soft import SoftLabels
from softlabels.stream.batch import Batch
from softlabels.student.losses import distillation_loss
from tests.student import batches

Array = np.ndarray
OF_FLAGS, OF_VALUES = ("bce",), ("mse", "huber", "cosine")
OTHERS = (*OF_FLAGS, *OF_VALUES)


@dataclass(frozen=True)
class Rows:
    """A student's outputs (B, C), a teacher's (B, M, C) with weights (M,), and hard labels (B, C), which some rows lack."""

    kind: str
    z: Array
    v: Array
    labels: Array
    share: Array

    @property
    def soft(self) -> SoftLabels:
        name, encoding = ("values", ValuesEncoding()) if self.kind == "values" else ("logits", SigmoidEncoding())
        members = encoding.members({name: torch.tensor(self.v).float()}, self.v.shape[2])
        return SoftLabels(members, torch.tensor(self.share).float())

    @property
    def hard(self) -> torch.Tensor:
        return torch.tensor(self.labels).to(torch.float32 if self.kind == "values" else torch.int8)

    @property
    def batch(self) -> Batch:
        return batches.plain(torch.tensor(self.z).float(), self.hard, self.soft, np.arange(len(self.z)))

    def at(self, rows: slice) -> Rows:
        return Rows(self.kind, self.z[rows], self.v[rows], self.labels[rows], self.share)


def draw(rng: np.random.Generator, loss: str, rows: int = 12, members: int = 3, classes: int = 5) -> Rows:
    share = rng.uniform(0.2, 1, members)
    z, v = rng.normal(0, 3, (rows, classes)), rng.normal(0.5, 3, (rows, members, classes))
    v = v.astype(np.float32).astype(np.float64)
    kind = "sigmoid" if loss in OF_FLAGS else "values"
    labels = rng.integers(-1, 2, (rows, classes)) if kind == "sigmoid" else rng.normal(0, 3, (rows, classes))
    labels[rng.random(rows) < 0.3] = -1 if kind == "sigmoid" else np.nan
    labels[:1] = -1 if kind == "sigmoid" else np.nan
    labels[1] = 1
    return Rows(kind, z, v, labels.astype(np.float32), share / share.sum())


def sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


def probabilities(rows: Rows, temperature: float, mean: str) -> Array:
    """The ensemble's probability of each class, (B, C)."""
    if mean == "geometric":
        return sigmoid(np.einsum("m,bmc->bc", rows.share, rows.v) / temperature)
    p = np.einsum("m,bmc->bc", rows.share, sigmoid(rows.v / (1.0 if mean == "tempered" else temperature)))
    return p if mean == "arithmetic" else sigmoid(np.log(p / (1 - p)) / temperature)


def cross_entropy(z: Array, p: Array) -> Array:
    return -p * np.log(sigmoid(z)) - (1 - p) * np.log(sigmoid(-z))


def distance(loss: str, s: Array, v: Array, delta: float = 1.0) -> float:
    """Of one student's vector from one that is wanted."""
    if loss == "cosine":
        return float(1 - s @ v / np.sqrt((s @ s) * (v @ v)))
    gap = np.abs(s - v)
    of_huber = np.where(gap <= delta, gap**2 / 2, delta * (gap - delta / 2))
    return float((gap**2 if loss == "mse" else of_huber).sum() / len(v))


def reference(
    loss: str, rows: Rows, *, hard_weight: float, soft_weight: float, temperature: float = 1.0, mean: str = "arithmetic",
    weights: Array | None = None, delta: float = 1.0,
) -> float:  # fmt: skip
    """hard_weight / labelled * hard term + soft_weight / B * soft term."""
    hard, soft, labelled = 0.0, 0.0, 0
    w = np.ones(rows.z.shape[1]) if weights is None else weights
    p = probabilities(rows, temperature, mean) if rows.kind == "sigmoid" else rows.z
    teacher = np.einsum("m,bmc->bc", rows.share, rows.v)
    for n, (z, own) in enumerate(zip(rows.z, rows.labels.astype(np.float64), strict=True)):
        if rows.kind == "sigmoid":
            known = own >= 0
            labelled += int(known.any())
            hard += float((w * cross_entropy(z, own))[known].sum())
            soft += temperature**2 * float((w * cross_entropy(z / temperature, p[n])).sum())
        else:
            soft += distance(loss, z, teacher[n], delta)
            if not np.isnan(own).any():
                labelled, hard = labelled + 1, hard + distance(loss, z, own, delta)
    return hard_weight * hard / max(labelled, 1) + soft_weight * soft / len(rows.z)


def gradient(rows: Rows, **options: Any) -> Array:
    """Of the library's loss at the student's outputs, (B, C)."""
    student = torch.tensor(rows.z, dtype=torch.float32, requires_grad=True)
    distillation_loss(student, rows.soft, rows.hard, **options).backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    return student.grad.double().numpy()
