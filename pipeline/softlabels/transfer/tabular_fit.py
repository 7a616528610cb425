"""What the prepare function `table` has to know of each column, found in the training split alone.

The same rows give the same numbers on every machine: sums are exact before they are rounded (`math.fsum`). A store says what
was found, and students of that store take it from there (`stored`), so they need no training split.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from softlabels.errors import ConfigError, TransferSetError, some
from softlabels.objects import ObjectSpec
from softlabels.transfer.columns import column_at
from softlabels.transfer.config import TransferSetConfig
from softlabels.transfer.decode import Value, decode, is_temporal
from softlabels.transfer.source import open_split
from softlabels.transfer.tabular import (
    MOST,
    TABLE,
    Category,
    Column,
    Date,
    Number,
    as_days,
    as_names,
    as_numbers,
    columns_of,
)

SPLIT = "train"


def is_unfitted(spec: ObjectSpec) -> bool:
    """Whether a prepare function is `table`, and nothing is known of its columns yet."""
    return spec.class_path == TABLE and spec.init_args.get("columns") is None


def fitted(config: TransferSetConfig) -> TransferSetConfig:
    """The config whose prepare function knows its columns; any other as it is.

    Raises:
        ConfigError: there is no training split, or a column is named that is no input.
        TransferSetError: it cannot be opened, or holds what is no column of a table.
    """
    if not is_unfitted(config.prepare):
        return config
    if SPLIT not in config.splits:
        raise ConfigError(
            f"table learns of its columns from the split {SPLIT}, and the recipe has {some(config.splits)}",
            remedy="name that split, or copy prepare.init_args.columns of a store that was made with it (info --json)",
        )
    columns = msgspec.json.decode(msgspec.json.encode(_columns(config)))  # as a specification has them
    return replace(config, prepare=ObjectSpec(TABLE, {**config.prepare.init_args, "columns": columns}))


def said(spec: ObjectSpec) -> str:
    """A line on what it makes of its columns."""
    columns = columns_of(spec.init_args["columns"])
    return f"{len(columns)} columns make {sum(each.width for each in columns):,} numbers a row ({TABLE})"


def _columns(config: TransferSetConfig) -> list[Column]:
    named = {kind: config.prepare.init_args.get(kind) or [] for kind in ("categories", "dates")}
    for kind, names in named.items():
        if strangers := [name for name in names if name not in config.inputs]:
            raise ConfigError(
                f"prepare.init_args.{kind} names {strangers[0]!r}, which is no input",
                remedy=f"the inputs are {some(config.inputs)}",
            )
    source, found = open_split(config, SPLIT), list[Column]()
    table = source.data[:]
    for name in config.inputs:
        column = column_at(table, name)
        values = decode(
            column, name=name, start=0, images=name in source.images, missing=config.missing == "pass"
        ).rows()
        first = next((value for value in values if value is not None), None)
        if first is None:
            raise TransferSetError(
                f"input column {name!r} has no value in the training split",
                remedy="leave it out of transfer_set.inputs",
            )
        if name in named["dates"] or is_temporal(column.type):
            found.append(_number(Date, name, as_days(name, values)))
        elif name in named["categories"] or isinstance(first, str):
            found.append(_category(name, values))
        else:
            found.append(_number(Number, name, as_numbers(name, values)))
    return found


def _number(kind: type[Number], name: str, x: NDArray[np.float64]) -> Number:
    known = x[~np.isnan(x)]
    if not known.size:
        raise TransferSetError(
            f"input column {name!r} has no number in the training split", remedy="leave it out of transfer_set.inputs"
        )
    has_gaps = bool(known.size < x.size)
    if known.min() == known.max():
        return kind(name, float(known[0]), 1.0, has_gaps)
    # times a power of 2, which changes no digit, so that neither sum nor squares overflow or vanish
    power = math.frexp(np.abs(known).max())[1]
    scaled = np.ldexp(known, -power)
    mean = math.fsum(scaled.tolist()) / known.size
    apart = scaled - mean
    near = math.frexp(np.abs(apart).max())[1]
    deviation = math.sqrt(math.fsum((np.ldexp(apart, -near) ** 2).tolist()) / known.size)
    return kind(name, math.ldexp(mean, power), math.ldexp(deviation, power + near) or 1.0, has_gaps)


def _category(name: str, values: Sequence[Value]) -> Category:
    distinct: set[Any] = {*as_names(name, values)}
    has_gaps = None in distinct
    distinct.discard(None)
    if len(distinct) > MOST:
        raise TransferSetError(
            f"input column {name!r} has {len(distinct):,} distinct values in the training split, a category at most {MOST:,}",
            remedy="leave it out of transfer_set.inputs where it is an id or free text; dates as text are named in "
            "prepare.init_args.dates",
        )
    plain = [value.item() if isinstance(value, np.generic) else value for value in distinct]
    return Category(name, tuple(sorted(plain)), has_gaps)
