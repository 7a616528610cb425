"""Columns of a table as one row of numbers: the prepare function `table`, and what it has to know of each column.

Numbers, booleans and dates become deviations from their mean, names a place for each. All that it takes is written down as
`columns`, so the function treats every row alone. Neighbour: `tabular_fit` finds `columns` in the training split. B rows, F
numbers of a row.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from softlabels.errors import ConfigError, TransferSetError
from softlabels.transfer.decode import Value
from softlabels.transfer.prepare import Row

TABLE = "softlabels.transfer.table"
MOST = 1000  # values of a category
_DATE = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d{1,9})?)?)?")
_LARGEST = float(np.finfo(np.float32).max)
_PLAIN = (np.generic, int, float, type(None))  # values that are no text, as a transfer set or pandas gives them
_DAY = np.timedelta64(1, "D")


class Number(msgspec.Struct, tag_field="kind", tag="number", frozen=True, forbid_unknown_fields=True):
    """A column of numbers or booleans: (x - mean) / deviation, 0 where it is missing.

    Attributes:
        name: of the column.
        mean: of the values that are there.
        deviation: their standard deviation, 1 where all are equal.
        missing: whether a second number says where it is missing: 1 there, else 0.
    """

    name: str
    mean: float
    deviation: float
    missing: bool = False

    @property
    def width(self) -> int:
        """How many numbers it makes."""
        return 1 + self.missing

    def numbers(self, values: Sequence[Value]) -> NDArray[np.float64]:
        """(B, width) of B values."""
        x = self.read(values)
        gone = np.isnan(x)
        with np.errstate(over="ignore"):
            scaled = np.where(gone, 0.0, (x / 2 - self.mean / 2) / self.deviation * 2)  # of two huge ones, too
        if (np.abs(scaled) > _LARGEST).any():
            raise _refused(
                self.name, f"holds {x[np.abs(scaled).argmax()]:g}, too far from the mean {self.mean:g} for float32"
            )
        return np.stack([scaled, gone.astype(np.float64)][: self.width], axis=1)

    def read(self, values: Sequence[Value]) -> NDArray[np.float64]:
        """(B,) as numbers, NaN where one is missing."""
        return as_numbers(self.name, values)


class Date(Number, tag="date", frozen=True, forbid_unknown_fields=True):
    """A column of dates, as days since 1970-01-01."""

    def read(self, values: Sequence[Value]) -> NDArray[np.float64]:
        """(B,) as days, NaN where one is missing."""
        return as_days(self.name, values)


class Category(msgspec.Struct, tag_field="kind", tag="category", frozen=True, forbid_unknown_fields=True):
    """A column of names or codes: 1 in the place of its value, 0 in all others.

    Attributes:
        name: of the column.
        values: those of the training split, a place each. The next place is that of all others.
        missing: whether missing values have the last place, else they are among the others.
    """

    name: str
    values: tuple[str | int | float | bool, ...]
    missing: bool = False

    @property
    def width(self) -> int:
        """How many numbers it makes."""
        return len(self.values) + 1 + self.missing

    def numbers(self, values: Sequence[Value]) -> NDArray[np.float64]:
        """(B, width) of B values."""
        places: dict[Any, int] = {value: place for place, value in enumerate(self.values)}
        other = len(self.values)
        found = [
            other + self.missing if value is None else places.get(value, other) for value in as_names(self.name, values)
        ]
        one_hot = np.zeros((len(values), self.width))
        one_hot[np.arange(len(values)), found] = 1
        return one_hot


Column = Number | Date | Category


def table(
    rows: Sequence[Row],
    *,
    columns: Sequence[Mapping[str, Any]] | None = None,
    categories: Sequence[str] = (),
    dates: Sequence[str] = (),
) -> NDArray[np.float32]:
    """The input columns of each row as numbers side by side, in their order: (B, F) float32.

    Args:
        rows: B values of one input column, or tuples of several, NaN or None where one is missing.
        columns: what is known of each column (`Number`, `Date`, `Category`). A recipe leaves it out: it is found in the
            training split and written down.
        categories: columns of whole numbers that are codes; text always is. dates: columns of text that holds dates.

    Raises:
        ConfigError: `columns` is not given, or not what it should be.
        TransferSetError: a value that the column cannot have.

    Example:
        >>> from softlabels.transfer import table
        >>> age = {"kind": "number", "name": "age", "mean": 40.0, "deviation": 10.0}
        >>> city = {"kind": "category", "name": "city", "values": ["Oslo", "Rome"]}
        >>> table([(50, "Rome"), (None, "Bonn")], columns=[age, city]).tolist()  # Bonn is another value
        [[1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    """
    if columns is None:
        raise ConfigError(
            "table does not know its columns", remedy="name it in a recipe, which finds them in the training split"
        )
    known = columns_of(columns)
    tuples = [row if isinstance(row, tuple) else (row,) for row in rows]
    if any(len(row) != len(known) for row in tuples):
        raise ConfigError(
            f"table knows {len(known)} columns, and a row has {len(tuples[0])}", remedy="give columns for all inputs"
        )
    parts = [each.numbers([row[at] for row in tuples]) for at, each in enumerate(known)]
    return np.hstack(parts).astype(np.float32)


def columns_of(columns: Sequence[Mapping[str, Any]]) -> tuple[Column, ...]:
    """Columns from plain values. Raises ConfigError where they are none."""
    try:
        found = msgspec.convert(columns, tuple[Column, ...])
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"prepare.init_args.columns of table: {error}", remedy="leave it out, or copy it whole"
        ) from error
    if wide := [each.name for each in found if isinstance(each, Category) and len(each.values) > MOST]:
        raise ConfigError(
            f"the category {wide[0]!r} has more than {MOST:,} values", remedy="leave the column out of inputs"
        )
    if wrong := [each.name for each in found if not isinstance(each, Category) and not each.deviation > 0]:
        raise ConfigError(f"the deviation of {wrong[0]!r} is not above 0", remedy="leave columns out, or copy it whole")
    return found


def as_numbers(name: str, values: Sequence[Value]) -> NDArray[np.float64]:
    """(B,) numbers or booleans as float64, NaN where one is missing. Raises TransferSetError for anything else."""
    if strangers := [kind for kind in {*map(type, values)} if not issubclass(kind, _PLAIN)]:
        what = "text" if strangers[0] is str else "bytes" if strangers[0] is bytes else "lists"
        raise _refused(name, f"holds {what} where the training split has numbers")
    found = np.array(values, np.float64)
    if np.isinf(found).any():
        raise _refused(name, "is infinite")
    return found


def as_days(name: str, values: Sequence[Value]) -> NDArray[np.float64]:
    """(B,) days since 1970-01-01 of dates: text, or objects of Python or pandas without a time zone; NaN where one is missing.

    Raises:
        TransferSetError: anything else.
    """
    # A missing one may be the NaN or NaT of pandas.
    known = [None if isinstance(each, float | datetime.date) and each != each else each for each in values]
    values = [each.isoformat() if isinstance(each, datetime.date) else each for each in known]
    for value in values:
        if value is not None and not (isinstance(value, str) and _DATE.fullmatch(value)):
            raise _refused(
                name,
                f"holds {value!r}, which is not a date such as 2024-05-31 or 2024-05-31 18:30:00",
                remedy="write dates like this; pandas.to_datetime(COLUMN, dayfirst=True) reads 31.05.2024",
            )
    try:
        found = np.array([value and str(value)[:26] for value in values], "datetime64[us]")
    except ValueError as error:
        raise _refused(name, f"holds an impossible day ({error})") from error
    return np.asarray((found - np.datetime64(0, "us")) / _DAY, np.float64)


def as_names(name: str, values: Sequence[Value]) -> list[Any]:
    """Names or codes, None where one is missing (or NaN). Raises TransferSetError for anything else."""
    kinds = {*map(type, values)}
    if not all(issubclass(kind, (str, *_PLAIN)) for kind in kinds):
        raise _refused(name, "holds bytes or lists")
    has_nan = any(issubclass(kind, np.floating | float) for kind in kinds)
    return [None if value != value else value for value in values] if has_nan else list(values)


def _refused(
    name: str, what: str, remedy: str = "correct or filter such rows, or leave the column out of transfer_set.inputs"
) -> TransferSetError:
    return TransferSetError(f"input column {name!r} {what}", remedy=remedy)
