"""How good the vectors of a student are (targets of kind values): squared errors, R2 and cosine, against the rows' own vectors
and against the teacher's. `metrics` runs it over batches, and has the names of the scores.

B batch (or a block of positions), D values.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from softlabels.labels.soft import SoftLabels
from softlabels.student.merging import Merging


class ValueMetrics(Merging):
    """Adds up predictions, a batch at a time."""

    SUMS = ("_rows", "_hard", "_soft")

    def __init__(self) -> None:
        self._rows = 0
        self._hard, self._soft = Distances(), Distances()

    def update(self, outputs: Tensor, labels: Tensor, soft: SoftLabels | None) -> None:
        """Add a model's vectors (B, D), any float dtype; hard labels (B, D), NaN where a row has none; the teacher, if any."""
        self._rows += len(outputs)
        known = ~labels.isnan().any(dim=-1)
        self._hard.add(outputs[known], labels[known])
        if soft is not None:
            self._soft.add(outputs, soft.values())

    def update_teacher(self, labels: Tensor, soft: SoftLabels, member: int | None = None) -> None:
        """Add the stored teacher itself, or one member of it, which is compared with the mean of all."""
        self.update((soft if member is None else soft.member(member)).values(), labels, soft)

    def result(self) -> dict[str, Any]:
        """The scores of everything added so far."""
        scores: dict[str, Any] = {"rows": self._rows, "labelled": self._hard.rows, **self._hard.result()}
        return scores | {"teacher": self._soft.result()} if self._soft.rows else scores


class Distances(Merging):
    """Sums in float64 of how far vectors are from those that are wanted.

    The spread about the mean, which R2 divides by, is put together of batches' own (Chan, Golub, LeVeque 1979), and never as a
    difference of two sums of squares.
    """

    SUMS = ("rows", "_directed", "_cosine", "_sums")

    def __init__(self) -> None:
        self.rows = 0
        self._directed = 0
        self._cosine = 0.0
        self._sums: Tensor | None = None  # (3, D): squared errors; mean of what is wanted, and its spread about that

    def add(self, said: Tensor, wanted: Tensor) -> None:
        """Add vectors (B, D), and those that are wanted."""
        if not len(wanted):
            return
        said, wanted = said.double(), wanted.double()
        mean = wanted.mean(dim=0)
        spread = (wanted - mean).square().sum(dim=0)
        own = torch.stack([(said - wanted).square().sum(dim=0), mean, spread]).cpu()
        self._sums = own if self._sums is None else _together(self._sums, self.rows, own, len(wanted))
        self.rows += len(wanted)
        lengths = wanted.norm(dim=-1)
        product = lengths * said.norm(dim=-1)
        self._cosine += torch.where(product > 0, (said * wanted).sum(dim=-1) / product, 0.0).sum().item()
        self._directed += int((lengths > 0).sum())

    def merge(self, sums: dict[str, Any]) -> None:
        """See `Merging`."""
        own, other = self._sums, sums["_sums"]
        both = None if own is None or other is None else _together(own, self.rows, other, sums["rows"])
        super().merge(sums)
        self._sums = self._sums if both is None else both

    def result(self) -> dict[str, float]:
        """mse, rmse, r2 and cosine, as `metrics.Scores` says."""
        if self._sums is None:
            return {}
        squares, _, spread = self._sums
        mse = squares.sum().item() / (self.rows * len(squares))
        found = {"mse": mse, "rmse": math.sqrt(mse)}
        varies = spread > 0  # of equal float32 numbers the mean is exact, and the spread 0
        if bool(varies.any()):
            found["r2"] = (1 - squares[varies] / spread[varies]).mean().item()
        if self._directed:
            found["cosine"] = self._cosine / self._directed
        return found


def _together(one: Tensor, rows: int, other: Tensor, more: int) -> Tensor:
    """The sums (3, D) of `rows` and of `more` rows as those of all."""
    apart = other[1] - one[1]
    mean = one[1] + apart * (more / (rows + more))
    spread = one[2] + other[2] + apart.square() * (rows * more / (rows + more))
    return torch.stack([one[0] + other[0], mean, spread])
