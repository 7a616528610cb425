"""The first rows of a store as Parquet, which the Hub's viewer, DuckDB and polars open whatever its layout: key, hard label,
the most probable classes.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from softlabels.store.columns import LABEL, stored_name
from softlabels.store.features import Feature, feature, list_of, nameable
from softlabels.store.reader import Store
from softlabels.store.spec import Spec

POSITIONS = 16  # of a row that has some
TOP = 5  # classes


def preview(store: Store) -> bytes:
    """A Parquet file; the same bytes for the same store. In memory is a chunk."""
    features = preview_features(store.spec)
    found: dict[str, list[Any]] = {name: [] for name in features}
    most = min(store.rows, rows_shown(store.spec))
    for start in range(0, most, store.rows_per_chunk):
        rows = range(start, min(start + store.rows_per_chunk, most))
        found["key"] += [bytes(key).hex() for key in store.gather("content_key", rows)]
        for name in store.targets:
            one = store.only(name)
            columns = {column: one.gather(column, rows) for column in one.columns if column != "input"}
            for number in range(len(rows)):
                row = _row(one, {column: values[number] for column, values in columns.items()})
                for column, value in row.items():
                    found[stored_name(name, column)].append(value)
    schema = pa.schema([(name, _type(each)) for name, each in features.items()])
    told = {"huggingface": json.dumps({"info": {"features": features}})}
    out = pa.BufferOutputStream()
    pq.write_table(pa.table(found, schema.with_metadata(told)), out)
    return bytes(out.getvalue())


def rows_shown(spec: Spec) -> int:
    """How many rows are shown, where there are so many."""
    return 100 if spec.positions is None else 20


def preview_features(spec: Spec) -> dict[str, Feature]:
    """What its columns are to `datasets`."""
    found: dict[str, Feature] = {"key": _value("string")}
    for target in spec.targets:
        found |= {stored_name(target.name, name): each for name, each in _features(spec.only(target.name)).items()}
    return found


def what_it_holds(spec: Spec) -> str:
    """A sentence for the page."""
    kinds = {target.encoding.target for target in spec.targets}
    at = sorted({target.encoding.near_1 for target in spec.targets if target.encoding.target != "values"})
    said = ["the content key"] + ["the hard label"] * any(LABEL in _features(spec.only(t.name)) for t in spec.targets)
    if at:
        said.append(
            f"the {TOP} most probable classes with the ensemble's probabilities at T={', '.join(map('{:g}'.format, at))}"
        )
    if "values" in kinds:
        said.append("the ensemble's mean values")
    shown = "" if spec.positions is None else f", of at most {POSITIONS} positions that count"
    return f"The files in `preview` hold the first {rows_shown(spec)} rows of each split as Parquet: {', '.join(said)}{shown}."


def _features(spec: Spec) -> dict[str, Feature]:
    """Those of the one target of `spec`."""
    (target,) = spec.targets
    label = next((column for column in spec.columns if column.name == LABEL), None)
    found: dict[str, Feature] = {}
    if label is not None and not spec.of_tokens:  # tokens are their own
        found["label"] = nameable(feature(spec, label))
        if label.by_position:
            found["label"] = list_of(found["label"]["feature"])
    names = target.label_space.names
    if names and label is not None and label.shape == () and target.encoding.target == "softmax" and not spec.of_tokens:
        found["label_name"] = _value("string")
    if target.encoding.target == "values":
        soft = {"values": list_of(_value("float32"))}
    else:
        soft = {"top": list_of(_value("string" if names else "int32")), "p": list_of(_value("float32"))}
    return found | {name: list_of(each) if spec.positions is not None else each for name, each in soft.items()}


def _row(one: Store, columns: dict[str, NDArray[np.generic]]) -> dict[str, Any]:
    """What is shown of a row of the one target."""
    spec, features = one.spec, _features(one.spec)
    (target,) = spec.targets
    names, found = target.label_space.names, dict[str, Any]()
    if spec.positions is not None:
        counts = np.flatnonzero(columns["position_mask"])[:POSITIONS]
        columns = {
            name: values[counts] if one.columns[name].by_position else values for name, values in columns.items()
        }
    if "label" in features:
        found["label"] = columns[LABEL].tolist()
    if "label_name" in features:
        assert names is not None
        found["label_name"] = names[found["label"]] if found["label"] >= 0 else None
    soft = {name: columns[name] for name in one.soft_columns}
    if target.encoding.target == "values":
        return found | {"values": target.encoding.values(soft, spec.member_weights).tolist()}
    p = target.encoding.probabilities(
        soft, one.classes, one.basis, temperature=target.encoding.near_1,
        mean="geometric" if target.encoding.is_reduced else "arithmetic", weights=spec.member_weights,
    )  # fmt: skip
    top = np.argsort(-p, axis=-1, kind="stable")[..., :TOP]
    named = np.array(names, object)[top] if names else top
    return found | {"top": named.tolist(), "p": np.take_along_axis(p, top, -1).astype(np.float32).tolist()}


def _value(dtype: str) -> Feature:
    return {"dtype": dtype, "_type": "Value"}


def _type(found: Feature) -> pa.DataType:
    """As which Arrow keeps it."""
    if found["_type"] == "List":
        return pa.list_(_type(found["feature"]), found.get("length", -1))
    return pa.int64() if found["_type"] == "ClassLabel" else pa.type_for_alias(found["dtype"])
