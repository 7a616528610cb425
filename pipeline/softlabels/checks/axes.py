"""Which axis of foreign outputs is which: two axes are rows and classes; of three, how many members there are must be said, or
how many positions a row has.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import ConfigError

POSITIONS = "give --positions=N where an axis is positions of a row, such as anchors or frames"


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
    if values.ndim > 3:
        raise ConfigError(
            f"{name} has the axes {values.shape}, and it is not known which are positions", remedy=POSITIONS
        )
    first, second, classes = values.shape
    if members == second or (members is None and second == 1):
        return values
    if members == first:
        return np.ascontiguousarray(values.swapaxes(0, 1))
    said = "the file does not say which axis is which" if members is None else f"--members={members} is neither"
    raise ConfigError(
        f"{name} has three axes {values.shape}, and {said}: {first} rows of {second} members and {classes} classes "
        f"(--members={second}), or {first} members with {second} rows of {classes} classes (--members={first})",
        remedy=f"give --members=N, or --weights with one weight a member; {POSITIONS}",
    )


def by_position(values: NDArray[Any], positions: int, members: int | None, *, name: str, one: bool) -> NDArray[Any]:
    """Outputs (R, P, M, C) from (R, P, C), (R, P, M, C), (R, M, P, C) or (M, R, P, C).

    Args:
        values: two to four axes.
        positions: P. members: M as it was said, None where it was not.
        name: what the outputs are called, for the message.
        one: one number a position is enough, which needs no axis: (R, P).

    Raises:
        ConfigError: axes that are not those, or classes that stand with positions on one axis.
    """
    shape, wanted = values.shape, (None, 1) if members is None else (members,)
    if one and values.ndim == 2 and shape[1] == positions and 1 in wanted:
        return values[:, :, None, None]
    if values.ndim == 3 and shape[1] == positions and 1 in wanted:
        return values[:, :, None]
    if values.ndim == 4 and shape[1] == positions and (members is None or shape[2] == members):
        return values
    if values.ndim == 4 and shape[2] == positions and shape[1] == members:
        return np.ascontiguousarray(values.swapaxes(1, 2))
    if values.ndim == 4 and shape[2] == positions and shape[0] == members:
        return np.ascontiguousarray(np.moveaxis(values, 0, 2))
    said = f"{positions} positions a row {'' if members is None else f'and {members} members '}are said"
    remedy = "give (rows, positions, classes) or (rows, positions, members, classes)"
    if values.ndim == 2 and shape[1] % positions == 0:
        remedy += f"; positions and classes are two axes: reshape({shape[0]}, {positions}, {shape[1] // positions})"
    elif values.ndim == 3 and shape[2] == positions:
        remedy += "; the classes are the last axis: transpose(0, 2, 1)"
    raise ConfigError(f"{name} has the axes {shape}, and {said}", remedy=remedy)
