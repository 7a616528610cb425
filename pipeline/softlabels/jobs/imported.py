"""Which rows the outputs of a file are of: those that stand in the file, or those of a transfer set, in the same order; and the
specification of their store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from msgspec import UNSET
from numpy.typing import NDArray

from softlabels.errors import ClassMismatch, TransferSetError
from softlabels.jobs.outputs import Outputs
from softlabels.jobs.reading import Reading
from softlabels.jobs.store_outputs import Given, Whole
from softlabels.labels import NO_LABEL
from softlabels.store.new_spec import prepared_by, store_spec
from softlabels.store.spec import MemberSpec, Preprocessing, Spec, TeacherSpec
from softlabels.teacher.assign import assigned, names_of
from softlabels.teacher.expected import hard_of, mask_of
from softlabels.transfer import TransferRows, array_keys
from softlabels.transfer.class_names import Names
from softlabels.transfer.keys import KEY_RULE, SALTED_RULE, id_keys, salted_keys

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Imported:
    """The rows of an import.

    Attributes:
        facts: what a specification says of them: name, keys, key, key_rule, preprocessing.
        hard: hard labels by target, as a store has them. names: class names by target.
        inputs: (R, ...), where they are known. source: where they come from.
        mask: (R, P) of rows of positions; ragged: whether they have different numbers of positions.
    """

    facts: dict[str, Any]
    hard: Mapping[str, Array]
    names: Mapping[str, Names | None]
    inputs: Array | None
    source: str
    mask: NDArray[np.uint8] | None
    ragged: bool

    def whole(self, outputs: Outputs, embed: Array | None) -> Whole:
        """All that is stored of the rows, with these inputs."""
        targets = {
            name: Given(given.logits, given.values, self.hard.get(name)) for name, given in outputs.targets.items()
        }
        return Whole(self.facts["keys"], embed, targets, self.mask)


def rows_of_file(outputs: Outputs, how: Reading, path: Path, salt: bytes | None) -> Imported:
    """By their ids, keys or inputs."""
    keys, key = outputs.keys, "content"
    if outputs.ids is not None:
        key = str(how.key)
        keys = id_keys(pa.chunked_array([pa.array(outputs.ids.tolist())]), name=key, start=0)
    elif keys is None and outputs.inputs is not None:
        keys = array_keys(outputs.inputs)
    assert keys is not None  # whoever calls has asked
    rule = KEY_RULE
    if salt is not None and outputs.keys is None:  # keys that the file holds are what its maker made them
        keys, rule = salted_keys(keys, salt), SALTED_RULE
    inputs = (
        None if outputs.inputs is None or outputs.inputs.dtype.kind not in "biuf" else outputs.inputs
    )  # text is a key
    made = Preprocessing(function="") if inputs is None else prepared_by("", {}, inputs)
    facts = {"name": path.stem, "keys": keys, "key": key, "preprocessing": made, "key_rule": rule}
    where, hard = outputs.positions, {name: _labels(outputs, name, None, how) for name in outputs.targets}
    return Imported(
        facts, {name: labels for name, labels in hard.items() if labels is not None},
        {name: each.classes for name, each in how.wanted.items()}, inputs, str(path),
        None if where is None else where.mask, where is not None and where.lengths is not None,
    )  # fmt: skip


def rows_of_set(outputs: Outputs, how: Reading, path: Path, rows: TransferRows, where: str) -> Imported:
    """Those of a transfer set, which messages call `where`.

    Raises:
        TransferSetError: another number of rows or positions, or other hard labels.
        ConfigError: hard labels that no target has.
    """
    count, kinds = outputs.rows, {name: each.kind for name, each in how.wanted.items()}
    if len(rows.keys) != count:
        raise TransferSetError(
            f"{path} has {count} rows of outputs and the {rows.split} split of {rows.name} {len(rows.keys)}",
            remedy="add an array inputs (or keys) to the file, or name the recipe that was labelled with --config",
        )
    listed = {name: each.classes for name, each in how.wanted.items() if name and each.classes is not None}
    rows = assigned(rows, kinds, listed)
    own = hard_of(rows, kinds)
    hard = {name: _labels(outputs, name, own.get(name), how) for name in kinds}
    for name, labels in hard.items():
        _require_same_labels(name, labels, own.get(name), path, where)
    how_prepared = prepared_by(rows.prepare.class_path, rows.prepare.init_args, rows.inputs)
    facts = {"name": rows.name, "keys": rows.keys, "key": rows.key, "key_rule": rows.key_rule}
    return Imported(
        facts | {"preprocessing": how_prepared}, {name: labels for name, labels in hard.items() if labels is not None},
        {name: how.wanted[name].classes or names_of(rows, name) for name in kinds}, rows.inputs, rows.source,
        _mask(outputs, rows, path, where), rows.ragged,
    )  # fmt: skip


def imported_spec(
    rows: Imported, outputs: Outputs, how: Reading, *, split: str, teacher: str, precision: str | None, embed: Array | None,
    layout: Literal["zarr", "arrow"],
) -> Spec:  # fmt: skip
    """What decides the bytes of the store. Raises `ClassMismatch` where classes have another number of names."""
    given, spaces = outputs.first, dict[str, Any]()
    weights = how.weights or (1.0,) * given.logits.shape[-2]
    for name, each in outputs.targets.items():
        count, names = each.logits.shape[-1], rows.names.get(name)
        if names is not None and len(names) != count:
            one, flag = (f"target {name}: ", f"--targets.{name}.classes=[a,b]") if name else ("", "--classes=a,b,...")
            raise ClassMismatch(
                f"{one}the outputs have {count} classes and there are {len(names)} class names",
                remedy=f"name every class in order with {flag}",
            )
        spaces[name] = (how.wanted[name].made(len(weights)), count if names is None else names)
    return store_spec(
        targets=spaces,
        **rows.facts,
        teacher=TeacherSpec(
            name=teacher,
            precision=precision or given.values.dtype.name,  # of probabilities their logarithm is made in float64
            members=tuple(MemberSpec(model=teacher, weight=weight) for weight in weights),
            floor=UNSET if outputs.floor is None else outputs.floor,
        ),
        split=split,
        layout=layout,
        embed=embed,
        labelled=rows.hard.keys(),
        positions=None if rows.mask is None else rows.mask.shape[1],
        ragged=rows.ragged and layout == "arrow",
    )


def _labels(outputs: Outputs, name: str, own: Array | None, how: Reading) -> Array | None:
    """The file's hard labels, else those of the transfer set; a softmax without any has -1."""
    given = outputs.targets[name]
    found = own if given.labels is None else given.labels
    if found is None and how.wanted[name].kind == "softmax":
        return np.full(given.logits.shape[:-2], NO_LABEL, np.int64)
    return found


