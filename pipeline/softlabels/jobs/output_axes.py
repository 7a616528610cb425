"""Which positions the rows of a file's outputs have, and their axes in the order of a store. R rows, P positions (the most, of
ragged rows), M members, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softlabels.checks.axes import by_member, by_position
from softlabels.errors import UserError
from softlabels.jobs.at_hand import Positions, padded, positions_of
from softlabels.jobs.output_files import Arrays, Values
from softlabels.jobs.reading import Reading
from softlabels.labels.targets import Target

MASK, LENGTHS = ("mask", "position_mask"), ("lengths", "length")
Shaped = dict[str, NDArray[np.floating]]


def says_positions(arrays: Arrays) -> bool:
    """Whether a file says which positions of its rows count."""
    return any(name in arrays for name in (*MASK, *LENGTHS))


def with_axes(
    given: Mapping[str, Values], arrays: Arrays, how: Reading, kinds: Mapping[str, Target], path: Path
) -> tuple[Shaped, Positions | None]:
    """The outputs of each target as (R, [P,] M, C), and the positions of rows that have some.

    Raises:
        ConfigError: axes of which nobody says which is which, or that contradict what is said.
        UserError: no floats; other positions, or rows, in one target than in another; a mask or length that cannot be.
    """
    mask, lengths = (next((arrays[name] for name in names if name in arrays), None) for names in (MASK, LENGTHS))
    if mask is not None and lengths is not None:
        raise UserError(f"{path} has lengths and a mask", remedy="leave one out: both say which positions count")
    if any(isinstance(values, list) for values in given.values()):
        if lengths is not None:
            raise UserError(f"{path} has lengths, and lists of as many", remedy="leave lengths out: the lists say them")
        where = positions_of(given, mask, how.positions)
        assert where is not None  # of lists
        found = {name: _padded(values, where, name, path) for name, values in given.items()}
        shaped = {name: _ordered(values, name, how, kinds[name], where.most, path) for name, values in found.items()}
        _require_alike(shaped, path)
        return shaped, where
    plain = {name: np.asarray(values) for name, values in given.items()}
    if mask is not None and np.ndim(mask) != 2:
        raise UserError(
            f"the mask in {path} has the shape {np.shape(mask)}", remedy="give 0 or 1 of each position of each row"
        )
    most = how.positions or (None if mask is None else np.shape(mask)[-1])
    if most is None and lengths is not None:
        most = max(values.shape[1] if values.ndim > 1 else 1 for values in plain.values())
    shaped = {name: _ordered(values, name, how, kinds[name], most, path) for name, values in plain.items()}
    _require_alike(shaped, path)
    if most is None:
        return shaped, None
    if lengths is None:
        return shaped, positions_of(shaped, mask, most)
    return shaped, _of_lengths(np.asarray(lengths), most, len(next(iter(shaped.values()))), path)


def _require_alike(shaped: Shaped, path: Path) -> None:
    for what, axis in (("rows", 0), ("members", -2)):
        found = {name: values.shape[axis] for name, values in shaped.items()}
        if len({*found.values()}) > 1:
            raise UserError(
                f"targets in {path} have different {what}: {found}", remedy=f"give all targets of the same {what}"
            )


def _padded(values: Values, where: Positions, name: str, path: Path) -> NDArray[np.floating]:
    """(R, P, ...) of lists of different length, or of lists that are alike."""
    if not isinstance(values, list):
        return np.asarray(values)
    if values[0].dtype.kind != "f":
        raise UserError(f"{_called(name, path)} are lists of {values[0].dtype}", remedy="give lists of floats")
    return padded(values, where.most)


def _ordered(
    values: NDArray[np.floating], name: str, how: Reading, kind: Target, most: int | None, path: Path
) -> NDArray[np.floating]:
    called, members, one = _called(name, path), how.count, kind != "softmax"
    least = (1 if one else 2) if most is None else (2 if one else 3)
    if values.dtype.kind != "f" or not values.size or (values.ndim < least and most is None) or values.ndim > 4:
        axes = "(rows, classes) or (rows, members, classes)"
        if most is not None:
            axes = "(rows, positions, classes) or (rows, positions, members, classes)"
        raise UserError(
            f"{called} is {values.dtype} of shape {values.shape}", remedy=f"give an array of shape {axes}, of floats"
        )
    if most is not None:
        return by_position(values, most, members, name=called, one=one)
    return by_member(values[:, None] if values.ndim == 1 else values, members, name=called)


def _of_lengths(lengths: NDArray[np.generic], most: int, rows: int, path: Path) -> Positions:
    """Of rows that have so many positions each."""
    if lengths.dtype.kind not in "iu" or lengths.shape != (rows,):
        raise UserError(
            f"the lengths in {path} are {lengths.dtype} {lengths.shape}", remedy=f"give {rows} whole numbers, one a row"
        )
    wrong = np.flatnonzero((lengths < 1) | (lengths > most))  # type: ignore[operator]  # whole numbers
    if wrong.size:
        raise UserError(
            f"row {wrong[0]} of {path} has {lengths[wrong[0]]} positions (lengths), and a row has 1 to {most}",
            remedy="correct the length, or raise --positions",
        )
    count = lengths.astype(np.int64)
    return Positions(most, count, (np.arange(most) < count[:, None]).astype(np.uint8))


def _called(name: str, path: Path) -> str:
    """What messages call the outputs of an array."""
    return f"{name} in {path}"
