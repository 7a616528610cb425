"""What students are trained, chosen and judged on: never the same rows, whatever the seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.store import Store
from pipeline.stream import EmbeddedRows, Loader
from pipeline.student.config import TrainingConfig
from pipeline.student.split import labelled_rows
from stages.splits import Split, held_out_batches, training_batches
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
def test_rows_held_out_are_not_trained_on_and_few_keep_their_label(stores: dict[str, Store], seed: int) -> None:
    config = TrainingConfig(seed=seed, validation=0.2, hard_label_fraction=0.3, batch_size=16)
    train, validation = training_batches(splits(stores, "train"), config)
    assert validation is not None
    trained, held_out = visited(train), visited(validation)
    assert len(held_out) == 40
    assert trained.keys() | held_out.keys() == set(range(200))
    assert not trained.keys() & held_out.keys()
    kept = labelled_rows(EmbeddedRows(stores["train"]).keys, 0.3, seed)
    assert trained == {row: row % 5 if kept[row] else -1 for row in trained}
    assert min(held_out.values()) >= 0


def test_a_stored_validation_split_leaves_all_training_rows(stores: dict[str, Store]) -> None:
    train, validation = training_batches(splits(stores, "train", "validation"), TrainingConfig(validation=0.2))
    assert len(visited(train)) == 200
    assert validation is not None
    assert len(visited(validation)) == 200


def test_hard_and_distilled_students_see_the_same_rows_in_the_same_order(stores: dict[str, Store]) -> None:
    loaders = [
        training_batches(splits(stores, "train"), TrainingConfig(alpha=alpha, seed=3))[0] for alpha in (0.0, 0.9)
    ]
    one, other = ([row for batch in loader.epoch(2) for row in batch.rows] for loader in loaders)
    assert one == other


def test_the_test_split_is_judged_on_where_there_is_one(stores: dict[str, Store]) -> None:
    config = TrainingConfig(validation=0.2)
    assert held_out_batches(splits(stores, "train", "test"), config)[0] == "test"
    name, loader = held_out_batches(splits(stores, "train"), config)
    assert name == "validation"
    assert not visited(loader).keys() & visited(training_batches(splits(stores, "train"), config)[0]).keys()
