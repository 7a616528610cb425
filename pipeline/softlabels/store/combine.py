"""`merged`, `concatenated`, `selected`: what the new store will say of itself, and which rows of its sources it is made of
(`parts`, `derived`). Rows meet by content key. Nothing is written here.

R rows of a store, M members.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from softlabels.checks.contradictions import repeats
from softlabels.checks.rounding import tolerance
from softlabels.errors import ConfigError, RepeatedRow, UnlabelledRows, UserError, some
from softlabels.store.alike import class_orders, require_alike, require_members, require_renamed
from softlabels.store.derived import Derived, choice_of
from softlabels.store.digest import keys_digest
from softlabels.store.findings import Own, ask, keys_of, stored_agreement
from softlabels.store.gather import Ints
from softlabels.store.key_index import KeyIndex, Missing, Repeated
from softlabels.store.new_spec import SAMPLE_ROWS
from softlabels.store.parts import Behind, Beside, Picked, Rows
from softlabels.store.reader import Store
from softlabels.store.rules import check_spec, labelled, spec_columns
from softlabels.store.spec import (
    BLOCK_ROWS,
    MAX_CHUNK_BYTES,
    MOST_TEXT,
    About,
    Cut,
    How,
    MemberSpec,
    Parent,
    Preprocessing,
    Spec,
    TeacherSpec,
)

Keys = NDArray[np.uint8]
_DISTINCT = "give repeated=first to keep the first row of each key"


def merged(
    stores: Sequence[Store],
    weights: Sequence[float] | None,
    rename: Mapping[str, str],
    missing: Missing,
    repeated: Repeated,
) -> Derived:
    """The rows that all stores have, in the order of the first, with the members of all. See `jobs.combine.merge`."""
    first, *others = stores
    for store in stores:
        require_members(store, "merged")
    for at, store in enumerate(stores):
        for earlier in stores[:at]:
            if earlier.content_digest == store.content_digest:
                raise ConfigError(
                    f"{earlier.folder} and {store.folder} hold the same labels", remedy="name each store once"
                )
    for other in others:
        require_alike(first, other, "merged", teacher=False, remedy="give stores of targets that are kept alike")
    orders = _orders(stores, rename)
    teacher = _teachers(stores, weights)
    keys = [_distinct(store, repeated) for store in stores]
    rows = _met(stores, keys, missing)
    spec = _spec(stores, rows[0], keys[0][0][rows[0]], "merged", teacher)
    parts = tuple(Picked(s, r, orders=o) for s, r, o in zip(stores, rows, orders, strict=True))
    beside = Beside(spec, parts)
    beside.require_same_rows(spec.cut.rows_per_chunk)
    _require_sound(stores, [every for every, _ in keys])
    _require_order(first, keys[0][0], others, [every for every, _ in keys[1:]], orders[1:])
    return _derived(stores, spec, beside, "merged")


def concatenated(stores: Sequence[Store], rename: Mapping[str, str], repeated: Repeated) -> Derived:
    """The rows of all stores. See `jobs.combine.concat`."""
    first, *others = stores
    for other in others:
        require_alike(
            first, other, "concatenated", teacher=True, remedy="give stores of one teacher, whose labels are kept alike"
        )
    orders, keys = _orders(stores, rename), [keys_of(store) for store in stores]
    rows: list[Ints | range] = [range(first.rows)]
    seen = keys[0]
    for store, own in zip(others, keys[1:], strict=True):
        found = KeyIndex(seen).find(own)
        if repeated == "error" and (found >= 0).any():
            row = int((found >= 0).argmax())
            raise RepeatedRow(
                f"{int((found >= 0).sum()):,} rows of {store.folder}, the first of them row {row}, have "
                "content keys that an earlier store has",
                remedy=_DISTINCT,
            )
        new = np.flatnonzero(found < 0)
        rows.append(new)
        seen = np.concatenate([seen, own[new]])
    _require_sound(stores, keys)
    parts = tuple(Picked(s, r, orders=o) for s, r, o in zip(stores, rows, orders, strict=True))
    spec = _spec(stores, rows[0], seen, "concatenated", first.spec.teacher)
    return _derived(stores, spec, Behind(spec, parts), "concatenated")


def selected(store: Store, rows: Ints | range, members: Sequence[int] | None, targets: Sequence[str] | None) -> Derived:
    """Some rows, members and targets of a store. See `jobs.combine.select`."""
    names = store.targets if targets is None else tuple(targets)
    for wrong in sorted({*names} - {*store.targets}):
        store.only(wrong)  # raises
    teacher = store.spec.teacher
    if members is not None:
        require_members(store, "taken apart")
        _require_some(members, len(teacher.members), "member", f"{store.folder}")
        teacher = msgspec.structs.replace(teacher, members=tuple(teacher.members[n] for n in members))
    keys = keys_of(store)
    keys = keys if isinstance(rows, range) else keys[rows]
    spec = _spec([store], rows, keys, "selected", teacher, targets=names)
    return _derived([store], spec, Picked(store, rows, members), "selected")


def _derived(stores: Sequence[Store], spec: Spec, rows: Rows, how: How) -> Derived:
    """With the basis that the tails of the first store have, and licences and all."""
    abouts, choice = [store.manifest.about for store in stores], choice_of(how, rows)
    licences = (
        "; ".join(dict.fromkeys(filter(None, (getattr(each, name) for each in abouts))))[:MOST_TEXT]
        for name in ("teacher_licence", "transfer_licence")
    )
    about = About(source=choice, teacher_licence=next(licences), transfer_licence=next(licences))
    return Derived(spec, rows, about, stores[0].basis if spec.basis_shape is not None else None, choice)


def _orders(stores: Sequence[Store], rename: Mapping[str, str]) -> list[dict[str, Ints]]:
    first, *others = stores
    require_renamed(others, rename)
    return [{}, *(class_orders(first, other, rename) for other in others)]


def _teachers(stores: Sequence[Store], weights: Sequence[float] | None) -> TeacherSpec:
    """One teacher of all members. A weight is of a store, whose members share it as they did."""
    teachers = [store.spec.teacher for store in stores]
    if weights is not None and (
        len(weights) != len(stores) or not all(0 <= w < math.inf for w in weights) or not any(weights)
    ):
        raise ConfigError(
            f"weights are {some(weights)}, and there are {len(stores)} stores",
            remedy="give one number of at least 0 a store, of which one is above 0",
        )
    members: list[MemberSpec] = []
    for number, teacher in enumerate(teachers):
        total = sum(member.weight for member in teacher.members)
        for member in teacher.members:
            weight = member.weight if weights is None else weights[number] * (member.weight / total)
            members.append(msgspec.structs.replace(member, weight=float(weight)))
    name = " + ".join(dict.fromkeys(teacher.name for teacher in teachers))
    return TeacherSpec(
        name=name if len(name) <= MOST_TEXT else f"{len(teachers)} teachers",
        precision=max((teacher.precision for teacher in teachers), key=tolerance),
        members=tuple(members),
        floor=teachers[0].floor,
    )


def _distinct(store: Store, repeated: Repeated) -> tuple[Keys, Ints]:
    """The keys of a store (R, 16), and its rows, ascending, without those whose key stands in an earlier row."""
    keys = keys_of(store)
    again, firsts = repeats(keys)
    if len(again) and repeated == "error":
        raise RepeatedRow(
            f"rows {firsts[0]} and {again[0]} of {store.folder} have one content key"
            + (f", and {len(again) - 1:,} more rows have one of a row before them" if len(again) > 1 else ""),
            remedy=_DISTINCT,
        )
    return keys, np.setdiff1d(np.arange(store.rows, dtype=np.int64), again)


def _met(stores: Sequence[Store], keys: Sequence[tuple[Keys, Ints]], missing: Missing) -> list[Ints]:
    """For each store the rows of one key, in the order of the first store."""
    own, rows = keys[0]
    found = [KeyIndex(every).find(own[rows]) for every, _ in keys[1:]]
    there = np.logical_and.reduce([each >= 0 for each in found])
    if not there.any():
        raise UnlabelledRows(
            f"no row is in all of {some(str(store.folder) for store in stores)}",
            remedy="give stores that label the same rows, with keys that were made alike",
        )
    if missing == "error":
        for store, (_, theirs), each in zip(stores[1:], keys[1:], found, strict=True):
            lacks, more = int((each < 0).sum()), len(theirs) - int((each >= 0).sum())
            if lacks or more:
                raise UnlabelledRows(
                    f"{store.folder} lacks {lacks:,} of the {len(rows):,} rows of {stores[0].folder}, and has {more:,} others",
                    remedy="say missing=skip to keep the rows that all stores have",
                )
    return [rows[there], *(each[there] for each in found)]


def _require_sound(stores: Sequence[Store], keys: Sequence[Keys]) -> None:
    """Raise what `softlabels.checks` finds in a store: sealed ones of earlier versions were not asked."""
    for store, own in zip(stores, keys, strict=True):
        for error in ask(store, own):
            raise error


def _require_order(
    first: Store, keys: Keys, others: Sequence[Store], theirs: Sequence[Keys], orders: Sequence[Mapping[str, Ints]]
) -> None:
    """Raise `OtherClassOrder` where the outputs of a store stand in another order than the hard labels of the first: no name
    says so where classes have none.
    """
    for store, own, order in zip(others, theirs, orders, strict=True):
        for each in first.spec.targets:
            if each.encoding.target == "softmax" and each.name not in order and not first.spec.of_tokens:
                labels = first.only(each.name).column("label").astype(np.int64)
                stored_agreement(store.only(each.name), own=Own(own, keys, labels), refuse=True)


def _require_some(numbers: Sequence[int], count: int, what: str, where: str) -> None:
    """Raise `UserError` unless these are numbers of things, each once."""
    wrong = [number for number in numbers if not 0 <= number < count]
    if wrong or not len(numbers):
        raise UserError(
            f"{where} has the {what}s 0 to {count - 1}, and {some(wrong) or 'none'} asked for",
            remedy=f"name {what}s of it",
        )
    again = [number for number in dict.fromkeys(numbers) if list(numbers).count(number) > 1]
    if again:
        raise UserError(f"{what} {some(again)} named twice", remedy="name each once")


def _spec(
    stores: Sequence[Store],
    rows: Ints | range,
    keys: Keys,
    how: How,
    teacher: TeacherSpec,
    targets: Sequence[str] | None = None,
) -> Spec:
    """That of the first store with other rows (`keys`; `rows` are those of the first), members and targets."""
    spec, rules = stores[0].spec, {store.spec.transfer_set.key_rule for store in stores}
    inputs = next((column for column in spec.columns if column.name == "input"), None)
    own = {name for store in stores for name in labelled(store.spec)}
    kept = tuple(each for each in spec.targets if targets is None or each.name in targets)
    own &= {each.name for each in kept}
    largest = max(stores, key=lambda store: store.rows).spec
    transfer = msgspec.structs.replace(
        spec.transfer_set,
        rows=len(keys),
        content_keys=keys_digest(keys),
        key_rule=2 if 2 in rules else spec.transfer_set.key_rule,
    )
    made = msgspec.structs.replace(
        spec.with_targets(kept),
        teacher=teacher,
        transfer_set=transfer,
        preprocessing=_preprocessing(stores, rows, len(keys)),
        parents=tuple(Parent(digest=store.digest, how=how) for store in stores),
    )
    made = msgspec.structs.replace(made, columns=spec_columns(made, inputs, own))
    return check_spec(msgspec.structs.replace(made, cut=_cut(made, largest)), error=UserError)


def _preprocessing(stores: Sequence[Store], rows: Ints | range, count: int) -> Preprocessing:
    """That of the first store, with the digest of its first rows where these are the first of all `count`; nothing where
    teachers saw other inputs, unless the store keeps inputs, or tokens.
    """
    spec = stores[0].spec
    sees = [msgspec.structs.replace(store.spec.preprocessing, sample="") for store in stores]
    if any(each != sees[0] for each in sees) and spec.inputs != "embed" and not spec.of_tokens:
        return Preprocessing(function="")
    first = np.arange(min(SAMPLE_ROWS, max(count, stores[0].rows)))
    return spec.preprocessing if np.array_equal(rows[:SAMPLE_ROWS], first) else sees[0]


def _cut(made: Spec, largest: Spec) -> Cut:
    """As the largest store is cut, so that its chunks are read once; smaller where members make chunks too large, and where
    the rows do not fill one: Zarr fills it up.
    """
    shard, chunk = largest.cut.rows_per_shard, largest.cut.rows_per_chunk
    if made.rows < chunk:
        shard = chunk = -(-made.rows // BLOCK_ROWS) * BLOCK_ROWS
    while chunk * max(column.row_bytes for column in made.columns) > MAX_CHUNK_BYTES and chunk % 32 == 0:
        chunk //= 2
    return Cut(rows_per_shard=shard, rows_per_chunk=chunk)
