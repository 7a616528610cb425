"""Which rows and positions a page looks at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from softlabels import write_store
from softlabels.pages import sample as pages_sample
from softlabels.pages.class_shares import class_shares
from softlabels.pages.sample import positions, sample


def test_all_rows_up_to_a_number(tmp_path: Path, rng: np.random.Generator) -> None:
    store = write_store(tmp_path / "s" / "train", rng.normal(size=(50, 3)), inputs=rng.normal(size=(50, 2)))
    assert sample(store, 50).rows.tolist() == [*range(50)]
    assert sample(store, 50).words == "all 50 rows"


def test_of_more_evenly_by_key_in_any_order_of_rows(tmp_path: Path, rng: np.random.Generator) -> None:
    logits, keys = rng.normal(size=(4000, 3)), rng.integers(0, 256, (4000, 16), np.uint8)
    store = write_store(tmp_path / "a" / "train", logits, keys=keys, rows_per_shard=512)
    rows = sample(store, 400).rows
    assert len(rows) == 400
    assert [len(sample(store, most).rows) for most in (1, 7, 60, 3990)] == [1, 7, 60, 3990]
    assert (np.diff(rows) > 0).all()
    assert 0.4 < (rows < 2000).mean() < 0.6
    order = rng.permutation(4000)
    other = write_store(tmp_path / "b" / "train", logits[order], keys=keys[order], layout="arrow")
    assert {*order[sample(other, 400).rows].tolist()} == {*rows.tolist()}
    assert "400 of 4,000 rows, taken evenly" in sample(store, 400).words


def test_positions_that_count(tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = rng.integers(0, 2, (60, 7))
    mask[:, 3] = 1  # a row has one at least
    logits = rng.normal(size=(60, 7, 2, 3))
    keys, labels = rng.integers(0, 256, (60, 16), np.uint8), np.where(mask, rng.integers(-1, 3, (60, 7)), -1)
    store = write_store(tmp_path / "s" / "train", logits, keys=keys, mask=mask, labels=labels)
    [block] = positions(store, sample(store, 60), 1000)
    rows, places, columns = block
    assert np.array_equal(np.stack([rows, places], axis=1), np.argwhere(mask))
    assert np.array_equal(columns["logits"], store.column("logits")[rows, places])
    some = next(positions(store, sample(store, 60), 100))
    assert len(some[0]) == -(-mask.sum() // 5)
    monkeypatch.setattr(pages_sample, "_BLOCK_BYTES", 1000)  # a few rows
    blocks = [*positions(store, sample(store, 60), 100)]
    assert len(blocks) > 5
    assert np.array_equal(np.concatenate([block[1] for block in blocks]), some[1])
    counted = class_shares(store)
    assert (counted.positions, counted.labelled) == (mask.sum(), (labels[mask != 0] >= 0).sum())
    assert counted.counts.tolist() == [((labels == c) & (mask != 0)).sum() for c in range(3)]


def test_flags_are_counted_where_they_are_known(tmp_path: Path, rng: np.random.Generator) -> None:
    labels = rng.integers(-1, 2, (80, 4))
    keys = rng.integers(0, 256, (80, 16), np.uint8)
    logits = rng.normal(size=(80, 4))
    store = write_store(tmp_path / "s" / "train", logits, keys=keys, labels=labels, kind="sigmoid")
    found = class_shares(store)
    assert found.counts.tolist() == (labels == 1).sum(axis=0).tolist()
    assert found.known.tolist() == (labels >= 0).sum(axis=0).tolist()
    assert found.labelled == (labels >= 0).any(axis=1).sum()
