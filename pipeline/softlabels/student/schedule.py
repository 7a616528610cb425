"""A number that is fixed, or moves from one value to another over a run's steps: a temperature, or a weight of the loss.

It is written as a number, or as text: `linear:20:4` goes from 20 to 4 in a straight line, `cosine:20:4` along half a cosine.
Learning rates have torch's own schedules (`optimizer`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from softlabels.errors import ConfigError

Setting = float | str


def ends(setting: Setting, *, name: str) -> tuple[float, float]:
    """The first and the last value of a setting. Raises ConfigError, which calls it `name`, when it is none."""
    if not isinstance(setting, str):
        return setting, setting
    shape, *values = setting.split(":")
    try:
        start, end = (float(value) for value in values)
    except ValueError:
        shape = ""
    if shape not in _SHAPES:
        raise ConfigError(
            f"{name} is {setting!r}", remedy="give a number, or a schedule such as linear:20:4 or cosine:20:4"
        ) from None
    return start, end


def value_at(setting: Setting, share: float) -> float:
    """The value after `share` of the run's steps: the first at 0, the last at 1."""
    start, end = ends(setting, name="a setting")
    if start == end:
        return end
    return start + (end - start) * _SHAPES[str(setting).partition(":")[0]](share)


_SHAPES: dict[str, Callable[[float], float]] = {
    "linear": lambda share: share,
    "cosine": lambda share: (1 - math.cos(math.pi * share)) / 2,
}
