"""`write_store`: a store of outputs that are at hand in memory, in one call.

R rows, P positions, M members, C classes (or numbers of a vector).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from softlabels.checks.probabilities import REMEDIES, looks, require_logits
from softlabels.errors import ClassMismatch, ConfigError, LogitsError, UserError, some
from softlabels.jobs.at_hand import Positions, array_of, by_target, outputs_of, positions_of, refuse_positions
from softlabels.jobs.plain_labels import MEMORY, checked_keys, labels_of, of_length
from softlabels.jobs.store_outputs import Given, Whole, split_of, store_outputs
from softlabels.jobs.watch import Watch
from softlabels.labels.encoding import DenseEncoding, Encoding, SigmoidEncoding, ValuesEncoding
from softlabels.labels.targets import Target
from softlabels.store.new_spec import prepared_by, store_spec
from softlabels.store.reader import Store, open_store
from softlabels.store.spec import About, MemberSpec, TeacherSpec
from softlabels.system.files import Folder
from softlabels.system.places import Named, folder_of
from softlabels.transfer.keys import array_keys

Outputs = ArrayLike | Sequence[ArrayLike]  # an array, or rows of different length
_ENCODINGS: dict[str, Encoding] = {"softmax": DenseEncoding(), "sigmoid": SigmoidEncoding(), "values": ValuesEncoding()}
_log = logging.getLogger(__name__)


class _One(NamedTuple):
    """What is given of a target."""

    logits: Any
    labels: Any
    kind: Target
    classes: Sequence[str] | None


def write_store(
    path: Named | Folder, logits: Outputs | Mapping[str, Outputs], *,
    inputs: ArrayLike | None = None, keys: ArrayLike | None = None, labels: Any = None,
    mask: Outputs | None = None, positions: int | None = None, kind: Target | Mapping[str, Target] = "softmax",
    layout: str = "zarr", compression: str | None = None, rows_per_shard: int | None = None,
    classes: Sequence[str] | Mapping[str, Sequence[str]] | None = None, teacher: TeacherSpec | str = "imported",
    split: str | None = None, are_logits: bool = False,
) -> Store:  # fmt: skip
    """Make a sealed store of a teacher's outputs, and open it.

    The same call resumes an interrupted one, and leaves a finished store as it is. Findings on the rows (docs/checks.md) are
    logged as warnings.

    Args:
        path: the folder of one split, or its address (docs/places.md). The folder above it names the transfer set.
        logits: (R, M, C), or (R, C) for one model, float16 to float64; -inf for an impossible class. With positions (R, P, M,
            C) or (R, P, C), or a list of R arrays of different length (layout "arrow" keeps the lengths). For several targets a
            mapping by name.
        inputs: (R, ...) integers or floats, the students' inputs; the store keeps them, for `EmbeddedRows`.
        keys: (R, 16) uint8, content keys; `array_keys(inputs)` by default. Without `inputs`, students bring their own.
        labels: (R,) integers, -1 or NaN for none, or names of `classes`; for sigmoid (R, C) 0 or 1, for values (R, C), NaN for
            none. With positions, one per row and position; with named targets, a mapping.
        mask: (R, P), 1 where a position counts; all by default. positions: P, for ragged rows the largest.
        kind: softmax, sigmoid or values; by name if they differ.
        layout, compression: "zarr" or "arrow"; None or "zstd" (zarr only).
        rows_per_shard: the unit of commit, a multiple of 16; chosen by default.
        classes: C names in order.
        teacher: its name, for members of equal weight; or its members, their weights and the precision of their arithmetic.
        split: by default the folder's name, if that is train, test or the like.
        are_logits: they are logits even if they look like probabilities, which are otherwise refused.

    Raises:
        UserError: arguments that do not fit together; neither inputs nor keys. ConfigError: the split is unknown.
        LogitsError: probabilities, NaN, +inf, no possible class. LabelError: a label outside the classes.
        ContradictingOutputs, OtherClassOrder: different outputs for one key; classes numbered unlike the labels.
        SpecMismatch: the folder holds a store of other rows, outputs or settings. DiskFull, StorageError: call again to resume.

    Example:
        >>> store = write_store("stores/mine/train", logits, inputs=inputs, labels=labels)
    """
    folder = folder_of(path)
    split, targets = split_of(folder, split), _targets(logits, labels, kind, classes)
    rows, named = _count(targets), not isinstance(teacher, str)
    kept = of_length(None if inputs is None else array_of(inputs, "inputs"), rows, MEMORY, "inputs")
    where = positions_of({name: one.logits for name, one in targets.items()}, mask, positions)
    found = {name: _given(name, one, where, named=named, are_logits=are_logits) for name, one in targets.items()}
    own = _keys(keys, kept, rows)
    spaces = {name: (_ENCODINGS[one.kind], _space(name, one, found[name])) for name, one in targets.items()}
    spec = store_spec(
        targets=spaces, teacher=_teacher(teacher, found),
        name=folder.above().name, split=split, keys=own, layout=layout,
        labelled=[name for name, given in found.items() if given.labels is not None],
        positions=None if where is None else where.most,
        ragged=layout == "arrow" and where is not None and where.lengths is not None,
        compression=compression or "none", rows_per_shard=rows_per_shard, embed=kept,
        preprocessing=None if kept is None else prepared_by("", {}, kept),
    )  # fmt: skip
    whole, watch = Whole(own, kept, found, None if where is None else where.mask), Watch(say=partial(_warn, folder))
    store_outputs(folder, spec, whole, about=About(source="arrays"), where=MEMORY, watch=watch)
    return open_store(path)


def _warn(path: Folder, line: str) -> None:
    _log.warning("%s: %s", path, line)


def _targets(logits: Any, labels: Any, kind: Any, classes: Any) -> dict[str, _One]:
    """What is given of each target, by name; "" of the one without. Raises `UserError` for names that are none."""
    each = logits if isinstance(logits, Mapping) else {"": logits}
    if not each or ("" in each and isinstance(logits, Mapping)):
        raise UserError("logits are a mapping without names of targets", remedy="name each, or give an array")
    kinds: dict[str, Any] = dict.fromkeys(each, kind) if isinstance(kind, str) else by_target(kind, each, "kind")
    own, spaces = by_target(labels, each, "labels"), by_target(classes, each, "classes")
    for wrong in (each for each in kinds.values() if each not in get_args(Target)):
        raise ConfigError(
            f"there is no kind {wrong!r} of targets", remedy=f"choose one of {', '.join(get_args(Target))}"
        )
    return {name: _One(z, own.get(name), kinds.get(name, "softmax"), spaces.get(name)) for name, z in each.items()}


def _given(name: str, one: _One, where: Positions | None, *, named: bool, are_logits: bool) -> Given:
    """The outputs (R, [P,] M, C) of a target and its hard labels. Raises `LogitsError` for probabilities, and `UserError`."""
    values = outputs_of(name, one.logits, where, one.kind)
    if where is None:
        refuse_positions(name, values, one.labels, one.kind, named=named)
    if not are_logits and one.kind in REMEDIES:
        found = looks(values, one.kind, None if where is None else where.mask)
        remedy = f"{REMEDIES[one.kind]}, or say are_logits=True"
        require_logits(found, target=one.kind, total=len(values), who=name, remedy=remedy)
    return Given(values, values, labels_of(name, one.labels, values.shape, where, one.kind, one.classes))


def _space(name: str, one: _One, given: Given) -> int | Sequence[str]:
    """The classes' names, or their number. Raises `ClassMismatch` where there are others."""
    count = given.logits.shape[-1]
    if isinstance(one.classes, str | int):
        raise UserError(f"classes={one.classes!r}", remedy="list the names of all classes, in order")
    if one.classes is not None and len(one.classes) != count:
        raise ClassMismatch(
            f"{name}{': ' * bool(name)}the logits have {count} classes and there are {len(one.classes)} names",
            remedy="name every class in order",
        )
    return count if one.classes is None else one.classes


