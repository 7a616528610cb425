"""Input columns of numbers and names as attributes, which `munge` takes, and attributes as such columns again.

A column of numbers is one real attribute, a column of arrays one for each of their places. What a recipe calls nominal
is numbered by its distinct values. Neighbour: `pseudo`. R rows, A real attributes, N nominal ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softlabels.errors import TransferSetError
from softlabels.transfer.decode import Array, Decoded
from softlabels.transfer.munge import Codes, Reals
from softlabels.transfer.source import arrow_column

_MOST = 1 << 53  # up to it float64 has all whole numbers
_OTHERWISE = "or make rows by a function, transfer_set.pseudo_data.factory"


@dataclass(frozen=True, eq=False)
class Column:
    """An input column.

    Attributes:
        name: its own.
        values: (R, ...) of its rows.
        names: the distinct values, sorted, where it is nominal.
    """

    name: str
    values: Array
    names: NDArray[Any] | None

    @cached_property
    def attributes(self) -> NDArray[Any]:
        """(R, attributes) float64, or of a nominal one int64 codes."""
        found = self.values.astype(np.float64) if self.names is None else np.searchsorted(self.names, self.values)
        return found.reshape(len(found), -1)

    def rounded(self, reals: Reals) -> Reals:
        """(B, attributes) as the column can hold them. Whole numbers are rounded and stay from its least to its greatest."""
        if self.values.dtype.kind in "iu":
            return np.clip(np.rint(reals), self.values.min(), self.values.max()) + 0.0  # + 0: no -0
        return reals.astype(self.values.dtype).astype(np.float64)

    def restored(self, attributes: Array) -> pa.Array:
        """(B, attributes) as values of the column."""
        found = attributes.astype(self.values.dtype) if self.names is None else self.names[attributes]
        found = found.reshape(len(found), *self.values.shape[1:])
        return pa.array(found.tolist()) if found.dtype.kind == "U" else arrow_column(found)


@dataclass(frozen=True)
class Attributes:
    """The input columns of a split."""

    columns: Sequence[Column]

    @property
    def reals(self) -> Reals:
        """(R, A)."""
        nothing: Reals = np.empty((len(self.columns[0].values), 0))
        return np.hstack([nothing, *(each.attributes for each in self._of(real=True))])

    @property
    def codes(self) -> Codes:
        """(R, N)."""
        nothing: Codes = np.empty((len(self.columns[0].values), 0), np.int64)
        return np.hstack([nothing, *(each.attributes for each in self._of(real=False))])

    def rounded(self, reals: Reals) -> Reals:
        """(B, A) as the columns can hold them."""
        parts = [each.rounded(part) for each, part in self._parts(reals, real=True)]
        return np.hstack(parts) if parts else reals

    def restored(self, reals: Reals, codes: Codes) -> dict[str, pa.Array]:
        """Attributes (B, A), (B, N) as columns by name."""
        parts = [*self._parts(reals, real=True), *self._parts(codes, real=False)]
        return {each.name: each.restored(part) for each, part in parts}

    def _of(self, real: bool) -> list[Column]:
        return [each for each in self.columns if (each.names is None) == real]

    def _parts(self, joined: Array, *, real: bool) -> Iterable[tuple[Column, Any]]:
        columns = self._of(real)
        ends = np.cumsum([each.attributes.shape[1] for each in columns])
        return zip(columns, np.split(joined, ends[:-1], axis=1), strict=True) if columns else ()


def column_of(name: str, decoded: Decoded, *, nominal: bool) -> Column:
    """An input column whose values are decoded.

    Raises:
        TransferSetError: values that are no numbers and not nominal, missing, not finite, or arrays of several shapes.
    """
    values = decoded.values
    if decoded.hashed is not None or any(isinstance(value, bytes) for value in values[:1]):
        raise _refused(name, "holds images or other files", "leave it out of inputs,")
    if not isinstance(values, np.ndarray):
        if missing := [row for row, value in enumerate(values) if value is None]:
            raise _refused(name, f"misses a value in row {missing[0]}", "fill or filter such rows,")
        if not isinstance(values[0], str):
            raise _refused(name, "holds arrays of several shapes", "pad them to one,")
        values = np.array(values)
    if values.dtype.kind == "f":
        wrong = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
        if wrong.size:
            raise _refused(name, f"is NaN or infinite in row {wrong[0]}", "correct or filter such rows,")
    if nominal:
        return Column(name, values, np.unique(values))
    if values.dtype.kind not in "iuf":
        what = "text" if values.dtype.kind == "U" else "false and true"
        raise _refused(name, f"holds {what}", "name it in transfer_set.pseudo_data.nominal,")
    if values.dtype.kind != "f" and max(abs(int(values.min())), abs(int(values.max()))) > _MOST:
        raise _refused(
            name, f"holds whole numbers beyond {_MOST:,}, as ids are", "name it nominal, leave it out of inputs,"
        )
    return Column(name, values, None)


def _refused(name: str, what: str, remedy: str) -> TransferSetError:
    return TransferSetError(
        f"input column {name!r} {what}, and MUNGE takes numbers and names", remedy=f"{remedy} {_OTHERWISE}"
    )
