"""Targets of every kind, rows of positions and several targets by name: what batches and datasets carry is what the store says,
whoever brings the inputs; and what does not fit is refused.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from softlabels.errors import AlignmentError, ClassMismatch, ConfigError, LabelError, OtherLabels, SeveralTargets
from softlabels.labels.soft import SoftLabels
from softlabels.objects import ObjectSpec
from softlabels.store import Store, open_store
from softlabels.stream import Batch, EmbeddedRows, Loader, SoftLabelDataset
from softlabels.stream.stored_rows import StoredRows
from softlabels.transfer import TransferRows
from tests.store.samples import POSITIONS, Sample, make_spec, sample, write_store

KINDS = ("sigmoid-zarr", "values-arrow", "anchors-zarr", "frames-arrow", "several-zarr", "ragseveral-arrow")
ROWS = 70


def store_of(path: Path, data: Sample, kind: str, **changes: Any) -> Store:
    return write_store(path, data, make_spec(data, kind, weights=(3.0, 1.0), **changes), checked=True)


def rows_for(data: Sample, **changes: Any) -> TransferRows:
    """The same rows as a student's own."""
    named = {name: each.labels for name, each in data.several.items() if each.labelled}
    given: dict[str, Any] = {
        "name": "mine", "split": "train", "revision": None, "source": "", "inputs": data.inputs, "keys": data.keys,
        "labels": np.full(len(data), -1) if named else data.labels, "class_names": None, "prepare": ObjectSpec("none"),
        "named": named, "positions": data.positions, "ragged": data.ragged, "mask": data.mask,
    }  # fmt: skip
    if data.mask is not None and data.ragged:  # as long as the last that counts
        given["mask"] = data.mask
    return TransferRows(**given | changes)


def said(soft: SoftLabels, kind: str) -> Tensor:
    if kind == "values":
        return soft.values()
    return soft.log_probs(2.0).exp() if kind == "softmax" else soft.logits(2.0).sigmoid()


