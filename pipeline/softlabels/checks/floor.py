"""Probabilities that are 0: counted, and lifted to a floor where that is asked for. A class of probability 0 is impossible at
every temperature, which few votes of a forest do not mean. C classes.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import ConfigError

FLAG = "--floor="  # of `import`


def floor_of(setting: str, classes: int, flag: str = FLAG) -> float:
    """The least probability of a class: a number, or of `laplace:N` 1 / (N + C), for a forest of N trees; messages call the
    setting `flag`.

    Raises:
        ConfigError: no such setting, or a floor that is not between 0 and 1 / C.
    """
    trees = re.fullmatch(r"laplace:([1-9]\d{0,8})", setting)
    try:
        value = 1 / (int(trees[1]) + classes) if trees else float(setting)
    except ValueError:
        value = 0.0
    if not 0 < value < 1 / classes:
        raise ConfigError(
            f"{flag}{setting} of {classes} classes",
            remedy=f"give laplace:N for a forest of N trees, or a number above 0 and below 1/{classes}",
        )
    return value


def lifted(probabilities: NDArray[np.float64], floor: float) -> NDArray[np.float64]:
    """floor + (1 - C floor) p, a mixture with the uniform distribution; with the floor 1 / (N + C) it is Laplace's
    (N p + 1) / (N + C).
    """
    return np.asarray(floor + (1 - probabilities.shape[-1] * floor) * probabilities)


def zeros_line(probabilities: NDArray[np.floating], flag: str = FLAG) -> str | None:
    """What to say of the zeros among probabilities (R, ..., C); None where there are none. `flag` as in `floor_of`."""
    zero = probabilities == 0
    share, rows = float(zero.mean()), _rows(zero)
    if not share:
        return None
    return (
        f"{share:.1%} of the probabilities are 0, in {rows:.1%} of the rows: these classes are impossible (-inf) at every "
        f"temperature; {flag}laplace:N lifts them, for a forest of N trees"
    )


def ends_line(probabilities: NDArray[np.floating]) -> str | None:
    """What to say of the zeros and ones among probabilities (R, ..., C) of each class by itself; None where there are none."""
    zero, one = probabilities == 0, probabilities == 1
    if not (zero.any() or one.any()):
        return None
    return (
        f"{float(zero.mean()):.1%} of the probabilities are 0 and {float(one.mean()):.1%} are 1, in {_rows(zero | one):.1%} of "
        "the rows: these classes are impossible (-inf) or certain (inf) at every temperature"
    )


def _rows(flags: NDArray[np.bool_]) -> float:
    """The share of rows (R, ...) with one that is true."""
    return float(flags.reshape(len(flags), -1).any(axis=1).mean())
