"""What students are trained, chosen and judged on: never the same rows, whatever the seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softlabels.errors import ConfigError
from softlabels.jobs.splits import Split, held_out_batches, training_batches
from softlabels.store import Store
from softlabels.stream import EmbeddedRows, Loader
from softlabels.student.sweep import StudentTraining
from tests.stream.samples import write_store


def visited(loader: Loader) -> dict[int, int]:
    """Row -> hard label."""
    return {
        int(row): int(label) for batch in loader.epoch(0) for row, label in zip(batch.rows, batch.labels, strict=True)
    }


@pytest.fixture
def stores(tmp_path: Path) -> dict[str, Store]:
    return {name: write_store(tmp_path / name, np.arange(200), embed=True) for name in ("train", "validation", "test")}


def splits(stores: dict[str, Store], *names: str) -> dict[str, Split]:
    return {name: Split(stores[name], EmbeddedRows(stores[name])) for name in names}


@pytest.mark.parametrize("seed", [0, 1])
def test_rows_held_out_are_not_trained_on(stores: dict[str, Store], seed: int) -> None:
    config = StudentTraining(seed=seed, validation=0.2, batch_size=16)
    train, validation = training_batches(splits(stores, "train"), config)
    assert validation is not None
    trained, held_out = visited(train), visited(validation)
    assert len(held_out) == 40
    assert trained.keys() | held_out.keys() == set(range(200))
    assert not trained.keys() & held_out.keys()
    assert trained == {row: row % 5 for row in trained}
    assert min(held_out.values()) >= 0


def test_a_stored_validation_split_leaves_all_training_rows(stores: dict[str, Store]) -> None:
    train, validation = training_batches(splits(stores, "train", "validation"), StudentTraining(validation=0.2))
    assert len(visited(train)) == 200
    assert validation is not None
    assert len(visited(validation)) == 200


def test_the_seed_decides_the_order_and_the_students_seeds_do_not(stores: dict[str, Store]) -> None:
    def order(**settings: Any) -> list[int]:
        loader, _ = training_batches(splits(stores, "train"), StudentTraining(**settings))
        return [int(row) for batch in loader.epoch(2) for row in batch.rows]

    assert order(seeds=(0, 1)) == order(seeds=(7,), temperature=(1.0, 2.0))
    assert order(seed=1) != order(seed=0)


def test_classes_and_a_share_of_the_rows_can_be_chosen(stores: dict[str, Store]) -> None:
    only = StudentTraining(only_classes=(1, 3), validation=0.25)
    train, validation = training_batches(splits(stores, "train"), only)
    assert validation is not None
    trained, held_out = visited(train), visited(validation)
    assert {*trained.values(), *held_out.values()} == {1, 3}
    assert (len(trained), len(held_out)) == (60, 20)
    few, rest = training_batches(splits(stores, "train"), StudentTraining(row_fraction=0.1, validation=0.25))
    assert rest is not None
    assert (len(visited(few)), len(visited(rest))) == (15, 5)
    other, _ = training_batches(splits(stores, "train"), StudentTraining(row_fraction=0.1, validation=0, seed=1))
    assert visited(other).keys() != visited(few).keys() | visited(rest).keys()
    with pytest.raises(ConfigError, match=r"only_classes=\(\), row_fraction=1.0 leave no training row"):
        training_batches(splits(stores, "train"), StudentTraining(only_classes=()))
    with pytest.raises(
        ConfigError, match=r"only_classes names 9, and the store has \d classes; give numbers from 0 to"
    ):
        training_batches(splits(stores, "train"), StudentTraining(only_classes=(1, 9)))


def test_the_test_split_is_judged_on_where_there_is_one(stores: dict[str, Store]) -> None:
    config = StudentTraining(validation=0.2)
    assert held_out_batches(splits(stores, "train", "test"), config)[0] == "test"
    name, loader = held_out_batches(splits(stores, "train"), config)
    assert name == "validation"
    assert not visited(loader).keys() & visited(training_batches(splits(stores, "train"), config)[0]).keys()
