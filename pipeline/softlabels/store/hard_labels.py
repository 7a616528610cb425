"""Hard labels beside the labels of a target, in a column of its own, by the target's kind: docs/format.md, *Hard labels*.

=======  =======  ========  ==========================================
kind     dtype    shape     values
=======  =======  ========  ==========================================
softmax  int64    ([P])     a class, or -1 for none
sigmoid  int8     ([P,] C)  0 or 1 a class, or -1 where it is unknown
values   float32  ([P,] D)  a vector, or NaN throughout for none
=======  =======  ========  ==========================================

N rows, P positions of rows that are no tokens, C classes, D numbers of a vector.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import LabelError
from softlabels.labels import NO_LABEL
from softlabels.labels.stored import BLOCK
from softlabels.store.columns import LABEL, POSITION, Column, DType, stored_name
from softlabels.store.spec import Spec, TargetSpec

Values = NDArray[np.generic]
Flags = NDArray[np.bool_]


class _Kind(NamedTuple):
    """Its dtype, what stands for none, the name of the last axis or "" where it has none, which labels (N, ...) of so many
    classes are `wrong`, what they should be, and a remedy.
    """

    dtype: DType
    none: float
    axis: str
    wrong: Callable[[Values, int], Flags]
    rule: str
    remedy: str


def _no_class(values: Values, classes: int) -> Flags:
    return np.asarray((values < NO_LABEL) | (values >= classes))  # type: ignore[operator]  # integers


def _no_flag(values: Values, classes: int) -> Flags:
    return np.asarray((values < NO_LABEL) | (values > 1))  # type: ignore[operator]  # integers


def _no_vector(values: Values, classes: int) -> Flags:
    """(N, [P,] D) -> (N, [P]): infinite, or NaN in a part."""
    missing = np.isnan(values)
    return np.asarray(np.isinf(values).any(axis=-1) | (missing.any(axis=-1) & ~missing.all(axis=-1)))


_KINDS = {
    "softmax": _Kind(
        "int64", NO_LABEL, "", _no_class, "outside the label space of {0} classes",
        f"use 0 to {{1}}, or {NO_LABEL} for a row without a label",
    ),
    "sigmoid": _Kind(
        "int8", NO_LABEL, "class", _no_flag, "which is neither 0 nor 1",
        f"give 0 or 1 a class, or {NO_LABEL} where it is unknown",
    ),
    "values": _Kind(
        "float32", math.nan, "value", _no_vector, "which is infinite or NaN in a part",
        "give {0} finite numbers, or NaN throughout for a row without a label",
    ),
}  # fmt: skip


def needs_label(target: TargetSpec) -> bool:
    """Whether a target always has the column; others may."""
    return target.encoding.target == "softmax"


def no_label(target: TargetSpec) -> float:
    """What stands for none."""
    return _KINDS[target.encoding.target].none


def label_column(spec: Spec, target: TargetSpec) -> Column:
    """The column of a target's hard labels. Tokens are their own, so it has no axis of positions there."""
    kind, classes = _KINDS[target.encoding.target], target.label_space.classes
    lead, axes = ((), ()) if spec.positions is None or spec.of_tokens else ((spec.positions,), (POSITION,))
    last, named = ((), ()) if not kind.axis else ((classes,), (kind.axis,))
    return Column(name=stored_name(target.name, LABEL), dtype=kind.dtype, shape=(*lead, *last), axes=(*axes, *named))


def are_none(target: TargetSpec, values: Values, lead: int) -> Flags:
    """Which labels are none, over the first `lead` axes."""
    none = np.isnan(values) if target.encoding.target == "values" else values == NO_LABEL
    return np.asarray(none.all(axis=tuple(range(lead, values.ndim))))


def require_labels(target: TargetSpec, values: Values, *, first_row: int = 0) -> None:
    """Raise `LabelError`, naming the first row whose label (N, [P,] [C or D]) the kind does not know, and its position."""
    kind, classes = _KINDS[target.encoding.target], target.label_space.classes
    step = max(1, BLOCK * len(values) // max(1, values.size))
    for start in range(0, len(values), step):
        part = values[start : start + step]
        wrong = kind.wrong(part, classes)
        if wrong.any():
            at = tuple(np.argwhere(wrong)[0].tolist())
            of_class = f" of class {at[-1]}" if target.encoding.target == "sigmoid" else ""
            place = f" at position {at[1]}" if part.ndim - bool(kind.axis) > 1 else ""
            label = "a hard label" if part[at].ndim else f"the hard label {part[at]}"
            raise LabelError(
                f"{target.titled}row {first_row + start + at[0]} has {label}{of_class}{place}, {kind.rule.format(classes)}",
                remedy=kind.remedy.format(classes, classes - 1),
            )
