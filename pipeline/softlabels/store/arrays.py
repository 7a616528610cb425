"""The columns of one shard before they are written: made from logits or from what an encoder gave, and checked. Nothing is
cast, and what is wrong is named by row.

R rows of the shard, P positions of a row, M members, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabels.checks.probabilities import looks, require_logits
from softlabels.errors import ClassIdOverflow, LogitsError, UserError
from softlabels.labels.base import Encoded
from softlabels.labels.class_ids import NoSuchClass
from softlabels.store.positions import check_positions, count_positions
from softlabels.store.spec import Spec
from softlabels.store.values import beside, check_column

Arrays = dict[str, NDArray[np.generic]]


def by_target(spec: Spec, given: Any, what: str) -> dict[str, Any]:
    """What is given of each target, by its name; of one without a name as it is. Raises `UserError` where names differ."""
    names = [target.name for target in spec.targets]
    if names == [""]:
        return {"": given}
    if not isinstance(given, Mapping) or given.keys() != {*names}:
        found = sorted(given) if isinstance(given, Mapping) else type(given).__name__
        raise UserError(
            f"{what} are {found}, and the targets of the store are {', '.join(names)}",
            remedy="give a mapping with the name of each",
        )
    return {name: given[name] for name in names}


def encode_logits(
    spec: Spec,
    name: str,
    shard: int,
    logits: NDArray[np.floating],
    mask: NDArray[np.uint8] | None,
    *,
    are_logits: bool = False,
) -> Encoded:
    """The columns (R * P, M, ...) of a target's raw outputs (R, [P,] M, C), and what they lost; reduced where the spec says so.

    Positions whose `mask` (R, P) is 0 are stored as if all outputs were 0. Raises `LogitsError`, naming row (position) and
    member; also where logits look like probabilities, unless it is said that they `are_logits`.
    """
    target, one = spec.only(name), f"target {name}, " if name else ""
    _require_logits(target, one, shard, logits, mask)
    first, each = spec.shard_rows(shard).start, spec.positions or 1
    if not are_logits:
        kind = target.encoding.target
        found = looks(logits, kind, mask)
        require_logits(found, target=kind, total=spec.rows, first_row=first, who=one.removesuffix(", "))
    weights = [member.weight for member in spec.teacher.members]
    return target.encoding.encode_arrays(
        logits,
        weights=weights if target.encoding.is_reduced else None,
        mask=mask,
        place=lambda n: f"{one}row {first + n // each}" + ("" if mask is None else f", position {n % each}"),
    )


def _require_logits(
    spec: Spec, one: str, shard: int, logits: NDArray[np.floating], mask: NDArray[np.uint8] | None
) -> None:
    rows, members, classes = len(spec.shard_rows(shard)), len(spec.teacher.members), spec.label_space.classes
    if not spec.encoding.keeps_all:
        raise UserError(
            f"{one}the specification's labels are {spec.encoding.kind}, which are encoded where the logits are",
            remedy="encode them with the specification's encoding.encode and give the columns to write_columns",
        )
    if (mask is None) != (spec.positions is None):
        raise UserError(
            "a mask belongs only to rows of positions",
            remedy="give a mask (of tokens a document too) where the specification has positions, else neither",
        )
    lead = (rows,) if spec.positions is None else (rows, spec.positions)
    if logits.shape != (*lead, members, classes):
        raise LogitsError(
            f"{one}logits of shape {logits.shape} do not hold {rows} rows x "
            + ("" if spec.positions is None else f"{spec.positions} positions x ")
            + f"{members} members x {classes} classes",
            remedy="give the logits of this shard's rows, one a member and class",
        )
    if mask is not None and mask.shape != lead:
        raise UserError(f"the mask has the shape {mask.shape}, not {lead}", remedy="give one number a position")


def row_arrays(spec: Spec, own: Mapping[str, NDArray[np.generic]], soft: Mapping[str, NDArray[np.generic]]) -> Arrays:
    """All columns of some rows by name: what the rows have themselves, and what holds their distributions, which may be
    (R * P, ...) where positions were encoded row behind row.
    """
    arrays, rows = dict(own), len(own["content_key"])
    mask = own.get("document" if spec.of_tokens else "position_mask")
    if spec.ragged and mask is not None and mask.shape == (rows, spec.positions):
        arrays["positions"] = count_positions(spec, own)
    by_position = {column.name: column for column in spec.columns if column.by_position}
    for name, values in soft.items():
        column = by_position.get(name)
        flat = column is not None and values.ndim == len(column.shape) and len(values) == rows * column.shape[0]
        arrays[name] = values.reshape(rows, -1, *values.shape[1:]) if flat else values
    return arrays


def check_arrays(spec: Spec, shard: int, arrays: Mapping[str, NDArray[np.generic]], rows: range) -> None:
    """Raise `UserError` unless these are the columns of some rows of a shard: names, dtypes, shapes, and values that can be
    true; for a class id that is none, `ClassIdOverflow`, for a hard label that is none, `LabelError`.
    """
    strangers = sorted(arrays.keys() - {column.name for column in spec.columns})
    if strangers:
        raise UserError(
            f"the store of this specification has no column {', '.join(strangers)}",
            remedy="make the specification with what is given, such as embedded inputs, or leave them out",
        )
    for column in sorted(spec.columns, key=lambda column: column.name == "positions"):  # it follows from the mask
        given = arrays.get(column.name)
        expected = (len(rows), *column.shape)
        if given is None or given.dtype != np.dtype(column.dtype) or given.shape != expected:
            found = "nothing" if given is None else f"{given.dtype} {given.shape}"
            raise UserError(
                f"column {column.name} of shard {shard} is {found}, not {column.dtype} {expected}",
                remedy="give what the specification's columns say; nothing is cast",
            )
    try:
        check_values(spec, arrays, first_row=rows.start)
    except NoSuchClass as error:
        remedy = "keep ids in integers that hold all of them: int16 and float16 do not hold those of a large vocabulary"
        raise ClassIdOverflow(f"shard {shard}: {error}", remedy=remedy) from error
    except ValueError as error:
        raise UserError(f"shard {shard}: {error}", remedy="give columns as the format says") from error


def check_values(spec: Spec, arrays: Mapping[str, NDArray[np.generic]], *, first_row: int = 0) -> None:
    """Raise `ValueError` (of hard labels `LabelError`) where the format forbids values of well-formed columns, or they
    contradict each other.
    """
    for name in (column.name for column in spec.columns):
        others = arrays.get(beside(spec, name) or "")
        check_column(spec, name, arrays[name], others=others, first_row=first_row)
    check_positions(spec, arrays, first_row=first_row)
