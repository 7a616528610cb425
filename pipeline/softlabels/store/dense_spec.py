"""`store_spec`, and `dense_spec` for dense labels: the specification of a store from what its maker knows; sizes are chosen
where none are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from softlabels.errors import UserError
from softlabels.labels.encoding import DenseEncoding, Encoding, TopkEncoding
from softlabels.labels.topk import check_encoding
from softlabels.store.basis import Basis, basis_digest
from softlabels.store.columns import DTYPES, Column, input_column, store_columns
from softlabels.store.digest import blake3_hex, keys_digest
from softlabels.store.rules import check_spec
from softlabels.store.spec import (
    BLOCK_ROWS,
    Cut,
    LabelSpace,
    MemberSpec,
    Preprocessing,
    SequenceSpec,
    Spec,
    TeacherSpec,
    TransferSpec,
)

CHUNK_BYTES = 1 << 20
MAX_CHUNK_ROWS = 1024
CHUNKS_PER_SHARD = 16
SAMPLE_ROWS = 64

E = TypeVar("E", bound=Encoding)


def dense_spec(*, reduce: str = "none", **facts: Any) -> Spec:
    """The specification of a store of dense labels: `reduce` is "none" or "geometric", everything else as `store_spec` says."""
    return store_spec(DenseEncoding(reduce=reduce), **facts)  # type: ignore[arg-type]  # the word is checked there


def store_spec(
    encoding: Encoding,
    *,
    teacher: TeacherSpec | str,
    name: str,
    keys: NDArray[np.uint8],
    classes: int | Sequence[str],
    members: int = 1,
    split: str = "train",
    revision: str | None = None,
    key: str = "content",
    key_rule: int = 1,
    preprocessing: Preprocessing | None = None,
    layout: str = "zarr",
    compression: str = "none",
    basis: Basis | None = None,
    positions: int | None = None,
    vocabulary: str | None = None,
    ragged: bool = False,
    embed: NDArray[np.generic] | None = None,
    rows_per_shard: int | None = None,
    rows_per_chunk: int | None = None,
    teacher_batch: int = 0,
) -> Spec:
    """The specification of a store.

    Args:
        encoding: dense or topk; its `inputs` and `basis` are filled in here.
        teacher: who produced the logits; a plain name stands for `members` unnamed models of equal weight.
        name: of the transfer set. split, revision: which part and version of it.
        keys: (R, 16) content keys of its rows, in order. key: how they are made: "content" or a column's name,
            by which version of the rule (`softlabels.transfer.keys`).
        classes: their number, or their names in order. layout: "zarr" or "arrow". compression: "none" or "zstd" (zarr).
        basis: (1 + r, C) float16, the prior and basis of lowrank and prior tails.
        positions: P of sequence rows, with `ragged` the most of a row; `vocabulary`: digest of their tokenizer's vocabulary.
        embed: (R, ...) prepared inputs, to be kept in the store.
        rows_per_shard, rows_per_chunk: unit of work, unit of reading (a multiple of 16).
        teacher_batch: rows a teacher batch; 0 where outputs come from elsewhere.

    Raises `UserError` where values do not go together.
    """
    teacher = _teacher(teacher, members)
    space = _label_space(classes, vocabulary)
    stored = 1 if encoding.reduce == "geometric" else len(teacher.members)
    encoding = _filled_in(encoding, stored, basis, "reference" if embed is None else "embed")
    sequence = UNSET if positions is None else SequenceSpec(positions=positions, ragged=ragged)
    columns = _columns(encoding, space.classes, stored, sequence, None if embed is None else _input_column(embed))
    spec = Spec(
        teacher=teacher,
        transfer_set=_transfer_set(name, split, revision, keys, key, key_rule),
        label_space=space,
        preprocessing=preprocessing or Preprocessing(function=""),
        encoding=encoding,
        sequence=sequence,
        layout=layout,  # type: ignore[arg-type]  # these words are checked below, by decoding the specification
        compression=compression,  # type: ignore[arg-type]
        cut=_cut(columns, len(keys), rows_per_shard, rows_per_chunk, teacher_batch),
        columns=columns,
    )
    return check_spec(spec, error=UserError)


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
    spec: Spec, encoding: TopkEncoding, *, basis: Basis | None, layout: str, compression: str = "none"
) -> Spec:
    """The specification of a store that holds the labels of `spec` in another encoding, cut anew, as its rows take other room.

    Raises:
        UserError: values that do not go together.
    """
    encoding = _filled_in(encoding, spec.stored_members, basis, spec.encoding.inputs)
    inputs = next((column for column in spec.columns if column.name == "input"), None)
    columns = _columns(encoding, spec.label_space.classes, spec.stored_members, spec.sequence, inputs)
    cut = _cut(columns, spec.rows, None, None, spec.cut.teacher_batch)
    changed: dict[str, Any] = {"layout": layout, "compression": compression, "cut": cut, "columns": columns}
    return check_spec(msgspec.structs.replace(spec, encoding=encoding, **changed), error=UserError)


def _columns(
    encoding: Encoding, classes: int, members: int, sequence: SequenceSpec | UnsetType, inputs: Column | None
) -> tuple[Column, ...]:
    shape = (None, False) if sequence is UNSET else (sequence.positions, sequence.ragged)
    return store_columns(encoding, classes=classes, members=members, positions=shape[0], ragged=shape[1], inputs=inputs)


def _teacher(teacher: TeacherSpec | str, members: int) -> TeacherSpec:
    if isinstance(teacher, TeacherSpec):
        return teacher
    return TeacherSpec(name=teacher, precision="", members=(MemberSpec(model=teacher),) * members)


def _label_space(classes: int | Sequence[str], vocabulary: str | None) -> LabelSpace:
    names = None if isinstance(classes, int) else tuple(classes)
    count = classes if isinstance(classes, int) else len(classes)
    return LabelSpace(classes=count, names=names, vocabulary=vocabulary or UNSET)


def _filled_in(encoding: E, members: int, basis: Basis | None, inputs: str) -> E:
    """An encoding with what follows from the rest: whether inputs are embedded, and which basis it needs."""
    if isinstance(encoding, TopkEncoding):
        check_encoding(encoding, members)
        encoding = msgspec.structs.replace(encoding, basis="" if basis is None else basis_digest(basis))
    return msgspec.structs.replace(encoding, inputs=inputs)


def prepared_by(function: str, arguments: dict[str, object], inputs: NDArray[np.generic]) -> Preprocessing:
    """How inputs (R, ...) were prepared, with the digest of their first rows."""
    return Preprocessing(
        function=function, arguments=arguments, sample=blake3_hex(np.ascontiguousarray(inputs[:SAMPLE_ROWS]).tobytes())
    )


def _cut(
    columns: tuple[Column, ...], count: int, rows_per_shard: int | None, rows_per_chunk: int | None, teacher_batch: int
) -> Cut:
    """Where sizes are not given, `_chunk_rows` and `CHUNKS_PER_SHARD` of them a shard."""
    chunk = rows_per_chunk or _chunk_rows(columns, count, rows_per_shard)
    return Cut(
        rows_per_shard=rows_per_shard or chunk * CHUNKS_PER_SHARD, rows_per_chunk=chunk, teacher_batch=teacher_batch
    )


def _chunk_rows(columns: tuple[Column, ...], count: int, rows_per_shard: int | None) -> int:
    """About `CHUNK_BYTES`, a power of two from 16 to 1,024 rows that divides the shard and is not twice the store."""
    rows = MAX_CHUNK_ROWS
    row_bytes = sum(column.row_bytes for column in columns)
    while rows > BLOCK_ROWS and (
        rows * row_bytes > CHUNK_BYTES or rows >= 2 * count or (rows_per_shard or rows) % rows != 0
    ):
        rows //= 2
    return rows


def _input_column(inputs: NDArray[np.generic]) -> Column:
    if inputs.dtype.name not in DTYPES:
        raise UserError(
            f"inputs of {inputs.dtype} cannot be embedded", remedy=f"prepare them as one of {', '.join(DTYPES)}"
        )
    return input_column(inputs)
