"""Several seeds in one number: mean, spread, and the paired difference of two kinds of run. Tables are `table`'s.

S seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (divisor S - 1; None for one value) of S values."""

    mean: float
    deviation: float | None
    count: int

    @property
    def standard_error(self) -> float | None:
        """Standard error of the mean: deviation / sqrt(S); None for one value."""
        return None if self.deviation is None else self.deviation / math.sqrt(self.count)


def spread(values: Sequence[float]) -> Spread:
    """Mean and spread of S >= 1 values."""
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Spread:
    """Spread of first - second, seed by seed: what both share (initialisation, order of rows) cancels out."""
    return spread([a - b for a, b in zip(first, second, strict=True)])
