"""What stores that become one must have in common: kinds of targets and how they are kept, positions, keys. Their classes may
stand in another order, or have other names that the user maps.

C classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import UNSET

from softlabels.errors import ClassMismatch, ConfigError, MeanUnavailable, OtherTokenizer, SpecMismatch, some
from softlabels.labels.targets import titled
from softlabels.names import renamed
from softlabels.store.differences import differences
from softlabels.store.gather import Ints
from softlabels.store.json_files import plain_json
from softlabels.store.reader import Store
from softlabels.store.spec import LabelSpace, Spec

SALTED = 3  # the version of the key rule


def require_alike(first: Store, other: Store, how: str, *, teacher: bool, remedy: str) -> None:
    """Raise `SpecMismatch`, which names the fields, where two stores cannot be `how` ("merged", "concatenated"): their targets,
    encodings, positions or kinds of keys differ; with `teacher` also their teachers or inputs.
    """
    one, two = (_facts(store.spec, teacher=teacher) for store in (first, other))
    found = differences(one, two)
    if found:
        said = "; ".join(leaf.said(f"in {first.folder}", f"in {other.folder}") for leaf in found)
        raise SpecMismatch(f"{first.folder} and {other.folder} cannot be {how} ({said})", remedy=remedy)


def _facts(spec: Spec, *, teacher: bool) -> dict[str, Any]:
    own = renamed(plain_json(spec))
    kept = {
        each.name: {name: value for name, value in plain_json(each.encoding).items() if name != "inputs"}
        for each in spec.targets
    }
    facts: dict[str, Any] = {
        "key": spec.transfer_set.key,
        "keys are salted": spec.transfer_set.key_rule == SALTED,
        "tokens": spec.of_tokens,
        "positions": spec.positions,
        "folds": None if spec.folds is UNSET else spec.folds,
        **({"encoding": kept[""]} if "" in kept else {"targets": kept}),
    }
    if teacher:
        facts["teacher"] = {name: value for name, value in own["teacher"].items() if name != "name"}
        facts["preprocessing"] = {name: value for name, value in own["preprocessing"].items() if name != "sample"}
        facts["ragged"] = spec.ragged
        facts["inputs"] = [column for column in own["columns"] if column["name"] == "input"]
    else:
        facts["teacher.floor"] = own["teacher"].get("floor")
    return facts


def require_members(store: Store, what: str) -> None:
    """Raise `MeanUnavailable` where a store keeps a mean in the place of its members, `what` is to be done with."""
    for each in store.spec.targets:
        if each.encoding.is_reduced:
            raise MeanUnavailable(
                f"{titled(each.name)}{store.folder} keeps the {each.encoding.reduce} mean of its members, not their outputs, "
                f"and cannot be {what}",
                remedy="give stores that keep every member (reduce: none)",
            )


def class_orders(first: Store, other: Store, rename: Mapping[str, str]) -> dict[str, Ints]:
    """Of each target whose classes stand in another order in `other`, the number there of each class of `first`. `rename`:
    names there, and what `first` calls these classes.

    Raises:
        ClassMismatch: not the same classes. OtherTokenizer: another vocabulary. ConfigError: renamed classes collide, or tails
            know their classes by number.
    """
    found: dict[str, Ints] = {}
    for each in first.spec.targets:
        ours, theirs = each.label_space, other.spec.only(each.name).label_space
        where = f"{titled(each.name)}{first.folder}", f"{titled(each.name)}{other.folder}"
        order = class_order(ours, theirs, rename, where)
        if order is not None:
            found[each.name] = order
            if each.encoding.basis_rank is not None:
                raise ConfigError(
                    f"{where[1]} has its classes in another order, and its tails have a basis, which numbers them",
                    remedy="merge dense stores, then encode the result",
                )
    return found


def require_renamed(others: Sequence[Store], rename: Mapping[str, str]) -> None:
    """Raise `ConfigError` for a name in `rename` that no store but the first has."""
    known = {name for store in others for each in store.spec.targets for name in each.label_space.names or ()}
    if strangers := sorted(rename.keys() - known):
        raise ConfigError(
            f"none of the later stores has a class {some(map(repr, strangers))}",
            remedy="map names of the later stores to those of the first (--rename.THEIRS=OURS)",
        )


def class_order(ours: LabelSpace, theirs: LabelSpace, rename: Mapping[str, str], where: tuple[str, str]) -> Ints | None:
    """The same of one target, whose stores messages call `where`; None where the classes stand in one order."""
    if ours.vocabulary != theirs.vocabulary:
        raise OtherTokenizer(
            f"{where[0]} and {where[1]} have tokens of different vocabularies",
            remedy="give stores of one tokenizer",
        )
    if ours.names is None or theirs.names is None:
        if (ours.names is None) != (theirs.names is None):
            named, bare = where if theirs.names is None else where[::-1]
            raise ClassMismatch(
                f"{named} names its classes and {bare} does not, so they cannot be matched",
                remedy="make the other store again with class names (--classes of import)",
            )
        if ours.classes != theirs.classes:
            raise ClassMismatch(
                f"{where[0]} has {ours.classes} classes and {where[1]} {theirs.classes}",
                remedy="give stores over the same classes",
            )
        return None
    names = tuple(rename.get(name, name) for name in theirs.names)
    _require_distinct(names, theirs.names, where[1])
    _require_distinct(ours.names, ours.names, where[0])
    if names == ours.names:
        return None
    if {*names} != {*ours.names}:
        raise _other_classes(ours.names, names, where)
    at = {name: number for number, name in enumerate(names)}
    return np.array([at[name] for name in ours.names], np.int64)


def _require_distinct(names: tuple[str, ...], given: tuple[str, ...], where: str) -> None:
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        are = some(repr(own) for own, new in zip(given, names, strict=True) if new == name)
        raise ConfigError(
            f"{count} classes of {where} are called {name!r} then ({are})",
            remedy="map each name to one of its own (--rename)",
        )


def _other_classes(ours: tuple[str, ...], theirs: tuple[str, ...], where: tuple[str, str]) -> ClassMismatch:
    pairs = (ours, {*theirs}), (theirs, {*ours})
    here, there = ([name for name in own if name not in others] for own, others in pairs)
    shared = len({*ours} & {*theirs})
    alone = [f"{where[n]} alone has {some(map(repr, each))}" for n, each in enumerate((here, there)) if each]
    return ClassMismatch(
        f"the label spaces share {shared} of {len(ours)} and {len(theirs)} classes: {', '.join(alone)}",
        remedy="say which names mean one class (--rename.THEIRS=OURS), or give stores over the same classes",
    )
