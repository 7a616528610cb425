"""A student's own hard labels of a target: whether they are of its kind and its positions, and whether each can be true. Those
of a store's own rows were checked when they were written.

R rows of the transfer set, N selected items, P positions, C classes, D values.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import ClassMismatch, LabelError, some
from softlabels.labels import NO_LABEL
from softlabels.labels.hard import are_labelled, are_wrong, kind_of, no_labels
from softlabels.labels.stored import BLOCK
from softlabels.labels.targets import Target, titled
from softlabels.store.gather import Array
from softlabels.store.hard_labels import label_column

if TYPE_CHECKING:
    from softlabels.store import Store
    from softlabels.transfer import TransferRows

Ints = NDArray[np.int64]
_HOW: dict[Target, str] = {
    "softmax": "label_as: class (a class a row or position)",
    "sigmoid": "label_as: set or flags (0, 1 or null for each class)",
    "values": "label_as: values (a list of numbers)",
}


def own_labels(rows: TransferRows, store: Store) -> Array:
    """The hard labels (R, ...) of a transfer set's rows for the one target of `store` (of several, see `Store.only`); none for
    every row where the transfer set has none of it.

    Raises:
        ClassMismatch: they are of another kind, of other positions, or of another number of classes or values.
    """
    kind, column = store.encoding.target, label_column(store.spec, store.spec.target)
    given, shape = rows.hard.get(store.name), (len(rows.keys), *column.shape)
    if given is None or (given.shape != shape and given.dtype.kind == "i" and bool((given == NO_LABEL).all())):
        return no_labels(kind, shape)
    if given.shape == shape and (given.dtype.kind == "f") == (kind == "values"):
        return given
    remedy = f"give the store's transfer set: {_HOW[kind]} in transfer_set"
    raise ClassMismatch(
        f"{titled(store.name)}the hard labels of {rows.name} are {given.dtype} of shape {list(given.shape)}, and of the {kind} "
        f"labels in {store.path} they are {column.dtype} of shape {list(shape)}",
        remedy=remedy if store.positions is None else f"{remedy}, with positions: {store.positions}",
    )


def require_names(rows: TransferRows, targets: Collection[str], where: str) -> None:
    """Raise `ClassMismatch` where a transfer set names hard labels of a target that the store lacks, or has some without a name
    where its targets have names.
    """
    some_label = {
        name: are_labelled(labels, kind_of(labels, rows.positions)).any() for name, labels in rows.hard.items()
    }
    strangers = [name for name, has_some in some_label.items() if name not in targets and has_some]
    if not strangers:
        return
    if strangers == [""]:
        what = f"the hard labels of {rows.name} are of no target by name, and {where} holds {some(targets)}"
        remedy = f"write transfer_set.label: {{{next(iter(targets))}: COLUMN}}, or null where there are none"
    else:
        holds = some(targets) if "" not in targets else "one target without a name"
        what = f"{rows.name} has hard labels of {some(strangers)}, and {where} holds {holds}"
        remedy = "name the store's targets in transfer_set.label, and leave others out"
    raise ClassMismatch(what, remedy=remedy)


def check_labels(labels: Array, items: Ints, kind: Target, *, classes: int | None, name: str) -> None:
    """Raise `LabelError` on the first hard label of the rows `items` (N,) that cannot be true: no class and not -1, no flag, or
    a vector that is infinite or NaN in a part.
    """
    if not any(labels.strides):  # `no_labels`
        return
    step = max(1, BLOCK * len(labels) // max(1, labels.size))
    first, count = None, 0
    for start in range(0, len(items), step):
        part = labels[items[start : start + step]]
        wrong = are_wrong(part, kind, classes)
        if first is None and wrong.any():
            at = tuple(np.argwhere(wrong)[0].tolist())
            first = items[start + at[0]], at[1:], part[at]
        count += int(wrong.sum())
    if first is None:
        return
    row, place, found = first
    remedy = "check `label` and `classes` of the transfer set, or use a store of this label space"
    if kind == "softmax":
        at_position = f" at position {place[0]}" if place else ""
        what = f"the hard label {found}{at_position} ({count} {'labels' if place else 'rows'} are like it)"
        rule = f"but labels run from 0{'' if classes is None else f' to {classes - 1}'}, -1 being none"
    elif kind == "sigmoid":
        at_position = f" at position {place[0]}" if len(place) > 1 else ""
        what, rule = f"the flag {found} of class {place[-1]}{at_position}", "but flags are 0, 1 or -1 (unknown)"
    else:
        at_position = f" at position {place[0]}" if place else ""
        rule = "but a vector is finite, or NaN throughout where there is none"
        what, remedy = f"the hard label {found.tolist()}{at_position}", "correct the label column of the transfer set"
    raise LabelError(f"row {row} of {name} has {what}, {rule}", remedy=remedy)
