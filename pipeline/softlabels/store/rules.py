"""What a specification must satisfy beyond the types of its fields: rules between fields, and limits on the sizes that follow
from them. docs/format.md lists them; whatever breaks one is refused before anything is allocated or written by it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from msgspec import UNSET

from softlabels.errors import DamagedManifest, UserError
from softlabels.labels.base import Rule
from softlabels.store.columns import KEY_BYTES, POSITION, Column
from softlabels.store.json_files import RESTORE, decode_json, encode_json
from softlabels.store.spec import FORMAT, MAX_CHUNK_BYTES, Spec, Version, fields_of_3

MAX_SHARDS = 1 << 17
MAX_SHARD_ROWS = 1 << 23
MAX_SHARD_CHUNKS = 1 << 16
MAX_SPEC_BYTES = 1 << 23
MAX_DEPTH = 64  # of the arguments of preprocessing: whoever walks through them calls itself


def check_spec(
    spec: Spec, *, version: Version = FORMAT, error: type[UserError] | type[DamagedManifest] = DamagedManifest
) -> Spec:
    """`spec` as it is read back from JSON. Raises `error` where a field has the wrong type or exceeds its limits, or where
    fields that are well-formed one by one contradict each other, or are not of that version of the format.
    """
    remedy = RESTORE
    if error is not DamagedManifest:
        remedy = "change the recipe's `labels` section, or what the store is made from"
    try:  # classes built in Python are not checked by msgspec until they are decoded
        data = encode_json(spec)
        spec = decode_json(data, Spec, "the specification")
    except (DamagedManifest, TypeError) as fault:
        raise error(getattr(fault, "what", str(fault)), remedy=remedy) from fault
    for wrong, what in _rules(spec, len(data), version):
        if wrong:
            raise error(what, remedy=remedy)
    return spec


def _rules(spec: Spec, size: int, version: Version) -> Iterator[Rule]:
    """Every rule; a later one may rely on those before it."""
    space = spec.label_space
    yield size > MAX_SPEC_BYTES, f"a specification of {size} bytes exceeds {MAX_SPEC_BYTES}"
    yield (
        space.names is not None and len(space.names) != space.classes,
        f"{space.classes} classes have {len(space.names or ())} names",
    )
    yield (
        _deeper(spec.preprocessing.arguments, MAX_DEPTH),
        f"preprocessing.arguments are nested more than {MAX_DEPTH} deep",
    )
    weight = sum(member.weight for member in spec.teacher.members)
    yield not 0 < weight < math.inf, f"the members' weights add up to {weight}"
    yield (
        version == 1 and (spec.encoding.first_format > 1 or spec.sequence is not UNSET),
        "format 1 holds neither topk labels nor sequences",
    )
    later = fields_of_3(spec)
    yield version < 3 and bool(later), f"format {version} has no {' and no '.join(later)}"
    yield from spec.encoding.rules(spec.stored_members, space.classes)
    yield (
        (space.vocabulary is UNSET) != (spec.sequence is UNSET),
        "label_space.vocabulary and sequence go together: the classes of a sequence's positions are a tokenizer's tokens",
    )
    yield spec.ragged and spec.layout != "arrow", "ragged rows need layout: arrow (Zarr holds regular arrays)"
    yield from _column_rules(spec)
    yield from _cut_rules(spec)


def _deeper(values: Any, most: int) -> bool:
    """Whether JSON values are nested more than `most` deep."""
    level = [values]
    for _ in range(most):
        inner = (value.values() if isinstance(value, dict) else value for value in level)
        level = [each for values in inner for each in values if isinstance(each, dict | list | tuple)]
        if not level:
            return False
    return True


def spec_columns(spec: Spec, inputs: Column | None) -> tuple[Column, ...]:
    """The columns that a specification's other fields ask for, and those of embedded inputs, in the order in which they are
    hashed.
    """
    columns = [
        Column(name="content_key", dtype="uint8", shape=(KEY_BYTES,), axes=("byte",)),
        Column(name="label", dtype="int64", shape=(), axes=()),
    ]
    if spec.ragged:
        columns.append(Column(name="positions", dtype="int32", shape=(), axes=()))
    if spec.positions is not None:
        columns.append(Column(name="position_mask", dtype="uint8", shape=(spec.positions,), axes=(POSITION,)))
        columns.append(Column(name="document", dtype="uint16", shape=(spec.positions,), axes=(POSITION,)))
    kept = spec.encoding.columns(spec.label_space.classes, spec.stored_members, spec.positions)
    columns += [Column(name=name, dtype=dtype, shape=shape, axes=axes) for name, dtype, shape, axes in kept]  # type: ignore[arg-type]  # names of numpy's dtypes
    return tuple(columns if inputs is None else [*columns, inputs])


def _column_rules(spec: Spec) -> Iterator[Rule]:
    inputs = spec.columns[-1] if spec.columns[-1].name == "input" else None
    embeds = inputs is not None and len(inputs.axes) == len(inputs.shape)
    columns = spec_columns(spec, inputs)
    encoding = spec.encoding
    yield (
        spec.columns != columns or embeds != (encoding.inputs == "embed"),
        f"the columns are not those of {encoding.kind} labels of "
        f"{spec.stored_members} members x {spec.label_space.classes} classes, inputs: {encoding.inputs}",
    )


def _cut_rules(spec: Spec) -> Iterator[Rule]:
    cut = spec.cut
    yield (
        cut.rows_per_shard % cut.rows_per_chunk,
        f"rows_per_shard={cut.rows_per_shard} is no multiple of rows_per_chunk={cut.rows_per_chunk}",
    )
    chunk = max(column.row_bytes for column in spec.columns) * cut.rows_per_chunk
    yield chunk > MAX_CHUNK_BYTES, f"a chunk of {chunk} bytes exceeds {MAX_CHUNK_BYTES}"
    yield (
        spec.compression != "none" and spec.layout == "arrow",
        "compression: zstd needs layout: zarr (Arrow shards are read in place)",
    )
    yield spec.shards > MAX_SHARDS, f"{spec.shards} shards exceed {MAX_SHARDS}"
    rows = len(spec.shard_rows(0))
    yield rows > MAX_SHARD_ROWS, f"a shard of {rows} rows exceeds {MAX_SHARD_ROWS}"
    yield (
        cut.rows_per_shard > cut.rows_per_chunk * MAX_SHARD_CHUNKS,
        f"a shard of {cut.rows_per_shard // cut.rows_per_chunk} chunks exceeds {MAX_SHARD_CHUNKS}",
    )