def _count(targets: Mapping[str, _One]) -> int:
    """R. Raises `UserError` where targets have different rows."""
    counts: dict[str, int] = {}
    for name, one in targets.items():
        try:
            counts[name] = len(one.logits)
        except TypeError:  # a number, a generator
            counts[name] = 0
    if not all(counts.values()):
        shapes = [np.shape(one.logits) for one in targets.values()]
        raise LogitsError(f"logits of shape {some(shapes)} hold no rows", remedy="give floats, one a row and class")
    if len({*counts.values()}) > 1:
        raise UserError(f"targets have different rows: {counts}", remedy="give all targets of the same rows")
    return next(iter(counts.values()))


def _teacher(teacher: TeacherSpec | str, found: Mapping[str, Given]) -> TeacherSpec:
    """Who made the outputs. Raises `UserError` where it has other members."""
    counts = {name: given.logits.shape[-2] for name, given in found.items()}
    first = next(iter(found.values())).logits
    if len({*counts.values()}) > 1:
        raise UserError(f"targets have different members: {counts}", remedy="give the outputs of all members in each")
    members = first.shape[-2]
    if isinstance(teacher, str):
        return TeacherSpec(name=teacher, precision=first.dtype.name, members=(MemberSpec(model=teacher),) * members)
    if len(teacher.members) != members:
        raise UserError(
            f"the logits have {members} members and the teacher {len(teacher.members)}",
            remedy="give logits (rows, members, classes) of all its members",
        )
    return teacher


def _keys(keys: ArrayLike | None, kept: NDArray[np.generic] | None, rows: int) -> NDArray[np.uint8]:
    """Which row is which. Raises `UserError` where nobody says so."""
    if kept is None and keys is None:
        raise UserError("it is not known which rows these are", remedy="give inputs, or keys (array_keys makes them)")
    found = checked_keys(
        array_keys(kept) if keys is None and kept is not None else array_of(keys, "keys"), rows, MEMORY
    )
    assert found is not None
    return found
