"""What the ensemble and the students of a run said of a sample of the held-out split: how often each was right by its
confidence, at the temperatures of a grid, and where two students are right on different rows.

`jobs/student_answers.py` fills it. K positions that count (rows where there are none), C classes, T temperatures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabels.labels.encoding import Encoding
from softlabels.pages.distributions import span
from softlabels.student.calibration import BINS, add_to_bins, calibration_error

HARD, DISTILLED = "hard", "distilled"


def grid(encoding: Encoding, *, many: bool) -> tuple[float, ...]:
    """Temperatures: those of the slider in steps of at most 9%, and what is next to 1; of `many` classes that alone."""
    if many or encoding.only_at is not None:
        return (encoding.near_1,)
    lowest, highest = span(encoding)
    steps = (float(f"{step:.3g}") for step in np.exp(np.linspace(np.log(lowest), np.log(highest), 44)))
    return tuple(sorted({encoding.near_1, *(each for each in steps if each >= lowest)}))


@dataclass(eq=False)
class HeldOut:
    """What was said of the sample, of one target.

    Attributes:
        split, target: names.
        rows, of: how many rows were asked about, and how many the held-out split has.
        grid: (T,) temperatures.
        kinds: of each model by its name, in the order in which they are shown: ensemble, hard or distilled.
        classes: C where the labels are one class a row.
        positions: K so far, labelled: of them with a hard label.
        right: (C, 2, 2) labelled positions by class, whether the hard student, and the distilled one, were right.
    """

    split: str
    target: str
    rows: int
    of: int
    grid: Sequence[float]
    kinds: Mapping[str, str]
    classes: int | None = None
    positions: int = 0
    labelled: int = 0
    right: NDArray[np.int64] | None = None
    _bins: dict[str, list[Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._bins = {name: [torch.zeros(BINS, 3, dtype=torch.float64) for _ in self.grid] for name in self.kinds}
        if self.classes is not None and {HARD, DISTILLED} <= {*self.kinds.values()}:
            self.right = np.zeros((self.classes, 2, 2), np.int64)

    def add_confidences(self, name: str, number: int, confidence: Tensor, right: Tensor) -> None:
        """Add how sure a model was (n,) at the temperature `number` of the grid, and whether it was right (n,)."""
        add_to_bins(self._bins[name][number], confidence.double().cpu(), right.double().cpu())

    def add_pair(self, labels: Tensor, hard: Tensor, distilled: Tensor) -> None:
        """Add labels (n,) of positions, and whether the two students were right about each (n,) bool."""
        assert self.right is not None
        np.add.at(self.right, (labels.numpy(), hard.long().numpy(), distilled.long().numpy()), 1)

    def bins(self, name: str) -> NDArray[np.float64]:
        """(T, 15, 3): positions, the sum of their confidence, and how many were right, by confidence."""
        return torch.stack(self._bins[name]).numpy()

    def calibration_errors(self, name: str) -> list[float]:
        """The expected calibration error at each temperature; none without a label."""
        return [calibration_error(each) for each in self._bins[name]] if self.labelled else []