def _require_same_labels(name: str, labels: Array | None, own: Array | None, path: Path, where: str) -> None:
    """Raise `TransferSetError` where both have hard labels, and others."""
    if labels is None or own is None or labels is own:
        return
    if labels.shape != own.shape:
        raise TransferSetError(
            f"the hard labels in {path} have the shape {labels.shape} and those of {where} {own.shape}",
            remedy="leave out the labels of the file",
        )
    known = np.isfinite(labels) & np.isfinite(own) if labels.dtype.kind == "f" else (labels >= 0) & (own >= 0)  # type: ignore[operator]  # integers
    other = int(((labels != own) & known).reshape(len(labels), -1).any(axis=1).sum())
    if other:
        raise TransferSetError(
            f"{f'target {name}: ' * bool(name)}{other} of {len(labels)} rows of {path} have another hard label than those of "
            f"{where}, and nothing but their order says which row is which",
            remedy="add an array inputs (or keys) to the file, or ids (--key); if the order is right, leave out its labels",
        )


def _mask(outputs: Outputs, rows: TransferRows, path: Path, where: str) -> NDArray[np.uint8] | None:
    """Which positions count. Raises `TransferSetError` where the rows have others than the outputs."""
    given = None if outputs.positions is None else outputs.positions.mask
    ours, theirs = rows.positions, None if given is None else given.shape[1]
    if ours != theirs:
        raise TransferSetError(
            f"the outputs in {path} have {theirs or 'no'} positions a row and {where} {ours or 'none'}",
            remedy="say transfer_set.positions, and give outputs (rows, positions, classes)",
        )
    if given is None:
        return None
    own = np.asarray(mask_of(rows))
    if outputs.has_mask and (given != own).any():
        row = int((given != own).any(axis=1).argmax())
        raise TransferSetError(
            f"row {row} has {int(given[row].sum())} positions that count in {path} and {int(own[row].sum())} in {where}",
            remedy="leave out the mask (or lengths) of the file, or name the recipe that was labelled",
        )
    return own
