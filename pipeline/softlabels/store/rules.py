"""What a specification must satisfy beyond the types of its fields: rules between fields, and limits on the sizes that follow
from them. docs/format.md lists them; whatever breaks one is refused before anything is allocated or written by it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from typing import Any

from msgspec import UNSET

from softlabels.errors import DamagedManifest, UserError
from softlabels.labels.base import Rule
from softlabels.store.columns import KEY_BYTES, LABEL, POSITION, Column, stored_name
from softlabels.store.hard_labels import label_column, needs_label
from softlabels.store.json_files import RESTORE, decode_json, encode_json
from softlabels.store.spec import FORMAT, MAX_CHUNK_BYTES, Spec, TargetSpec, Version, fields_of_3

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
        remedy = "change the settings (of a recipe: labels), or what the store is made from"
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
    yield size > MAX_SPEC_BYTES, f"a specification of {size} bytes exceeds {MAX_SPEC_BYTES}"
    yield (
        _deeper(spec.preprocessing.arguments, MAX_DEPTH),
        f"preprocessing.arguments are nested more than {MAX_DEPTH} deep",
    )
    weight = sum(member.weight for member in spec.teacher.members)
    yield not 0 < weight < math.inf, f"the members' weights add up to {weight}"
    first = max(target.encoding.first_format for target in spec.targets)
    yield (
        version == 1 and (first > 1 or spec.of_tokens),
        "format 1 holds neither topk labels nor sequences",
    )
    later = fields_of_3(spec)
    yield version < 3 and bool(later), f"format {version} has no {' and no '.join(later)}"
    for target in spec.targets:
        yield from _target_rules(spec, target)
    yield from _together(spec)
    yield spec.ragged and spec.layout != "arrow", "ragged rows need layout: arrow (Zarr holds regular arrays)"
    yield from _column_rules(spec)
    yield from _cut_rules(spec)


def _target_rules(spec: Spec, target: TargetSpec) -> Iterator[Rule]:
    """Of one target."""
    space, one, members = target.label_space, target.titled, len(spec.teacher.members)
    yield (
        space.names is not None and len(space.names) != space.classes,
        f"{one}{space.classes} classes have {len(space.names or ())} names",
    )
    stored = 1 if target.encoding.is_reduced else members
    yield from ((wrong, f"{one}{what}") for wrong, what in target.encoding.rules(stored, space.classes))
    known_at = target.encoding.known_at is not UNSET and target.encoding.target == "values"
    yield known_at, f"{one}values have no temperature at which they are known (known_at)"
    yield (
        (space.vocabulary is not UNSET) != (spec.of_tokens and target.encoding.target == "softmax"),
        f"{one}label_space.vocabulary and sequence go together: the classes of a sequence's positions are a tokenizer's tokens",
    )


def _together(spec: Spec) -> Iterator[Rule]:
    """Of all targets."""
    names, kinds = [target.name for target in spec.targets], [target.encoding for target in spec.targets]
    yield len({*names}) < len(names), f"two targets have one name ({', '.join(names)})"
    yield len({kind.inputs for kind in kinds}) > 1, "the targets do not say alike whether inputs are embedded"
    bases = sum(kind.basis_rank is not None for kind in kinds)
    yield bases > 1, f"{bases} targets have tails with a basis, and a store holds one basis"
    both = spec.of_tokens and spec.row_positions is not UNSET
    yield both, "rows of tokens (sequence) have no other positions"
    named = all(kind.target != "softmax" for kind in kinds)
    yield spec.of_tokens and named, "a sequence has no target of distributions over its tokens"


def _deeper(values: Any, most: int) -> bool:
    """Whether JSON values are nested more than `most` deep."""
    level = [values]
    for _ in range(most):
        inner = (value.values() if isinstance(value, dict) else value for value in level)
        level = [each for values in inner for each in values if isinstance(each, dict | list | tuple)]
        if not level:
            return False
    return True


def spec_columns(spec: Spec, inputs: Column | None, labelled: Collection[str] = ()) -> tuple[Column, ...]:
    """The columns that a specification's other fields ask for, and those of embedded inputs, in the order in which they are
    hashed. `labelled`: names of the targets, of those that need no hard labels, which have some.
    """
    columns = [Column(name="content_key", dtype="uint8", shape=(KEY_BYTES,), axes=("byte",))]
    columns += [label_column(spec, each) for each in spec.targets if needs_label(each) or each.name in labelled]
    if spec.folds is not UNSET:
        columns.append(Column(name="fold", dtype="uint16", shape=(), axes=()))
    if spec.ragged:
        columns.append(Column(name="positions", dtype="int32", shape=(), axes=()))
    if spec.positions is not None:
        columns.append(Column(name="position_mask", dtype="uint8", shape=(spec.positions,), axes=(POSITION,)))
    if spec.of_tokens and spec.positions is not None:
        columns.append(Column(name="document", dtype="uint16", shape=(spec.positions,), axes=(POSITION,)))
    for target in spec.targets:
        members = 1 if target.encoding.is_reduced else len(spec.teacher.members)
        kept = target.encoding.columns(target.label_space.classes, members, spec.positions)
        columns += [
            Column(name=stored_name(target.name, name), dtype=dtype, shape=shape, axes=axes)  # type: ignore[arg-type]  # names of numpy's dtypes
            for name, dtype, shape, axes in kept
        ]
    return tuple(columns if inputs is None else [*columns, inputs])


def labelled(spec: Spec) -> set[str]:
    """Names of the targets with hard labels, by the columns of a specification."""
    names = {column.name for column in spec.columns}
    return {target.name for target in spec.targets if stored_name(target.name, LABEL) in names}


def _column_rules(spec: Spec) -> Iterator[Rule]:
    inputs = spec.columns[-1] if spec.columns[-1].name == "input" else None
    embeds = inputs is not None and len(inputs.axes) == len(inputs.shape)
    words = ", ".join(
        f"{target.titled}{target.encoding.kind} labels of {target.label_space.classes} classes"
        for target in spec.targets
    )
    yield (
        spec.columns != spec_columns(spec, inputs, labelled(spec)) or embeds != (spec.inputs == "embed"),
        f"the columns are not those of {words}, {len(spec.teacher.members)} members, inputs: {spec.inputs}",
    )
    beside = {target.name for target in spec.targets if not needs_label(target)} & labelled(spec)
    yield (
        spec.of_tokens and bool(beside),
        f"the tokens of a sequence have no hard labels beside them ({', '.join(sorted(beside))})",
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
    most = MAX_SHARD_CHUNKS if len(spec.columns) <= 16 else (MAX_SHARD_CHUNKS << 4) // len(spec.columns)
    yield (
        cut.rows_per_shard > cut.rows_per_chunk * most,
        f"a shard of {cut.rows_per_shard // cut.rows_per_chunk} chunks exceeds {most}",
    )
