"""What a pilot says of a whole pass: its seconds, its bytes, and what students gain, each with an interval. Plain numbers in
and out; who measures them is `softlabels.jobs.plan`.

G groups of training rows, B blocks of held-out rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FACTOR = math.sqrt(2)  # by which a duration may be off either way: the interval spans a factor of 2
ERRORS = 2.0  # standard errors on either side of a mean
NEVER_SEEN = 3.0  # of n rows, what none of them had: the upper end for how many have it
# How often such an interval holds what it is about, by the number of groups: P(|t| < 2) of one degree of freedom less.
HOLDS = {4: 0.86, 5: 0.88, 6: 0.90, 7: 0.91, 8: 0.91}
# The same of NLL, which is skewed: where a third of the rows have hard labels, measured by benchmarks/plan_gain.py.
HOLDS_NLL = {4: 0.80, 5: 0.83, 6: 0.83, 7: 0.85, 8: 0.87}

Values = Sequence[Sequence[float]]  # (G, B)


@dataclass(frozen=True)
class Interval:
    """From `low` to `high`, with the estimate between."""

    low: float
    estimate: float
    high: float

    @property
    def is_above(self) -> bool:
        """Whether all of it lies above 0."""
        return self.low > 0

    @property
    def is_below(self) -> bool:
        """Whether all of it lies below 0."""
        return self.high < 0

    @property
    def is_point(self) -> bool:
        """Whether it has no width, since nothing varied."""
        return self.low == self.high


@dataclass(frozen=True)
class Timed:
    """How long a batch of a pilot took: its rows, and the seconds until the next."""

    rows: int
    seconds: float


def duration(fixed: float, batches: Sequence[Timed], rows: int) -> Interval:
    """Seconds of a pass over `rows` rows.

    Args:
        fixed: seconds that it takes whatever the number of rows.
        batches: of a pilot, one or more, in their order. The first of several is left out: it also warms up.

    The interval goes a factor of the square root of 2 either way, and further where the batches' own spread says so: by two
    standard errors of their rate (of a ratio of means: Cochran 1977, Sampling techniques, equation 2.46).
    """
    counted = batches[1:] or batches
    total = sum(each.rows for each in counted)
    rate = sum(each.seconds for each in counted) / total
    squares = sum((each.seconds - rate * each.rows) ** 2 for each in counted)
    error = math.sqrt(squares * len(counted) / (len(counted) - 1)) / total if len(counted) > 1 else 0.0
    seconds, off = fixed + rate * rows, ERRORS * error * rows
    return Interval(max(0.0, min(seconds / FACTOR, seconds - off)), seconds, max(seconds * FACTOR, seconds + off))


@dataclass(frozen=True)
class Weighed:
    """Bytes of a store: `bound` as its specification bounds them, `data` of its arrays as they are cut, not compressed."""

    bound: int
    data: int


def whole_bytes(whole: Weighed, pilot: Weighed, *, files: int, stored: int) -> int:
    """Bytes of a whole store, from those of a pilot's store: all its `files`, and `stored` of these by arrays. What compression
    and ragged rows save grows with the data; what the bound is too high beyond that does not.
    """
    saved = 1 - stored / pilot.data
    slack = pilot.bound - files - saved * pilot.data
    return round(whole.bound - slack - saved * whole.data)


def gain(first: Values, second: Values) -> Interval:
    """Mean of first - second, two standard errors either way: what G groups by B blocks say of all such rows.

    Args:
        first, second: (G, B), of each group's student its value on each block; G, B >= 2.

    Groups and blocks both vary, and every group is judged on every block: a two-way table of random effects (Searle, Casella,
    McCulloch 1992, Variance components, section 5.3), whose mean has the variance (MS_G + MS_B - MS_E) / (G B). Where chance
    makes that less than one mean square alone, which it is not, that one is taken.
    """
    table = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    groups, blocks = table.shape
    mean, of_groups, of_blocks = table.mean(), table.mean(1), table.mean(0)
    squares_groups, squares_blocks = blocks * of_groups.var(ddof=1), groups * of_blocks.var(ddof=1)
    rest = table - of_groups[:, None] - of_blocks + mean
    squares_rest = np.square(rest).sum() / ((groups - 1) * (blocks - 1))
    squares = max(squares_groups, squares_blocks, squares_groups + squares_blocks - squares_rest)
    off = ERRORS * math.sqrt(squares / table.size)
    return Interval(float(mean - off), float(mean), float(mean + off))


def rarer(found: Interval, rows: int) -> Interval:
    """An interval for `found`, which has no width: on none of so many rows a student differed from others of its kind. Of all
    rows these are then at most 3 / rows, 95 times in 100 (Hanley, Lippman-Hand 1983, JAMA 249: the rule of three).
    """
    off = NEVER_SEEN / rows
    return Interval(found.low - off, found.estimate, found.high + off)


def best(values: Sequence[Values], own: int) -> int:
    """Which of several settings, each of one value a group and block (lower is better), to take: the one of the least mean,
    where it is below that of setting `own` by more than two standard errors of their paired difference; else `own`.
    """
    means = [float(np.mean(each)) for each in values]
    least = means.index(min(means))
    return least if least != own and gain(values[own], values[least]).is_above else own
