"""Files of outputs as named arrays: npy, npz, Parquet and CSV. Nothing that could run code is read; what the arrays mean is
the business of `outputs`.

In Parquet and CSV the outputs may stand in one numeric column a class, whose names are a word and a number: p0, p1, ...;
prob_1, prob_2, ...; logit.0, logit.1, .... They become one array under that word, in the order of the numbers. So do
columns that have the classes for names, in the order of the classes.

In Parquet the lists of a column may have different lengths: they are the positions of rows, and come as a list of arrays.
"""

from __future__ import annotations

import re
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from softlabels.errors import StorageError, UserError

Values = NDArray[Any] | list[NDArray[Any]]  # of rows that are alike, or of rows of different length
Arrays = dict[str, Values]
KINDS = "a npy, npz, Parquet or CSV file"
LABELS = ("labels", "label")
# What numpy, zipfile and Arrow raise for a file that is cut, damaged or of another kind.
_BROKEN = (
    EOFError, RuntimeError, SyntaxError, ValueError, pa.ArrowException, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
BY_CLASS = "the columns of the classes"  # the array that is made of columns with the classes' names
_NUMBERED = re.compile(r"(.*?[^\d._ -])[._ -]?(\d{1,7})")


def read_arrays(
    path: Path, *, words: tuple[str, ...], labels: tuple[str, ...] = LABELS, classes: Sequence[str] = ()
) -> tuple[Arrays, list[str]]:
    """The arrays of a file by name, and the names of columns that were not read. Of a table these are lists, `labels`, and what
    `words` name: columns of any type, and those that have the word and a number for a name; and, as `BY_CLASS`, the columns
    that have the names of all `classes`.

    Raises:
        UserError: another kind of file, or columns that are no arrays. StorageError: the system refused to read it.
    """
    try:
        if path.suffix in (".npy", ".npz"):
            return _plain(path), []
        if path.suffix == ".parquet":
            return _columns(pq.read_table(path), words, labels, classes)
        if path.suffix == ".csv":
            return _columns(pyarrow.csv.read_csv(path), words, labels, classes, text=True)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist", remedy=f"give {KINDS}") from None
    except _BROKEN as error:
        raise UserError(
            f"{path} cannot be read: {error}", remedy="save plain arrays of numbers, without objects"
        ) from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error}", remedy="check the path and permissions") from error
    raise UserError(f"{path} is not {KINDS}", remedy="save the outputs as one of these")


def _plain(path: Path) -> Arrays:
    """The array of a npy file, or those of a npz file, whichever it is."""
    with path.open("rb") as file:
        found = np.load(file, allow_pickle=False)
        arrays = {"logits": found} if isinstance(found, np.ndarray) else {name: found[name] for name in found.files}
        return {name: values.astype(values.dtype.newbyteorder("="), copy=False) for name, values in arrays.items()}


def _columns(
    table: pa.Table, words: tuple[str, ...], labels: tuple[str, ...], classes: Sequence[str], *, text: bool = False
) -> tuple[Arrays, list[str]]:
    """What may be outputs, labels, keys or inputs in a table; of `text`, numbers have no type of their own, and are float64."""
    if len(set(table.column_names)) < len(table.column_names):
        raise ValueError("two columns have the same name")
    found: Arrays = {}
    kinds = dict(zip(table.column_names, table.schema.types, strict=True))
    for name, kind in kinds.items():
        if name in labels:
            found[name] = _array(table.column(name), name, gaps=True)
        elif name in words or _is_list(kind):
            found[name] = _array(table.column(name), name)
    groups = {word: columns for word, columns in _numbered(table).items() if word in words}
    if classes and all(name in kinds and _is_number(kinds[name]) for name in classes):
        groups[BY_CLASS] = list(classes)
    unread = [name for name in kinds if name not in found]
    for word, columns in groups.items():
        if word not in found:
            unread = [name for name in unread if name not in columns]
            parts = [_numbers(table.column(name), name) for name in columns]
            found[word] = np.stack([part.astype(np.float64) if text else part for part in parts], axis=1)
    return found, unread


def _numbers(column: pa.ChunkedArray, name: str) -> NDArray[Any]:
    """One class's column. A column that is left out would make another distribution of the rest."""
    if not _is_number(column.type):
        raise ValueError(f"column {name} holds {column.type}, no numbers")
    return _even(column.combine_chunks(), name)


def _without_gaps(labels: pa.Array) -> pa.Array:
    """Labels with "none" in the place of nulls: an empty text, or NaN, which is none of every kind."""
    if pa.types.is_dictionary(labels.type):
        labels = labels.cast(labels.type.value_type)
    kind = labels.type
    if labels.null_count and (_is_number(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)):
        number = labels.cast(pa.int8()) if pa.types.is_boolean(kind) else labels
        return number.cast(pa.float64(), safe=False).fill_null(np.nan)
    return labels.fill_null("") if pa.types.is_string(kind) or pa.types.is_large_string(kind) else labels


def _numbered(table: pa.Table) -> dict[str, list[str]]:
    """The columns of each word that stands before numbers, in the order of these: 0 to C - 1, or 1 to C."""
    groups: dict[str, dict[int, str]] = {}
    for name in table.column_names:
        if (parts := _NUMBERED.fullmatch(name.strip())) is not None:
            columns = groups.setdefault(parts[1], {})
            if int(parts[2]) in columns:
                raise ValueError(f"columns {columns[int(parts[2])]} and {name} have the same number")
            columns[int(parts[2])] = name
    whole = {
        word for word, of in groups.items() if len(of) >= 2 and min(of) in (0, 1) and max(of) - min(of) == len(of) - 1
    }
    return {word: [name for _, name in sorted(groups[word].items())] for word in groups if word in whole}


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _array(column: pa.ChunkedArray, name: str, *, gaps: bool = False) -> Values:
    """A column of numbers, texts or of (nested) lists of numbers as an array; as one a row where the outer lists are of
    different length. `gaps`: nulls are labels that are none.
    """
    array = column.combine_chunks()
    if not _is_list(array.type) or array.null_count or len(pc.unique(pc.list_value_length(array))) == 1:
        return _even(array, name, gaps=gaps)
    lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)
    return np.split(_even(array.flatten(), name, gaps=gaps), np.cumsum(lengths)[:-1])


def _even(leaf: pa.Array, name: str, *, gaps: bool = False) -> NDArray[Any]:
    """The same of lists that are alike."""
    shape = [len(leaf)]
    while _is_list(leaf.type):
        lengths = pc.unique(pc.list_value_length(leaf)).to_pylist()
        if leaf.null_count or len(lengths) != 1:
            raise ValueError(
                f"the lists of column {name} are not all equally long" + ", or null" * bool(leaf.null_count)
            )
        shape.append(lengths[0])
        leaf = leaf.flatten()
    leaf = _without_gaps(leaf) if gaps else leaf
    if leaf.null_count:
        raise ValueError(f"column {name} has nulls")
    return np.asarray(leaf.to_numpy(zero_copy_only=False)).reshape(shape)
