"""`store_spec`: the specification of a new store from what its maker knows; sizes are chosen where none are given."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from softlabels.errors import UserError, some
from softlabels.labels.encoding import DenseEncoding, Encoding
from softlabels.labels.targets import require_name
from softlabels.store.basis import Basis, basis_digest
from softlabels.store.columns import Column, input_column
from softlabels.store.digest import blake3_hex, keys_digest
from softlabels.store.rules import check_spec, spec_columns
from softlabels.store.rules import labelled as labelled_in
from softlabels.store.spec import (
    BLOCK_ROWS,
    Cut,
    LabelSpace,
    MemberSpec,
    Parent,
    PositionSpec,
    Preprocessing,
    SequenceSpec,
    Spec,
    TargetSpec,
    TeacherSpec,
    TransferSpec,
)

CHUNK_BYTES = 1 << 20
MAX_CHUNK_ROWS = 1024
CHUNKS_PER_SHARD = 16
SAMPLE_ROWS = 64
DENSE = DenseEncoding()
Targets = Mapping[str, tuple[Encoding, int | Sequence[str]]]  # of each target how it is kept, and its classes, by name


def store_spec(
    encoding: Encoding = DENSE, *, teacher: TeacherSpec | str, name: str, keys: NDArray[np.uint8],
    classes: int | Sequence[str] = (), targets: Targets | None = None, labelled: bool | Collection[str] = False,
    members: int = 1, split: str = "train", revision: str | None = None, key: str = "content", key_rule: int = 1,
    preprocessing: Preprocessing | None = None, layout: str = "zarr", compression: str = "none", basis: Basis | None = None,
    positions: int | None = None, vocabulary: str | None = None, ragged: bool = False,
    embed: NDArray[np.generic] | None = None, folds: int | None = None, parents: Sequence[Parent] = (),
    rows_per_shard: int | None = None, rows_per_chunk: int | None = None, teacher_batch: int = 0,
) -> Spec:  # fmt: skip
    """The specification of a store.

    Args:
        encoding: dense by default, or topk, sigmoid, values; its `inputs` and `basis` are filled in here.
        teacher: what produced the logits; a plain name means `members` unnamed models of equal weight.
        name: of the transfer set. split, revision: its part and version.
        keys: (R, 16) content keys of its rows, in order. key: how they are made: "content" or a column's name; the version of
            the rule (`softlabels.transfer.keys`).
        classes: their number, or their names in order; for values the length of a vector.
        targets: instead of `encoding` and `classes`: (encoding, classes) by name, "" for one without, such as `{"class":
            (DenseEncoding(), ("rbc", "wbc")), "box": (ValuesEncoding(), 4)}`.
        labelled: whether sigmoid and values targets have hard labels, or the names of those that do; others always do.
        layout: "zarr" or "arrow". compression: "none" or "zstd" (zarr).
        basis: (1 + r, C) float16, the prior and basis of lowrank and prior tails.
        positions: P, the positions of a row, with `ragged` the largest number. With `vocabulary`, the digest of a tokenizer's
            vocabulary, they are tokens.
        embed: (R, ...) prepared inputs, to keep in the store.
        folds: how many folds of the teacher labelled the rows. parents: the stores that this one is made from.
        rows_per_shard, rows_per_chunk: unit of work, unit of reading (a multiple of 16).
        teacher_batch: rows per teacher batch; 0 if outputs come from elsewhere.

    Raises `UserError` if values do not fit together.

    Example:
        >>> store_spec(teacher="mine", name="noise", keys=array_keys(inputs), classes=5, members=3).rows
        200
    """
    teacher = _teacher(teacher, members)
    each = {"": (encoding, classes)} if targets is None else targets
    if not each:
        raise UserError("a store needs a target", remedy="name one, or leave out targets")
    for one in each if [*each] != [""] else ():
        require_name(one)
    inputs = "reference" if embed is None else "embed"
    made = tuple(_target(one, *each[one], len(teacher.members), basis, vocabulary, inputs) for one in each)
    spec = Spec(
        teacher=teacher,
        transfer_set=_transfer_set(name, split, revision, keys, key, key_rule),
        several=made,
        preprocessing=preprocessing or Preprocessing(function=""),
        layout=layout,  # type: ignore[arg-type]  # these words are checked below, by decoding the specification
        compression=compression,  # type: ignore[arg-type]
        cut=Cut(rows_per_shard=0, rows_per_chunk=0, teacher_batch=teacher_batch),
        columns=(),
        folds=UNSET if folds is None else folds,
        parents=tuple(parents) or UNSET,
        **_positions(positions, vocabulary, ragged),
    ).with_targets(made)
    names = _labelled(each, labelled)
    return _cut(spec, None if embed is None else input_column(embed), names, rows_per_shard, rows_per_chunk)


def _positions(positions: int | None, vocabulary: str | None, ragged: bool) -> dict[str, Any]:
    """The fields that say what positions rows have."""
    if positions is None:
        return {}
    if vocabulary is None:
        return {"row_positions": PositionSpec(most=positions, ragged=ragged)}
    return {"sequence": SequenceSpec(positions=positions, ragged=ragged)}


def _labelled(targets: Collection[str], labelled: bool | Collection[str]) -> Collection[str]:
    """The names of the targets that are to have hard labels. Raises `UserError` for one that is none."""
    names = (targets if labelled else ()) if isinstance(labelled, bool) else labelled
    if strangers := sorted({*names} - {*targets}):
        raise UserError(f"there is no target {some(strangers)}", remedy=f"name some of {some(targets)}")
    return names


def _target(
    name: str,
    encoding: Encoding,
    classes: int | Sequence[str],
    members: int,
    basis: Basis | None,
    vocabulary: str | None,
    inputs: str,
) -> TargetSpec:
    space = _label_space(classes, vocabulary if encoding.target == "softmax" else None)
    own = None if encoding.basis_rank is None else basis
    return TargetSpec(name=name, label_space=space, encoding=_filled_in(encoding, members, own, inputs))


def _transfer_set(
    name: str, split: str, revision: str | None, keys: NDArray[np.uint8], key: str, key_rule: int
) -> TransferSpec:
    return TransferSpec(
        name=name,
        split=split,
        rows=len(keys),
        content_keys=keys_digest(keys),
        revision=revision,
        key=key,
        key_rule=UNSET if key_rule == 1 else key_rule,  # type: ignore[arg-type]  # checked with the whole
    )


def encoded_as(
    spec: Spec, encoding: Encoding, *, target: str = "", basis: Basis | None, layout: str, compression: str = "none"
) -> Spec:
    """The specification of a store that holds the labels of `spec`, those of a target in another encoding. Of one target it is
    cut anew, as its rows take other room; of several as before, since the others are copied, shard by shard.

    Raises:
        UserError: values that do not go together.
    """
    members = len(spec.teacher.members)
    encoding = _filled_in(encoding, 1 if encoding.is_reduced else members, basis, spec.inputs)
    inputs = next((column for column in spec.columns if column.name == "input"), None)
    changed: dict[str, Any] = {"layout": layout, "compression": compression}
    each = (msgspec.structs.replace(one, encoding=encoding) if one.name == target else one for one in spec.targets)
    other = spec.with_targets(tuple(each))
    shard, chunk = (spec.cut.rows_per_shard, spec.cut.rows_per_chunk) if target else (None, None)
    return _cut(msgspec.structs.replace(other, **changed), inputs, labelled_in(spec), shard, chunk)


def _teacher(teacher: TeacherSpec | str, members: int) -> TeacherSpec:
    if isinstance(teacher, TeacherSpec):
        return teacher
    return TeacherSpec(name=teacher, precision="", members=(MemberSpec(model=teacher),) * members)


def _label_space(classes: int | Sequence[str], vocabulary: str | None) -> LabelSpace:
    names = None if isinstance(classes, int) else tuple(classes)
    if names is not None and len({*names}) < len(names):
        raise UserError("class names repeat in classes", remedy="give every class a name of its own")
    count = classes if isinstance(classes, int) else len(classes)
    return LabelSpace(classes=count, names=names, vocabulary=vocabulary or UNSET)


def _filled_in(encoding: Encoding, members: int, basis: Basis | None, inputs: str) -> Encoding:
    """An encoding with what follows from the rest: whether inputs are embedded, and which basis it needs."""
    encoding.check(1 if encoding.is_reduced else members)
    filled = encoding.with_basis("" if basis is None else basis_digest(basis))
    return msgspec.structs.replace(filled, inputs=inputs)


def prepared_by(function: str, arguments: dict[str, object], inputs: NDArray[np.generic]) -> Preprocessing:
    """How inputs (R, ...) were prepared, with the digest of their first rows."""
    return Preprocessing(
        function=function, arguments=arguments, sample=blake3_hex(np.ascontiguousarray(inputs[:SAMPLE_ROWS]).tobytes())
    )


def _cut(
    spec: Spec,
    inputs: Column | None,
    labelled: Collection[str],
    rows_per_shard: int | None,
    rows_per_chunk: int | None,
) -> Spec:
    """The specification with its columns, cut into chunks and shards: where sizes are not given, `_chunk_rows` and
    `CHUNKS_PER_SHARD` of them a shard. Raises `UserError` where it breaks a rule.
    """
    columns = spec_columns(spec, inputs, labelled)
    chunk = rows_per_chunk or _chunk_rows(columns, spec.rows, rows_per_shard)
    shard = rows_per_shard or chunk * CHUNKS_PER_SHARD
    cut = Cut(rows_per_shard=shard, rows_per_chunk=chunk, teacher_batch=spec.cut.teacher_batch)
    return check_spec(msgspec.structs.replace(spec, columns=columns, cut=cut), error=UserError)


def _chunk_rows(columns: tuple[Column, ...], count: int, rows_per_shard: int | None) -> int:
    """About `CHUNK_BYTES`, a power of two from 16 to 1,024 rows that divides the shard and is not twice the store."""
    rows = MAX_CHUNK_ROWS
    row_bytes = sum(column.row_bytes for column in columns)
    while rows > BLOCK_ROWS and (
        rows * row_bytes > CHUNK_BYTES or rows >= 2 * count or (rows_per_shard or rows) % rows != 0
    ):
        rows //= 2
    return rows
