"""What the columns of a store are to `datasets`: its `Features`, as its JSON and as the front matter of a card have them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from softlabels.store.columns import LABEL, Column, bare
from softlabels.store.hard_labels import needs_label
from softlabels.store.spec import Spec

Feature = dict[str, Any]
MOST_NAMES = 1 << 18  # letters of all classes, as a card has them, beyond which it does without


def features(spec: Spec) -> dict[str, Feature]:
    """Those of all columns, by name."""
    return {column.name: feature(spec, column) for column in spec.columns}


def feature(spec: Spec, column: Column) -> Feature:
    """That of one column; hard labels know the names of their classes."""
    owner = spec.owner(column.name)
    names = None if owner is None or bare(column.name) != LABEL or not needs_label(owner) else owner.label_space.names
    found: Feature = {"dtype": column.dtype, "_type": "Value"}
    if names is not None:
        found = {"names": list(names), "_type": "ClassLabel"}
    for size in reversed(fixed_axes(spec, column)):
        found = list_of(found, size)
    return list_of(found) if spec.ragged and column.by_position else found


def list_of(inner: Feature, length: int = -1) -> Feature:
    """That of lists, all of one length or each of its own."""
    return {"feature": inner, "_type": "List"} | ({"length": length} if length >= 0 else {})


def fixed_axes(spec: Spec, column: Column) -> tuple[int, ...]:
    """The axes of a row that are the same in every row."""
    return column.shape[1:] if spec.ragged and column.by_position else column.shape


def in_front_matter(found: Mapping[str, Feature]) -> list[Feature]:
    """The same as `dataset_info: features:` of a card."""
    share = MOST_NAMES // max(1, sum(_letters(each) > 0 for each in found.values()))
    return [{"name": name, **_keys(nameable(each, share))} for name, each in found.items()]


def nameable(found: Feature, most: int = MOST_NAMES) -> Feature:
    """The same without the names of classes where two have one name, which `datasets` refuses, or where they are too long."""
    if found["_type"] == "List":
        return found | {"feature": nameable(found["feature"], most)}
    names = found.get("names", [])
    plain = len({*names}) < len(names) or _letters(found) > most
    return {"dtype": "int64", "_type": "Value"} if plain else found


def _letters(found: Feature) -> int:
    """How many the names of its classes take, with their numbers."""
    if found["_type"] == "List":
        return _letters(found["feature"])
    return sum(len(json.dumps(name)) + 8 for name in found.get("names", []))


def _keys(found: Feature) -> Feature:
    if found["_type"] == "ClassLabel":
        return {"dtype": {"class_label": {"names": {str(number): name for number, name in enumerate(found["names"])}}}}
    if found["_type"] == "Value":
        return {"dtype": found["dtype"]}
    inner = _keys(found["feature"])
    return {"list": inner.get("dtype", inner)} | ({"length": found["length"]} if "length" in found else {})
