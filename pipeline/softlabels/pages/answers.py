"""What a student says of rows of a store, as pages show it beside the teacher. Made by `jobs/student_answers.py`; pages know no
models.

N rows, P positions, C classes (or numbers of a vector).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Answers:
    """One student's outputs of some rows.

    Attributes:
        label: what the page calls it, such as "student, distilled". Data: it is shown as it is, never obeyed.
        kind: whether it was taught hard labels alone or distilled; decides its colour.
        rows: (N,) int64, the rows of the store that it was asked about, ascending, each once.
        outputs: (N, [P,] C) float32: its logits at T = 1, or its values. Positions that do not count hold anything.
        target: the name of the target that it was taught, "" of a store's only one.
        others: what the same student gives of the store's other targets, by their names, as `outputs`; where boxes are drawn.
    """

    label: str
    kind: str
    rows: NDArray[np.int64]
    outputs: NDArray[np.float32]
    target: str = ""
    others: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def of(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Which of `rows` (n,) were asked about, and the outputs of these."""
        there, at = self._found(rows)
        return there, self.outputs[at[there]]

    def of_all(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.bool_], dict[str, NDArray[np.float32]]]:
        """Which of `rows` (n,) were asked about, and the outputs (n, ...) of every target, anything where they were not; of no
        target where no row was.
        """
        there, at = self._found(rows)
        every = {self.target: self.outputs, **self.others}
        return there, {name: values[at] for name, values in every.items() if len(self.rows)}

    def _found(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Which of `rows` (n,) were asked about, and their places (n,) here, anything where they were not."""
        at = np.searchsorted(self.rows, rows).clip(max=max(0, len(self.rows) - 1))
        return self.rows[at] == rows if len(self.rows) else np.zeros(len(rows), np.bool_), at
