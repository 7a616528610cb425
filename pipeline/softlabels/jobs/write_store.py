"""`write_store`: a store of logits that are at hand in memory, in one call. R rows, M members, C classes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from softlabels.checks.probabilities import REMEDY, are_probabilities, require_logits
from softlabels.errors import ClassMismatch, LogitsError, UserError
from softlabels.jobs.outputs import Outputs, checked_keys, hard_labels, of_length
from softlabels.jobs.store_outputs import split_of, store_outputs
from softlabels.jobs.watch import Watch
from softlabels.labels import NO_LABEL
from softlabels.store.new_spec import prepared_by, store_spec
from softlabels.store.reader import Store, open_store
from softlabels.store.spec import About, MemberSpec, TeacherSpec
from softlabels.transfer.keys import array_keys

_WHERE = "memory"  # in messages, where an import names its file
_log = logging.getLogger(__name__)


def write_store(
    path: str | Path,
    logits: ArrayLike,
    *,
    inputs: ArrayLike | None = None,
    keys: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    layout: str = "zarr",
    compression: str | None = None,
    rows_per_shard: int | None = None,
    classes: Sequence[str] | None = None,
    teacher: TeacherSpec | str = "imported",
    split: str | None = None,
    are_logits: bool = False,
) -> Store:
    """Make a sealed store of a teacher's logits, and open it: `write_store("stores/noise/train", logits, inputs=x, labels=y)`.

    The same call goes on where one was interrupted, and leaves a finished store as it is. What there is to say of the rows
    (docs/checks.md) is logged as a warning.

    Args:
        path: the folder of one split. The folder above it gives the transfer set its name.
        logits: (R, M, C), or (R, C) of one model, float16 to float64; -inf for an impossible class.
        inputs: (R, ...) integers or floats that students are given; the store keeps them, for `EmbeddedRows`.
        keys: (R, 16) uint8, which row is which; `array_keys(inputs)` by default. Alone where students bring their own inputs.
        labels: (R,) whole numbers, -1 or NaN for none, or names of `classes`.
        layout, compression: "zarr" or "arrow"; None or "zstd" (zarr only).
        rows_per_shard: the unit of commit, a multiple of 16; chosen by default.
        classes: C names in order.
        teacher: its name, of members that count alike; or who they are, their weights and the precision of their arithmetic.
        split: by default the folder's name, where that is train, test or the like.
        are_logits: they are, even where they look like probabilities, which are refused else.

    Raises:
        UserError: what does not fit together; neither inputs nor keys. ConfigError: nobody says the split.
        LogitsError: probabilities, NaN, +inf, no possible class. LabelError: a label that is no class.
        ContradictingOutputs, OtherClassOrder: rows of one key with other outputs, classes in another order than the labels.
        SpecMismatch: the folder holds a store of other rows, outputs or settings. DiskFull, StorageError: call again.
    """
    split, values = split_of(path, split), _by_member(np.asarray(logits), are_logits)
    names, kept, found, own = _fitting(values, classes, inputs, keys, labels)
    spec = store_spec(
        teacher=_teacher(teacher, values),
        name=Path(path).absolute().parent.name, split=split, keys=found, classes=names, layout=layout,
        compression=compression or "none", rows_per_shard=rows_per_shard, embed=kept,
        preprocessing=None if kept is None else prepared_by("", {}, kept),
    )  # fmt: skip
    outputs, watch = (
        Outputs(values, values, own, kept, found),
        Watch(say=lambda line: _log.warning("%s: %s", path, line)),
    )
    store_outputs(path, spec, outputs, about=About(source="arrays"), where=_WHERE, watch=watch)
    return open_store(path)


def _by_member(values: NDArray[Any], are_logits: bool) -> NDArray[np.floating]:
    """(R, M, C) of (R, C) or (R, M, C). Raises `LogitsError` for another shape or dtype, and for probabilities."""
    if values.ndim not in (2, 3) or values.dtype.kind != "f" or not values.size:
        raise LogitsError(
            f"logits are {values.dtype} of shape {values.shape}",
            remedy="give floats of shape (rows, classes) or (rows, members, classes)",
        )
    values = values[:, None] if values.ndim == 2 else values
    if not are_logits:
        require_logits(are_probabilities(values), total=len(values), remedy=f"{REMEDY}, or say are_logits=True")
    return values


def _teacher(teacher: TeacherSpec | str, values: NDArray[np.floating]) -> TeacherSpec:
    """Who made (R, M, C). Raises `UserError` where it has other members."""
    members = values.shape[1]
    if isinstance(teacher, str):
        return TeacherSpec(name=teacher, precision=values.dtype.name, members=(MemberSpec(model=teacher),) * members)
    if len(teacher.members) != members:
        raise UserError(
            f"the logits have {members} members and the teacher {len(teacher.members)}",
            remedy="give logits (rows, members, classes) of all its members",
        )
    return teacher


def _fitting(
    values: NDArray[np.floating],
    classes: Sequence[str] | None,
    inputs: ArrayLike | None,
    keys: ArrayLike | None,
    labels: ArrayLike | None,
) -> tuple[int | Sequence[str], NDArray[np.generic] | None, NDArray[np.uint8], NDArray[np.int64]]:
    """Classes, inputs, keys and labels of the rows of (R, M, C). Raises `UserError` where they do not fit."""
    rows, _, count = values.shape
    if classes is not None and len(classes) != count:
        raise ClassMismatch(
            f"the logits have {count} classes and there are {len(classes)} names", remedy="name every class in order"
        )
    kept = of_length(None if inputs is None else np.asarray(inputs), rows, _WHERE, "inputs")
    if kept is None and keys is None:
        raise UserError("nobody says which rows these are", remedy="give inputs, or keys (array_keys makes them)")
    found = checked_keys(np.asarray(keys) if kept is None or keys is not None else array_keys(kept), rows, _WHERE)
    own = hard_labels(None if labels is None else np.asarray(labels), rows, _WHERE, classes)
    assert found is not None
    return count if classes is None else classes, kept, found, np.full(rows, NO_LABEL) if own is None else own
