"""Stores of several targets, of sigmoid and values, and of rows of positions: what each target answers, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec import UNSET

from softlabels.errors import (
    ConfigError,
    ContradictingOutputs,
    OtherClassOrder,
    OtherLabels,
    SeveralTargets,
    UserError,
)
from softlabels.labels import ensemble
from softlabels.store import Store, StoreWriter, open_store
from softlabels.store.findings import stored_agreement
from softlabels.store.new_spec import store_spec
from softlabels.store.rules import spec_columns
from softlabels.store.spec import FORMAT
from tests.store.places import AnyPath
from tests.store.samples import Sample, fill, make_spec, sample, write_store
from tests.store.test_writer import spec_with

ROWS = 70
T = 2.5


several = pytest.mark.parametrize("target_store", ["several-zarr"], indirect=True)
both = pytest.mark.parametrize("target_store", ["several-zarr", "ragseveral-arrow"], indirect=True)


@both
def test_each_target_is_a_store_of_its_own(target_store: Store, target_stores: Any) -> None:
    store = target_store
    data: Sample = next(
        each for _, each in target_stores.values() if np.array_equal(each.keys, store.column("content_key"))
    )
    assert store.targets == ("class", "tag", "box")
    rows = np.array([5, 0, 69, 5])
    for name, each in data.several.items():
        one = store.only(name)
        assert (one.classes, one.positions, one.encoding.target) == (each.classes, 5, each.kind)
        assert one.targets == ("",)
        assert one.only("").spec == one.spec
        assert ("label" in one.columns) == each.labelled
        for column, values in (each.encoded() | {"position_mask": data.mask}).items():
            assert one.gather(column, rows).tobytes() == values[rows].tobytes()
            assert store.gather(column if column == "position_mask" else f"{name}.{column}", rows).tobytes()
        assert set(one.soft_columns) == set(each.encoded())
        assert one.manifest.lost[""] == store.manifest.lost[name]
        assert one.manifest.fidelity == store.manifest.lost[name].fidelity
    assert store.only("box").basis is None
    assert (store.basis is None) == (store.only("class").basis is None) == (data.basis is None)


@several
def test_what_each_kind_says_of_rows(target_store: Store, target_stores: Any) -> None:
    """Against numpy, of members with weights 1 and 3."""
    store = target_store
    data, rows = target_stores["several-zarr"][1], np.array([3, 44])
    z = {
        name: each.encoded()["values" if name == "box" else "logits"][rows].astype(float)
        for name, each in data.several.items()
    }
    mean = ensemble.log_probs(z["class"], T, "arithmetic", [0.25, 0.75])
    assert np.allclose(store.only("class").log_probs(rows, temperature=T), mean, atol=1e-12)
    assert np.allclose(store.only("class").probabilities(rows, temperature=T), np.exp(mean), atol=1e-12)
    with np.errstate(over="ignore"):
        p = (1 / (1 + np.exp(-z["tag"] / T))).swapaxes(-1, -2) @ [0.25, 0.75]
    assert np.allclose(store.only("tag").probabilities(rows, temperature=T), p, atol=1e-12)
    assert np.allclose(store.only("box").values(rows), z["box"].swapaxes(-1, -2) @ [0.25, 0.75], atol=1e-12)
    assert np.allclose(store.only("box").values(rows, weights=[1, 0]), z["box"][..., 0, :], atol=1e-12)


@several
def test_what_a_target_cannot_say_is_refused(target_store: Store) -> None:
    store = target_store
    for ask in (
        lambda: store.log_probs([0], temperature=1.0), lambda: store.classes, lambda: store.encoding,
        lambda: store.member_weights, lambda: store.values([0]),
    ):  # fmt: skip
        with pytest.raises(SeveralTargets, match=r"holds 3 targets by name \(class, tag, box\); .*only\('class'\)"):
            ask()
    with pytest.raises(SeveralTargets, match="has no target 'boxes'; ask for one of class, tag, box"):
        store.only("boxes")
    for wrong in (
        lambda: store.only("box").log_probs([0], temperature=1.0), lambda: store.only("class").values([0]),
        lambda: store.only("tag").log_probs([0], temperature=1.0),
        lambda: store.only("box").probabilities([0], temperature=1.0),
    ):  # fmt: skip
        with pytest.raises(
            ConfigError, match=r"the labels are .* and have no (log-probabilities|probabilities|values)"
        ):
            wrong()


def test_a_store_without_names_has_none_to_give(tmp_path: AnyPath, rng: np.random.Generator) -> None:
    data = sample(rng, 20)
    store = write_store(tmp_path / "store", data, make_spec(data))
    assert store.only("").manifest.digest == store.digest
    with pytest.raises(SeveralTargets, match="has no target 'class'; ask for its labels without a name"):
        store.only("class")


def test_one_named_target_is_asked_for_by_its_name(tmp_path: AnyPath, rng: np.random.Generator) -> None:
    data = sample(rng, 20)
    data = replace(data, several={"class": data})
    store = write_store(tmp_path / "store", data, make_spec(data))
    with pytest.raises(SeveralTargets, match=r"1 target by name \(class\)"):
        _ = store.classes
    assert store.only("class").log_probs([1], temperature=T).shape == (1, 7)


# Checks of what is stored, a target at a time.


def test_folds_are_below_their_number(tmp_path: AnyPath, rng: np.random.Generator) -> None:
    data = sample(rng, 20)
    spec = store_spec(teacher="t", name="n", keys=data.keys, classes=7, members=2, folds=3)
    fold = rng.integers(0, 3, 20).astype(np.uint16)
    with StoreWriter(tmp_path / "store", spec) as writer:
        with pytest.raises(UserError, match="column fold of shard 0 is nothing"):
            writer.write_logits(0, keys=data.keys, labels=data.labels, logits=data.logits)
        fold[7] = 3
        with pytest.raises(UserError, match="row 7: is of no fold below 3"):
            writer.write_logits(0, keys=data.keys, labels=data.labels, logits=data.logits, fold=fold)
        fold[7] = 0
        writer.write_logits(0, keys=data.keys, labels=data.labels, logits=data.logits, fold=fold)
        writer.seal()
    assert np.array_equal(open_store(tmp_path / "store").column("fold"), fold)


def test_classes_in_another_order_in_one_of_the_targets(tmp_path: AnyPath, rng: np.random.Generator) -> None:
    data = sample(rng, ROWS, "several-zarr", classes=4)
    labels = np.where(data.mask == 1, rng.integers(0, 4, data.mask.shape), -1)  # type: ignore[union-attr]
    logits = np.eye(4, dtype=np.float32)[(labels + 1) % 4] * 9
    own = replace(data.several["class"], labels=labels, logits=np.stack([logits, logits], axis=2))
    data = replace(data, several=data.several | {"class": own})
    with pytest.raises(OtherClassOrder, match=r"target class: the largest output is the hard label in 0\.0%"):
        write_store(tmp_path / "wrong", data, make_spec(data, "several-zarr"))
    right = replace(own, labels=np.where(labels < 0, -1, (labels + 1) % 4))
    store = write_store(
        tmp_path / "right", replace(data, several=data.several | {"class": right}), make_spec(data, "several-zarr")
    )
    found = stored_agreement(store.only("class"))
    assert found is not None
    assert (found.share, found.rows, found.of) == (1.0, int((labels >= 0).sum()), "positions")
    assert (
        "class: the largest output is the hard label in 100.0% of positions"
        in (tmp_path / "right" / "README.md").read_text()
    )
    assert stored_agreement(store.only("tag")) is None


@pytest.mark.parametrize("name", ["class", "tag", "box"])
def test_rows_of_one_key_that_contradict_in_one_of_the_targets(
    tmp_path: AnyPath, rng: np.random.Generator, name: str
) -> None:
    data = sample(rng, 20, "several-zarr")
    data.logits[5], data.keys[5] = data.logits[3], data.keys[3]
    for each in data.several.values():
        each.keys[5], each.logits[5] = each.keys[3], each.logits[3]
        each.mask[5] = each.mask[3]  # type: ignore[index]
        each.labels[5] = each.labels[3]
    data.mask[5] = data.mask[3]  # type: ignore[index]
    write_store(tmp_path / "same", data, make_spec(data, "several-zarr"))
    at = int(np.flatnonzero(data.mask[3])[0])  # type: ignore[index]
    for row, value in {3: 0, 5: 3}.items():
        data.several[name].logits[row, at, :, 0] = value
    with pytest.raises(ContradictingOutputs, match=rf"target {name} .*row 5 \(as row 3"):
        write_store(tmp_path / "other", data, make_spec(data, "several-zarr"))


def test_a_store_begun_with_other_targets(tmp_path: AnyPath, rng: np.random.Generator) -> None:
    data = sample(rng, ROWS, "several-zarr")
    spec = make_spec(data, "several-zarr")
    with StoreWriter(tmp_path / "store", spec) as writer:
        fill(writer, data, [0])
    other = spec_with(spec, "targets.0.label_space.names", [f"k{n}" for n in range(7)])
    with pytest.raises(OtherLabels, match=r"targets\[0\]\.label_space\.names: null here"):
        StoreWriter(tmp_path / "store", other)
    wider = spec_with(spec, "targets.1.encoding.dtype", "float32")
    float32 = msgspec.structs.replace(wider, columns=spec_columns(wider, spec.columns[-1], ["class", "tag", "box"]))
    with pytest.raises(UserError, match=r'\(targets\[1\]\.encoding\.dtype: "float16" here, "float32" in this run\)'):
        StoreWriter(tmp_path / "store", float32)
    assert UNSET is spec.one_encoding
    assert msgspec.structs.replace(spec) == spec
    assert FORMAT == 3