def check(batch: Batch, store: Store, data: Sample) -> None:
    """What a batch carries of each target is what the store and the rows say."""
    assert {*batch.targets} == {*data.parts}
    mask = None if data.mask is None else data.mask[batch.rows] > 0
    if mask is None:
        assert batch.mask is None
    else:
        assert batch.mask is not None
        assert np.array_equal(batch.mask.numpy(), mask)
        assert batch.positions == mask.sum()
    for name, part in data.parts.items():
        one, view = batch.only(name), store.only(name)
        labels = part.labels[batch.rows] if part.labelled else np.full(one.labels.shape, np.nan)
        assert np.array_equal(one.labels.numpy(), labels, equal_nan=part.kind == "values")
        assert one.soft is not None
        assert one.soft.target == part.kind
        ask = {"temperature": 2.0}
        want = view.values(batch.rows) if part.kind == "values" else view.probabilities(batch.rows, **ask)
        got = said(one.soft, part.kind).numpy().reshape(want.shape)
        where = np.ones(len(want), bool) if mask is None else mask
        np.testing.assert_allclose(got[where], want[where], atol=3e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("own", [False, True])
def test_batches_carry_what_the_store_says(tmp_path: Path, rng: np.random.Generator, kind: str, own: bool) -> None:
    data = sample(rng, ROWS, kind)
    store = store_of(tmp_path / "store", data, kind)
    order = rng.permutation(ROWS) if own else np.arange(ROWS)  # a student's rows may stand in any order
    mine = data[order]
    rows = rows_for(mine) if own else EmbeddedRows(store)
    loader, seen = Loader(rows, store, batch_size=16, seed=3), []
    for batch in loader.epoch(0):
        at = Batch(batch.inputs, batch.targets, order[batch.rows], batch.mask)
        check(at, store, data)
        assert np.array_equal(batch.inputs.numpy(), mine.inputs[batch.rows])
        half = batch[4:9]
        check(Batch(half.inputs, half.targets, order[half.rows], half.mask), store, data)
        seen += batch.rows.tolist()
    assert sorted(seen) == list(range(ROWS))
    again = [batch.rows.tolist() for batch in loader.epoch(0, start=2)]
    assert sum(again, []) == seen[32:]  # noqa: RUF017  # a few short lists
    judged = next(Loader(StoredRows(store), store, batch_size=ROWS, seed=0, shuffle=False).epoch(0))
    check(judged, store, data)


@pytest.mark.parametrize("kind", ["frames-arrow", "several-zarr"])
def test_a_dataset_gives_the_same_also_in_a_worker(tmp_path: Path, rng: np.random.Generator, kind: str) -> None:
    data = sample(rng, ROWS, kind)
    store = store_of(tmp_path / "store", data, kind)
    dataset = SoftLabelDataset(rows_for(data), store)
    travelled = pickle.loads(pickle.dumps(dataset))
    theirs = next(iter(DataLoader(travelled, batch_size=ROWS)))
    ours = next(Loader(rows_for(data), store, batch_size=ROWS, seed=0, shuffle=False).epoch(0))
    for name in data.parts:
        column = f"{name}.label" if name else "label"
        assert torch.equal(theirs[column].nan_to_num(7), ours.only(name).labels.nan_to_num(7))
        soft = ours.only(name).soft
        assert soft is not None
        assert torch.equal(said(dataset.soft_labels(theirs, name), soft.target), said(soft, soft.target))
    assert ours.mask is not None
    assert torch.equal(theirs["mask"], ours.mask)
    with pytest.raises(SeveralTargets, match="no target 'boxes'"):
        dataset.soft_labels(theirs, "boxes")


def test_targets_that_nobody_asks_for_are_not_read(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = sample(rng, ROWS, "several-zarr")
    store, read = store_of(tmp_path / "store", data, "several-zarr"), set()
    plain = store.read_chunk
    monkeypatch.setattr(store, "read_chunk", lambda column, chunk: read.add(column) or plain(column, chunk))
    batches = [*Loader(rows_for(data), store, batch_size=32, seed=0, targets=["box"]).epoch(0)]
    assert {*batches[0].targets} == {"box"}
    assert read - {"content_key"} == {"position_mask", "box.values"}
    other = Loader(rows_for(data), open_store(store.path), batch_size=32, seed=0)
    assert [b.rows.tolist() for b in other.epoch(0)] == [b.rows.tolist() for b in batches]
    with pytest.raises(SeveralTargets, match="there is no target 'boxes'; name some of 'class', 'tag', 'box'"):
        Loader(rows_for(data), store, batch_size=32, seed=0, targets=["boxes"])


def test_hard_labels_may_be_hidden_by_row(tmp_path: Path, rng: np.random.Generator) -> None:
    data = sample(rng, ROWS, "several-zarr")
    store, labelled = store_of(tmp_path / "store", data, "several-zarr"), rng.random(ROWS) < 0.5
    for rows in (rows_for(data), EmbeddedRows(store)):
        for batch in Loader(rows, store, batch_size=16, seed=0, labelled=labelled).epoch(0):
            for name, part in data.parts.items():
                none = np.full_like(part.labels, np.nan if name == "box" else -1)
                own = labelled.reshape(-1, *[1] * (part.labels.ndim - 1))
                want = np.where(own, part.labels, none)[batch.rows]
                assert np.array_equal(batch.only(name).labels.numpy(), want, equal_nan=name == "box")


def test_another_label_at_a_position_has_no_stored_logit(tmp_path: Path, rng: np.random.Generator) -> None:
    data = sample(rng, ROWS, "ragseveral-arrow")
    store = store_of(tmp_path / "store", data, "ragseveral-arrow")
    labels = np.where((rng.random(data.labels.shape) < 0.5) & (data.mask == 1), 1, data.parts["class"].labels)
    kept = (labels < 0) | (labels == data.parts["class"].labels)
    stored = data.parts["class"].encoded()["label_logit"]  # (R, P, M)
    changed = rows_for(data, named={**rows_for(data).named, "class": labels})
    for batch in Loader(changed, store, batch_size=16, seed=0).epoch(0):
        soft = batch.only("class").soft
        assert soft is not None
        found = soft.members.columns["label_logit"].numpy().reshape(-1, *stored.shape[1:])  # type: ignore[attr-defined]
        want = np.where(kept[batch.rows][..., None], stored[batch.rows], np.float16(np.nan))
        assert np.array_equal(found, want, equal_nan=True)


def refuse(error: type[Exception], message: str, rows: TransferRows, store: Store) -> None:
    """By both."""
    with pytest.raises(error, match=message):
        _ = [*Loader(rows, store, batch_size=8, seed=0).epoch(0)]
    with pytest.raises(error, match=message):
        SoftLabelDataset(rows, store).__getitems__(range(ROWS))


def test_positions_that_are_not_the_stores(tmp_path: Path, rng: np.random.Generator) -> None:
    data = sample(rng, ROWS, "frames-arrow")
    assert data.mask is not None
    store = store_of(tmp_path / "store", data, "frames-arrow")
    other = data.mask.copy()
    other[17, 2] ^= 1
    message = (
        rf"row 17 of mine: the store's mask says {data.mask[17, 2]} at position 2, the transfer set says {other[17, 2]}"
    )
    refuse(AlignmentError, message, rows_for(data, mask=other), store)
    fixed = rows_for(data, ragged=False, mask=np.ones_like(data.mask))  # then the store says which count
    assert all(
        np.array_equal(b.mask, data.mask[b.rows] > 0) for b in Loader(fixed, store, batch_size=8, seed=0).epoch(0)
    )
    wide = {"labels": np.full((ROWS, 9), -1), "mask": np.ones((ROWS, 9), np.uint8)}
    refuse(
        AlignmentError,
        "have 9 positions, those of .* 5; set .*positions to 5",
        rows_for(data, positions=9, **wide),
        store,
    )
    nowhere = data.mask.copy()
    nowhere[4] = 0
    refuse(AlignmentError, "row 4 of mine has no position that counts", rows_for(data, mask=nowhere), store)
    flat = sample(rng, ROWS, "zarr")
    single = store_of(tmp_path / "single", flat, "zarr")
    refuse(ClassMismatch, "holds one distribution a row, and mine is rows of positions", rows_for(data), single)
    plain = {"positions": None, "mask": None, "labels": np.full(ROWS, 1)}
    refuse(
        ClassMismatch,
        r"int64 of shape \[70\], .* int64 of shape \[70, 5\]; .*positions: 5",
        rows_for(data, **plain),
        store,
    )
    none = rows_for(data, **plain | {"labels": np.full(ROWS, -1)})
    batch = next(Loader(none, store, batch_size=ROWS, seed=0, shuffle=False).epoch(0))
    assert batch.labels.shape == (ROWS, POSITIONS)
    assert (batch.labels == -1).all()


def test_labels_of_another_kind_or_that_cannot_be_true(tmp_path: Path, rng: np.random.Generator) -> None:
    data = sample(rng, ROWS, "several-zarr")
    store = store_of(tmp_path / "store", data, "several-zarr")
    good = rows_for(data).named

    def with_label(name: str, at: tuple[int, ...], value: float) -> TransferRows:
        labels = good[name].copy()
        labels[at] = value
        return rows_for(data, named={**good, name: labels})

    refuse(
        LabelError,
        r"row 3 of mine \(target class\) has the hard label 7 at position 2 \(1 labels are",
        with_label("class", (3, 2), 7),
        store,
    )
    refuse(
        LabelError,
        r"row 5 of mine \(target tag\) has the flag 3 of class 1 at position 4",
        with_label("tag", (5, 4, 1), 3),
        store,
    )
    box = np.where(np.isnan(good["box"]), 0, good["box"]).astype(np.float32)
    box[8, 1, 2] = np.nan
    half = rows_for(data, named={**good, "box": box})
    refuse(
        LabelError,
        r"row 8 of mine \(target box\) has the hard label \[.*nan.*\] at position 1, but a vector is finite, or NaN",
        half,
        store,
    )
    refuse(
        LabelError, r"row 9 of mine \(target box\) has the hard label .*inf", with_label("box", (9, 0), np.inf), store
    )
    refuse(
        ClassMismatch, r"mine has hard labels of boxes, and .* holds class, tag, box", with_name(data, "boxes"), store
    )
    narrow = rows_for(data, named={**good, "box": good["box"][..., :3]})
    refuse(
        ClassMismatch, r"target box: .*float32 of shape \[70, 5, 3\], .*float32 of shape \[70, 5, 4\]", narrow, store
    )
    swapped = rows_for(data, named={**good, "tag": good["class"]})
    refuse(ClassMismatch, r"target tag: .* int64 of shape .* label_as: set or flags", swapped, store)
    unnamed = rows_for(data, named={}, labels=data.labels)
    refuse(
        ClassMismatch, r"are of no target by name, and .*; write transfer_set.label: \{class: COLUMN\}", unnamed, store
    )
    turned = np.where(good["class"] >= 0, (good["class"] + 1) % 7, -1)
    other = rows_for(data, named={**good, "class": turned})
    refuse(OtherLabels, r"mine \(target class\) calls class 1 what .* calls class 0", other, store)


def with_name(data: Sample, name: str) -> TransferRows:
    named = rows_for(data).named
    return rows_for(data, named={**named, name: named["box"]})


def test_rows_without_a_store_have_the_kinds_of_their_labels(rng: np.random.Generator) -> None:
    data = sample(rng, ROWS, "ragseveral-arrow")
    named = {**rows_for(data).named, "box": rng.normal(size=(ROWS, POSITIONS, 4)).astype(np.float32)}
    for batch in Loader(rows_for(data, named=named), None, batch_size=32, seed=0).epoch(0):
        assert batch.mask is not None
        assert np.array_equal(batch.mask, data.mask[batch.rows] > 0)  # type: ignore[index]
        assert batch.only("box").labels[~batch.mask].isnan().all()
        assert batch.only("class").labels.dtype == torch.int64
        assert batch.only("tag").labels.dtype == torch.int8
        assert batch.only("tag").soft is None
    with pytest.raises(SeveralTargets, match="a batch holds targets by name"):
        _ = batch.labels
    with pytest.raises(ConfigError, match="no store"):
        SoftLabelDataset(rows_for(data, named=named), None).soft_labels({}, "tag")
