"""Outputs of rows that are at hand in memory, as arrays or as lists of ragged rows: which axis is which, one row's length
against another's. Nothing is guessed: three axes are rows, members and classes unless positions are said.

R rows, P positions (the most, of ragged rows), M members, C classes or numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabels.checks.axes import by_position
from softlabels.errors import LogitsError, UserError
from softlabels.labels.targets import Target
from softlabels.store.spec import MAX_POSITIONS

MANY = 32  # members that nobody named
_POSITIONS = "give positions=N (or a mask) where that axis is positions, such as anchors or frames"


def by_target(given: Any, names: Collection[str], what: str) -> dict[str, Any]:
    """What is given of targets, by name; "" is the one without. Raises `UserError` for a name that no target has."""
    if given is None:
        return {}
    by_name = given if isinstance(given, Mapping) else {"": given}
    strangers = sorted({*map(str, by_name)} - {*names})
    if strangers:
        found = f"{what} name {strangers[0]!r}" if isinstance(given, Mapping) else f"{what} are of no name"
        called = ", ".join(names) or "no name"
        raise UserError(
            f"{found}, and the logits are of {called}", remedy="give a mapping with names of the targets, or none"
        )
    return dict(by_name)


@dataclass(frozen=True)
class Positions:
    """P of rows of positions, of ragged ones the most, and how many each of these has (R,); which of them count (R, P)."""

    most: int
    lengths: NDArray[np.int64] | None
    mask: NDArray[np.uint8]


def positions_of(logits: Mapping[str, Any], mask: Any, most: int | None) -> Positions | None:
    """Those of rows; None where they are one position each.

    Raises:
        UserError: a number of positions that is none, targets with different positions, more than `most`, a mask of another
            shape, or one that is all false.
    """
    is_whole = isinstance(most, int | np.integer) and not isinstance(most, bool)
    if most is not None and not (is_whole and 1 <= most <= MAX_POSITIONS):
        raise UserError(f"positions={most!r}", remedy=f"give a whole number from 1 to {MAX_POSITIONS}")
    most = None if most is None else int(most)
    lengths = {name: found for name, values in logits.items() if (found := lengths_of(values, most)) is not None}
    if lengths:
        return _ragged(lengths, mask, most)
    if mask is None and most is None:
        return None
    rows = len(next(iter(logits.values())))
    counts = _mask(mask, rows, most)
    return Positions(counts.shape[1], None, counts)


def _ragged(lengths: Mapping[str, NDArray[np.int64]], mask: Any, most: int | None) -> Positions:
    """The same of lists, whose rows have these lengths."""
    (first, count), *others = lengths.items()
    if (named := lengths_of(mask, most)) is not None:
        others.append(("the mask", named))
    for name, found in others:
        require_same_lengths(count, found, first, name)
    most = int(count.max()) if most is None else most
    if count.max() > most:
        row = int(count.argmax())
        raise UserError(
            f"row {row} has {count[row]} positions, and positions={most} is the most", remedy="give a larger one"
        )
    given = _mask(mask if named is None else padded(mask, most), len(count), most)
    return Positions(most, count, _checked(given * (np.arange(most) < count[:, None])))


def _mask(mask: Any, rows: int, most: int | None) -> NDArray[np.uint8]:
    """Which positions (R, P) count; all, where nobody says so. Raises `UserError`."""
    given = np.ones((rows, most or 1), np.uint8) if mask is None else array_of(mask, "the mask")
    fits = given.ndim == 2 and len(given) == rows and most in (None, given.shape[-1])
    if given.dtype.kind not in "bui" or not fits:
        raise UserError(
            f"the mask is {given.dtype} {given.shape}" + ("" if most is None else f", and positions={most}"),
            remedy=f"give 0 or 1 of each position: ({rows}, positions)",
        )
    return _checked(given)


def _checked(mask: NDArray[Any]) -> NDArray[np.uint8]:
    odd, empty = np.flatnonzero(((mask < 0) | (mask > 1)).any(axis=1)), np.flatnonzero(~mask.any(axis=1))
    if odd.size:
        raise UserError(
            f"row {odd[0]}: the mask of its positions is neither 0 nor 1", remedy="give 1 where a position counts"
        )
    if empty.size:
        raise UserError(
            f"row {empty[0]}: none of its positions counts: the mask is 0 everywhere", remedy="leave such rows out"
        )
    return mask.astype(np.uint8)


def require_same_lengths(one: NDArray[np.int64], other: NDArray[np.int64], first: str, name: str) -> None:
    """Raise `UserError` where rows have other numbers of positions in `first` than in `name`."""
    if len(one) != len(other):
        raise UserError(f"{len(one)} rows in {first or 'logits'}, {len(other)} in {name}", remedy="give the same rows")
    wrong = np.flatnonzero(one != other)
    if wrong.size:
        row = wrong[0]
        raise UserError(
            f"row {row} has {one[row]} positions in {first or 'logits'} and {other[row]} in {name}",
            remedy="give all targets of a row the same number of positions",
        )


def array_of(values: Any, what: str) -> NDArray[Any]:
    """`values` as an array. Raises `UserError` where they are none, such as lists of different length, or tensors with a
    gradient.
    """
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{what}: no array ({error})",
            remedy="give an array, or lists that are alike (of rows of different length a list of arrays, as the logits are)",
        ) from error


def lengths_of(values: Any, most: int | None = None) -> NDArray[np.int64] | None:
    """How many positions each row of a list, or array of arrays, has (R,); None of other arrays, and of lists whose rows are
    alike and have `most`, where that is said.
    """
    if isinstance(values, np.ndarray) and values.dtype.kind == "O" and values.ndim == 1:
        values = values.tolist()
    if not isinstance(values, list | tuple) or not values or isinstance(values[0], str):
        return None
    try:
        found = np.array([len(row) for row in values], np.int64)
    except TypeError:
        return None
    return None if (found == found[0]).all() and most in (None, found[0]) else found


def padded(rows: Sequence[Any], most: int, fill: np.generic = np.False_) -> NDArray[Any]:
    """Rows of different length as one array (R, P, ...), `fill` beyond each (of texts an empty one), in the dtype that holds
    all of it.
    """
    parts = [array_of(row, f"the values of row {number}") for number, row in enumerate(rows)]
    are_texts = any(part.dtype.kind in "OU" for part in parts)
    fill = np.str_("") if are_texts else fill
    kind = np.dtype(object) if are_texts else np.result_type(fill.dtype, *{part.dtype for part in parts})
    out = np.full((len(parts), most, *parts[0].shape[1:]), fill, kind)
    for row, part in enumerate(parts):
        if part.shape[1:] != out.shape[2:]:
            raise UserError(
                f"row {row} has the shape {part.shape}, row 0 {parts[0].shape}",
                remedy="give rows that differ only in length",
            )
        out[row, : len(part)] = part
    return out


def outputs_of(name: str, given: Any, where: Positions | None, kind: Target) -> NDArray[np.floating]:
    """(R, [P,] M, C) of a target's outputs, a single number without an axis too. Raises `LogitsError` for another dtype, and
    `ConfigError` for other axes.
    """
    what = f"{name}: logits" if name else "logits"
    ragged = where is not None and lengths_of(given, where.most) is not None
    values = padded(given, where.most) if ragged and where is not None else array_of(given, what)
    if where is None and values.ndim == 1 and kind != "softmax":
        values = values[:, None]
    if values.dtype.kind != "f" or not values.size or (where is None and values.ndim not in (2, 3)):
        axes = "rows" if where is None else "rows, positions"
        more = (
            {1: "; one number is an axis, too: [:, None]", 4: f"; {_POSITIONS}"}
            if where is None and values.dtype.kind == "f"
            else {}
        )
        raise LogitsError(
            f"{what} are {values.dtype} of shape {values.shape}",
            remedy=f"give floats of shape ({axes}, classes) or ({axes}, members, classes)" + more.get(values.ndim, ""),
        )
    if where is None:
        return values[:, None] if values.ndim == 2 else values
    found = by_position(values, where.most, None, name=what, one=kind != "softmax")
    if len(found) != len(where.mask):
        raise UserError(
            f"{what} are of {len(found)} rows, and the mask of {len(where.mask)}", remedy="give the same rows"
        )
    return np.asarray(found)


def refuse_positions(
    name: str, values: NDArray[np.floating], labels: Any, kind: Target, *, named: bool, positions: str = _POSITIONS,
    who: str = "say who they are with a TeacherSpec",
) -> None:  # fmt: skip
    """Raise `UserError` where outputs (R, M, C) that nobody calls positions look so: many members that nobody `named`, or hard
    labels of each. `positions` and `who`: how a remedy tells the caller to say either.
    """
    one, shape = f"{name}: " if name else "", values.shape
    found: tuple[int, ...] = () if labels is None or lengths_of(labels) is not None else np.shape(labels)
    own = len(found) - (kind != "softmax")  # axes of labels, but for the classes of flags and the numbers of vectors
    if own == 2:
        cut = f"reshape them to (rows, {found[1]}, {shape[2] // found[1] or 1}), and " * (shape[1] == 1)
        raise UserError(
            f"{one}logits of shape {shape} are {shape[0]} rows of {shape[1]} members and {shape[2]} classes, and labels of "
            f"shape {found} are of {found[1]} positions each",
            remedy=f"{cut}{positions}" + "; a 0 or 1 for each class is a label of a sigmoid" * (found[1] == shape[2]),
        )
    if shape[1] > MANY and not named:
        raise UserError(
            f"{one}logits of shape {shape} are {shape[0]} rows of {shape[1]} members and {shape[2]} classes",
            remedy=f"{positions}; where they are members, {who}",
        )
