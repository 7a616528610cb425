"""Batches and rows in the loops of others. The trainers: tests/docs/test_loops.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from softlabels.errors import SpecMismatch
from softlabels.stream import Loader, SoftLabelBatches, SoftLabelDataset
from tests.stream.samples import CHUNK, rows_of, write_store

ROWS, BATCH = 150, 16


@pytest.fixture
def loader(make_store, rng) -> Loader:
    numbers = rng.permutation(400)[:ROWS]
    return Loader(rows_of(numbers), make_store(np.sort(numbers)), batch_size=BATCH, seed=0, block=CHUNK, window=2)


def rows_in(batches) -> list[list[int]]:
    return [batch["row"].tolist() for batch in batches]


@pytest.mark.parametrize(("workers", "given"), [(0, 4), (2, 3)])
def test_a_stateful_data_loader_goes_on_with_the_next_row(loader, workers: int, given: int) -> None:
    def feed() -> StatefulDataLoader:
        return StatefulDataLoader(SoftLabelBatches(loader), batch_size=None, num_workers=workers)

    first = feed()
    first.dataset.set_epoch(3)
    passing = iter(first)
    rows = rows_in(next(passing) for _ in range(given))
    state = json.loads(json.dumps(first.state_dict()))  # plain numbers and texts
    rest = rows_in(passing)
    assert sorted(row for batch in rows + rest for row in batch) == list(range(ROWS))
    second = feed()
    second.load_state_dict(state)
    assert rows_in(second) == rest
    second.dataset.set_epoch(4)
    first.dataset.set_epoch(4)
    assert rows_in(second) == rows_in(first) != rows + rest


def test_a_state_at_the_end_of_an_epoch_goes_on_with_the_next_epoch(loader) -> None:
    first, second = (StatefulDataLoader(SoftLabelBatches(loader), batch_size=None) for _ in range(2))
    list(first)
    second.load_state_dict(first.state_dict())
    second.dataset.set_epoch(1)
    assert rows_in(second) == [batch.rows.tolist() for batch in loader.epoch(1)]


def test_a_state_of_other_batches_is_an_error_of_the_worker(loader) -> None:
    state = StatefulDataLoader(SoftLabelBatches(loader), batch_size=None, num_workers=1).state_dict()
    loader.order_digest = "another"
    other = StatefulDataLoader(SoftLabelBatches(loader), batch_size=None, num_workers=1)
    other.load_state_dict(state)
    with pytest.raises(SpecMismatch, match="of other batches than these: order "):
        next(iter(other))


def test_windows_go_on_with_the_next_row_too(make_store) -> None:
    dataset = SoftLabelDataset(rows_of(np.arange(ROWS)), make_store(np.arange(ROWS)))

    def feed(kind=StatefulDataLoader):
        sampler = dataset.windows(seed=0, block=CHUNK, window=2)
        sampler.set_epoch(2)
        return kind(dataset, batch_size=BATCH, sampler=sampler)

    first, second = feed(), feed()
    passing = iter(first)
    next(passing), next(passing)
    second.load_state_dict(first.state_dict())
    assert rows_in(second) == rows_in(passing) == rows_in(feed(DataLoader))[2:]


@pytest.mark.slow
def test_two_processes_of_accelerate_share_the_rows(tmp_path: Path) -> None:
    """All ways that docs/loops.md names, of 192 rows: six batches of each, and nothing to be repeated at the end."""
    write_store(tmp_path / "store", np.arange(192), embed=True)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--master_port=0",
        "--rdzv-backend=c10d",
    ]
    command += ["--rdzv-endpoint=localhost:0", "-m", "tests.stream.accelerated", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    zero, one = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert list(zero) == ["dispatched", "own parts", "rows dispatched", "rows by process", "nobody said"]
    for way in list(zero)[:4]:
        for epoch in (0, 1):
            ours, theirs = zero[way][epoch], one[way][epoch]
            assert len(ours) == len(theirs) == 6, way
            assert sorted(row for batch in ours + theirs for row in batch) == list(range(192)), way
        assert zero[way][0] != zero[way][1]
    assert "this one's part of the rows is not given" in zero["nobody said"]
