"""How far a store's labels are from what the live teacher says of the same rows, and what rounding explains of it. Neighbours:
`comparison` adds to it, `recheck` asks the teacher.

n distributions, M stored members, C classes (D numbers of a vector).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from softlabels.checks.rounding import HALF, TOLERANCE
from softlabels.labels.targets import Target

# Measured, as shares of what is allowed (docs/runs.md): rounding 0.39 at most together and 0.77 of a single logit; dropout 4.4,
# two classes swapped 5.7, logits times 1.02 in float32 18, in float16 2.9, times 1.1 in bfloat16 1.5, a lower tail 1.2.
LEAST = 1e-3  # of the largest unit of an output of values
_SMALL = 0.1  # logits that are small because large terms cancel are rounded as those terms are
_MASS = 1e-2  # a tail's mass; what its encoding loses beside


@dataclass
class Deviation:
    """What the sample shows, as sums over distributions.

    Attributes:
        precision: of the teacher.
        encoded_mass: the error of the tails' mass that the store itself states.
        rows: how many were compared.
        distributions: and of how many members and positions.
        difference: sum of the mean squares of z - stored z about its mean, each class weighted by its probability at T = 4.
        spread: the same of z.
        grid: sum of the squares of the steps between neighbouring numbers: near max(z) in the dtype of the teacher's outputs,
            near z - max(z) in float16, weighted as above.
        largest_logit: the largest |z - stored z| over 1 + the largest |z| of its distribution; infinite where a class is
            impossible on one side only, or z is NaN or +inf.
        largest_mass: of top-k labels, the largest error of the tail's mass at the lowest temperature and twice and four times
            that; None without a tail.
        agreed: distributions whose stored top class has the teacher's largest logit; of a sigmoid those whose decisions (z > 0)
            are all the same.
        target: softmax or sigmoid. Of a sigmoid it is each class by itself: the mean squares are over the classes, weighted by
            how much the probability at T = 4 depends on z.
        rounding: of what is stored, relative.
    """

    precision: str
    encoded_mass: float = 0.0
    rows: int = 0
    distributions: int = 0
    difference: float = 0.0
    spread: float = 0.0
    grid: float = 0.0
    largest_logit: float = 0.0
    largest_mass: float | None = None
    agreed: int = 0
    target: Target = "softmax"
    rounding: float = HALF

    @property
    def top1_agreement(self) -> float:
        """The share of equal top classes, or decisions."""
        return self.agreed / max(self.distributions, 1)

    @property
    def together(self) -> float:
        """The root mean square of all deviations: about the square root of twice the mean KL."""
        return self._root(self.difference)

    @property
    def allowed_together(self) -> float:
        """What rounding explains of it: half of what it may move one logit, relative to the spread of z, and `grid`.

        A constant that is added to all logits changes no label, but what is far from 0 is rounded coarsely.
        """
        return TOLERANCE[self.precision] / 2 * (_SMALL + self._root(self.spread)) + self._root(self.grid)

    @property
    def allowed_logit(self) -> float:
        """What rounding explains of `largest_logit`: in the teacher's arithmetic, and of what is stored."""
        return TOLERANCE[self.precision] + 2 * self.rounding

    @property
    def allowed_mass(self) -> float:
        """What rounding and the encoding explain of `largest_mass`."""
        return max(_MASS, TOLERANCE[self.precision]) + 2 * self.encoded_mass

    @property
    def sound(self) -> bool:
        """Whether the deviation is no larger than rounding explains."""
        return (
            self.largest_logit <= self.allowed_logit
            and self.together <= self.allowed_together
            and (self.largest_mass or 0.0) <= self.allowed_mass
        )

    @property
    def line(self) -> str:
        """What was seen, each beside what rounding explains."""
        said = [
            f"largest deviation of a logit {self.largest_logit:.3g} of its row's largest (rounding explains "
            f"{self.allowed_logit:.3g})",
            f"root mean square {self.together:.3g} ({self.allowed_together:.3g})",
        ]
        if self.largest_mass is not None:
            said.append(f"of the tail's mass {self.largest_mass:.3g} ({self.allowed_mass:.3g})")
        what = "top class" if self.target == "softmax" else "decisions"
        return ", ".join([*said, f"same {what} {self.top1_agreement:.2%}"])

    def _root(self, squares: float) -> float:
        return math.sqrt(squares / max(self.distributions, 1))


@dataclass
class ValuesDeviation:
    """The same of real vectors: each output in its own unit, the root mean square of what the teacher says.

    Attributes:
        precision, rounding, rows, distributions: as of `Deviation`.
        outputs: D. live: (D,) sums of the squares of what the teacher says, difference: of its differences from what is stored.
        largest: (D,) the largest difference of each output; infinite where it is NaN. peak: (D,) its largest size.
    """

    precision: str
    rounding: float
    outputs: int
    eps: float = 0.0
    rows: int = 0
    distributions: int = 0
    target: Target = "values"

    def __post_init__(self) -> None:
        self.live, self.difference, self.largest, self.peak = (np.zeros(self.outputs) for _ in range(4))

    def add(self, z: Tensor, stored: Tensor, eps: float) -> None:
        """Live and stored values (n, M, D); `eps` of the dtype in which the teacher gives them."""
        apart = (z - stored).abs().nan_to_num(nan=math.inf)
        self.distributions += z[..., 0].numel()
        self.eps = max(self.eps, eps)
        self.live += z.square().sum(dim=(0, 1)).cpu().numpy()
        self.difference += apart.square().sum(dim=(0, 1)).cpu().numpy()
        self.largest = np.maximum(self.largest, apart.amax(dim=(0, 1)).cpu().numpy())
        self.peak = np.maximum(self.peak, z.abs().amax(dim=(0, 1)).cpu().numpy())

    @property
    def unit(self) -> NDArray[np.float64]:
        """(D,), at least a thousandth of the largest: smaller ones may be the rounding of others. 1 where all are 0."""
        found = np.nan_to_num(np.sqrt(self.live / max(self.distributions, 1)))  # NaN differs by infinity
        found = np.maximum(found, LEAST * found.max(initial=0.0))
        return np.where(found > 0, found, 1.0)

    @property
    def together(self) -> NDArray[np.float64]:
        """(D,) root mean squares of the differences."""
        return np.asarray(np.sqrt(self.difference / max(self.distributions, 1)) / self.unit)

    @property
    def allowed_together(self) -> float:
        """What rounding explains of it."""
        return TOLERANCE[self.precision] / 2 * (_SMALL + 1) + self.eps + self.rounding

    @property
    def allowed_value(self) -> NDArray[np.float64]:
        """(D,) what rounding explains of the largest difference."""
        return np.asarray((TOLERANCE[self.precision] + 2 * self.rounding) * (1 + np.nan_to_num(self.peak / self.unit)))

    @property
    def sound(self) -> bool:
        """Whether the deviation is no larger than rounding explains."""
        single = self.largest / self.unit <= self.allowed_value
        return bool((single & (self.together <= self.allowed_together)).all())

    @property
    def line(self) -> str:
        """What was seen of the output that is farthest off, beside what rounding explains."""
        single, together = self.largest / self.unit, self.together
        worst = int(np.argmax(np.maximum(single / self.allowed_value, together / self.allowed_together)))
        return (
            f"largest deviation of a value {single[worst]:.3g} of its output's root mean square (rounding explains "
            f"{self.allowed_value[worst]:.3g}), root mean square {together[worst]:.3g} ({self.allowed_together:.3g}), of "
            f"output {worst}"
        )
