"""How far a store's labels are from what the live teacher says of the same rows, and what rounding explains of it. Who asks the
teacher: `recheck`.

n distributions, M stored members, C classes, K stored classes of a top-k encoding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabels.checks.rounding import HALF, TOLERANCE
from softlabels.labels.base import Columns
from softlabels.labels.blocks import reduced
from softlabels.labels.encoding import Encoding
from softlabels.labels.fidelity import Fidelity, FidelitySums
from softlabels.labels.targets import Target

# Measured, as shares of what is allowed (docs/runs.md): rounding 0.39 at most together and 0.77 of a single logit; dropout 4.4,
# two classes swapped 5.7, logits times 1.02 in float32 18, in float16 2.9, times 1.1 in bfloat16 1.5, a lower tail 1.2.
_SMALL = 0.1  # logits that are small because large terms cancel are rounded as those terms are
_TEMPERATURE = 4.0  # at which classes count by their probability: marks as low as -1e4 count nothing
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
        target: what is compared. Of sigmoid and values it is each number by itself: the mean squares are over the outputs, of
            a sigmoid weighted by how much the probability at T = 4 depends on z; values are measured in each output's root
            mean square.
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

    @staticmethod
    def of(encoding: Encoding, classes: int, *, precision: str, lines: Iterable[Fidelity | FidelitySums]) -> Deviation:
        """Of a store, with what it states of its fidelity."""
        stated = max((line.tail_mass_error for line in lines), default=0.0)
        rounding = HALF
        if encoding.target != "softmax":
            rounding = float(np.finfo(encoding.columns(classes, 1)[0][1]).eps) / 2
        return Deviation(precision, stated, target=encoding.target, rounding=rounding)

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
        what = "value" if self.target == "values" else "logit"
        said = [
            f"largest deviation of a {what} {self.largest_logit:.3g} of its row's largest (rounding explains "
            f"{self.allowed_logit:.3g})",
            f"root mean square {self.together:.3g} ({self.allowed_together:.3g})",
        ]
        if self.largest_mass is not None:
            said.append(f"of the tail's mass {self.largest_mass:.3g} ({self.allowed_mass:.3g})")
        if self.target != "values":
            said.append(f"same {'top class' if self.target == 'softmax' else 'decisions'} {self.top1_agreement:.2%}")
        return ", ".join(said)

    def _root(self, squares: float) -> float:
        return math.sqrt(squares / max(self.distributions, 1))


def compare(
    encoding: Encoding,
    given: Tensor,
    weights: NDArray[np.float64],
    columns: Columns,
    labels: NDArray[np.int64],
    found: Deviation,
) -> None:
    """Live logits (n, M, C) and stored columns (n, ...) of the same distributions, of classes `labels` (n,)."""
    z = (reduced(given, weights) if encoding.is_reduced else given).double()
    if found.target != "softmax":
        _one_by_one(z, _tensor(encoding.outputs(columns), z), torch.finfo(given.dtype).eps, found)
        return
    peak = z.amax(dim=-1, keepdim=True)
    found.grid += float((torch.finfo(given.dtype).eps * peak).square().sum())
    if encoding.keeps_all:
        _logits(z, z, _tensor(columns["logits"], z) + _tensor(columns["shift"], z)[..., None], found)
        return
    # The stored classes' logits, that no other class is above them, the label's logit, and the tail's mass.
    given_columns = {name: torch.from_numpy(values) for name, values in columns.items()}
    kept = encoding.members(given_columns, z.shape[-1]).to(z.device)
    ids = kept.ids()
    stored = _tensor(columns["top_logit"], z) + peak
    _logits(z, z.gather(-1, ids), stored, found)
    _largest(z, z.topk(ids.shape[-1], dim=-1).values, stored.sort(dim=-1, descending=True).values, found)
    label = _tensor(columns["label_logit"], z)[..., None] + peak
    own = torch.from_numpy(labels).to(z.device)[:, None, None].expand_as(label)
    known = (own >= 0) & ~label.isnan()  # NaN: its maker knew no label
    _largest(z, z.gather(-1, own.clamp_min(0)).where(known, 0.0), label.where(known, 0.0), found)
    tail = z.scatter(-1, ids, -math.inf)
    for factor in (1.0, 2.0, 4.0) if kept.tail != "renormalised" else ():
        temperature = factor * encoding.lowest_temperature
        live = ((tail / temperature).logsumexp(-1) - (z / temperature).logsumexp(-1)).exp()
        apart = (live - kept.stored(temperature)[1].exp()).abs().max()
        found.largest_mass = max(found.largest_mass or 0.0, float(apart))


def _one_by_one(z: Tensor, stored: Tensor, eps: float, found: Deviation) -> None:
    """Live and stored outputs (n, M, C) of a sigmoid, or values; `eps` of the dtype that the teacher gives them in."""
    if found.target == "values":
        unit = z.square().mean(dim=(0, 1)).sqrt()
        unit = unit.masked_fill(unit == 0, 1.0)
        z, stored = z / unit, stored / unit
        weight = torch.ones_like(z) / z.shape[-1]
    else:
        weight = 4 * torch.sigmoid(z / _TEMPERATURE) * torch.sigmoid(-z / _TEMPERATURE) / z.shape[-1]
        found.agreed += int(((z > 0) == (stored > 0)).all(dim=-1).sum())
    _largest(z, z, stored, found)
    found.distributions += z[..., 0].numel()
    for name, values in (("grid", (eps + found.rounding) * z), ("difference", z - stored), ("spread", z)):
        square = torch.where(weight > 0, weight * values.square(), 0.0).sum()
        setattr(found, name, getattr(found, name) + float(square))


def _logits(z: Tensor, live: Tensor, stored: Tensor, found: Deviation) -> None:
    """Live and stored logits (n, M, K) of all or some of the classes of z (n, M, C)."""
    _largest(z, live, stored, found)
    found.agreed += int((live.gather(-1, stored.argmax(dim=-1, keepdim=True))[..., 0] == z.amax(dim=-1)).sum())
    found.distributions += z[..., 0].numel()
    weight = (live / _TEMPERATURE).softmax(dim=-1)
    below = torch.where(weight > 0, stored - stored.amax(dim=-1, keepdim=True), 0.0)
    found.grid += float((weight * (HALF * below).square()).sum())
    found.difference += _variance(live - stored, weight)
    found.spread += _variance(live, weight)


def _variance(values: Tensor, weight: Tensor) -> float:
    """Sum over distributions of the variance of values (n, M, K) under weights (n, M, K)."""
    real = torch.where(weight > 0, values, 0.0)
    about = real - (weight * real).sum(dim=-1, keepdim=True)
    return float((weight * about.square()).sum())


def _largest(z: Tensor, live: Tensor, stored: Tensor, found: Deviation) -> None:
    """The largest single deviation, relative to the largest logit of its distribution."""
    if (live.isnan() | ((live.isinf() | stored.isinf()) & (live != stored))).any():
        found.largest_logit = math.inf
    scale = 1 + torch.where(torch.isfinite(z), z.abs(), 0.0).amax(dim=-1, keepdim=True)
    apart = torch.where(torch.isfinite(live), (live - stored).abs(), 0.0) / scale
    found.largest_logit = max(found.largest_logit, float(apart.max()))


def _tensor(values: NDArray[np.generic], like: Tensor) -> Tensor:
    return torch.from_numpy(values.astype(np.float64)).to(like.device)
