"""Hard labels beside the labels of a target, in a column of its own: docs/format.md, *Hard labels*. What they are of each kind
says `softlabels.labels.hard`.

N rows, P positions of rows that are no tokens, C classes, D numbers of a vector.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np

from softlabels.errors import LabelError
from softlabels.labels import NO_LABEL
from softlabels.labels.hard import DTYPES, Labels, are_wrong
from softlabels.labels.stored import BLOCK
from softlabels.labels.targets import Target
from softlabels.store.columns import LABEL, POSITION, Column, DType, stored_name
from softlabels.store.spec import Spec, TargetSpec


class _Kind(NamedTuple):
    """The name of the last axis, or "" where it has none; what labels should be, and a remedy."""

    axis: str
    rule: str
    remedy: str


_KINDS: dict[Target, _Kind] = {
    "softmax": _Kind(
        "", "outside the label space of {0} classes", f"use 0 to {{1}}, or {NO_LABEL} for a row without a label"
    ),
    "sigmoid": _Kind("class", "which is neither 0 nor 1", f"give 0 or 1 a class, or {NO_LABEL} where it is unknown"),
    "values": _Kind(
        "value",
        "which is infinite or NaN in a part",
        "give {0} finite numbers, or NaN throughout for a row without a label",
    ),
}


def needs_label(target: TargetSpec) -> bool:
    """Whether a target always has the column; others may."""
    return target.encoding.target == "softmax"


def label_column(spec: Spec, target: TargetSpec) -> Column:
    """The column of a target's hard labels. Tokens are their own, so it has no axis of positions there."""
    kind, classes = _KINDS[target.encoding.target], target.label_space.classes
    dtype = cast(DType, np.dtype(DTYPES[target.encoding.target]).name)
    lead, axes = ((), ()) if spec.positions is None or spec.of_tokens else ((spec.positions,), (POSITION,))
    last, named = ((), ()) if not kind.axis else ((classes,), (kind.axis,))
    return Column(name=stored_name(target.name, LABEL), dtype=dtype, shape=(*lead, *last), axes=(*axes, *named))


def require_labels(target: TargetSpec, values: Labels, *, first_row: int = 0) -> None:
    """Raise `LabelError`, naming the first row whose label (N, [P,] [C or D]) the kind does not know, and its position."""
    kind, classes = _KINDS[target.encoding.target], target.label_space.classes
    step = max(1, BLOCK * len(values) // max(1, values.size))
    for start in range(0, len(values), step):
        part = values[start : start + step]
        wrong = are_wrong(part, target.encoding.target, classes)
        if wrong.any():
            at = tuple(np.argwhere(wrong)[0].tolist())
            of_class = f" of class {at[-1]}" if target.encoding.target == "sigmoid" else ""
            place = f" at position {at[1]}" if part.ndim - bool(kind.axis) > 1 else ""
            label = "a hard label" if part[at].ndim else f"the hard label {part[at]}"
            raise LabelError(
                f"{target.titled}row {first_row + start + at[0]} has {label}{of_class}{place}, {kind.rule.format(classes)}",
                remedy=kind.remedy.format(classes, classes - 1),
            )
