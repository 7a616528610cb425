"""Which axis of foreign outputs is which: two axes are rows and classes; of three, how many members there are must be said."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import ConfigError


def by_member(values: NDArray[Any], members: int | None, *, name: str) -> NDArray[Any]:
    """Outputs (R, M, C) from (R, C), (R, M, C) or (M, R, C).

    Args:
        values: two or three axes.
        members: M as it was said, None where it was not.
        name: what the outputs are called, for the message.

    Raises:
        ConfigError: three axes and no M, or one that is not among them.
    """
    if values.ndim == 2:
        if members not in (None, 1):
            raise ConfigError(
                f"{name} has the axes (rows, classes) = {values.shape}, and there are {members} members",
                remedy=f"give an array (rows, {members}, classes), or leave out --members and --weights",
            )
        return values[:, None, :]
    first, second, classes = values.shape
    if members == second or (members is None and second == 1):
        return values
    if members == first:
        return np.ascontiguousarray(values.swapaxes(0, 1))
    said = "nobody says which axis is which" if members is None else f"--members={members} is neither"
    raise ConfigError(
        f"{name} has three axes {values.shape}, and {said}: {first} rows of {second} members and {classes} classes "
        f"(--members={second}), or {first} members with {second} rows of {classes} classes (--members={first})",
        remedy="give --members=N, or --weights with one weight a member; several distributions a row (boxes, frames, "
        "pixels) cannot be imported",
    )
