from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader, Subset

from softlabels.errors import ConfigError, SpecMismatch
from softlabels.stream import Loader, Part, SoftLabelBatches, SoftLabelDataset
from tests.stream.samples import CHUNK, rows_of
from tests.stream.test_dataset import check, reads_of

ROWS, BATCH = 150, 32


@pytest.fixture
def numbers(rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(400)[:ROWS]


@pytest.fixture
def loader(make_store, numbers) -> Loader:
    """Its windows are two chunks."""
    return Loader(rows_of(numbers), make_store(np.sort(numbers)), batch_size=BATCH, seed=0, block=CHUNK, window=2)


def rows_in(batches) -> list[list[int]]:
    return [batch["row"].tolist() for batch in batches]


def test_alone_it_gives_the_batches_of_the_loader(loader, numbers) -> None:
    batches = SoftLabelBatches(loader)
    for epoch in (0, 1, 2):  # each pass to the end is followed by the next epoch
        found = list(DataLoader(batches, batch_size=None))
        assert len(found) == len(batches) == loader.steps_per_epoch
        for ours, theirs in zip(found, loader.epoch(epoch), strict=True):
            check(ours, numbers)
            assert ours["row"].tolist() == theirs.rows.tolist()
            assert torch.equal(batches.soft_labels(ours).log_probs(2.0), theirs.soft.log_probs(2.0))


def as_defined(loader: Loader, epoch: int, world: int, workers: int) -> list[list[list[int]]]:
    """The batches of each rank: stretches of the sequence, one behind the other, of its workers, whose batches alternate."""
    sequence = iter(np.concatenate([batch.rows for batch in loader.epoch(epoch)]).tolist())
    steps = [BATCH] * (ROWS // BATCH) + [ROWS % BATCH] * (ROWS % BATCH > 0)
    found = []
    for rank in range(world):
        own: dict[int, list[int]] = {}
        for worker in range(workers):
            for step in range(worker, len(steps), workers):
                size = steps[step] * (rank + 1) // world - steps[step] * rank // world
                own[step] = [next(sequence) for _ in range(size)]
        found.append([own[step] for step in range(len(steps))])
    assert list(sequence) == []
    return found


@pytest.mark.parametrize(("world", "workers"), [(1, 1), (2, 0), (3, 2)])
def test_workers_and_processes_give_every_row_once_in_the_stated_order(loader, numbers, world, workers) -> None:
    expected = as_defined(loader, 1, world, max(1, workers))
    for rank in range(world):
        batches = SoftLabelBatches(loader, part=Part(rank, world))
        batches.set_epoch(1)
        found = list(DataLoader(batches, batch_size=None, num_workers=workers))
        assert rows_in(found) == expected[rank]
        assert len(found) == len(batches)
        for batch in found:
            check(batch, numbers)
    assert sorted(row for rank in expected for batch in rank for row in batch) == list(range(ROWS))


def test_chunks_are_read_by_one_process_but_where_stretches_meet(make_store, monkeypatch) -> None:
    numbers = np.arange(20 * CHUNK)
    store = make_store(numbers)
    loader = Loader(rows_of(numbers), store, batch_size=CHUNK, seed=0, block=CHUNK, window=2)
    reads = reads_of(store, monkeypatch)
    for rank in range(3):
        list(SoftLabelBatches(loader, part=Part(rank, 3)))
    chunks = [chunk for column, chunk in reads if column == "logits"]
    assert set(chunks) == set(range(20))
    assert len(chunks) <= 20 + 2 * 2  # three stretches meet twice, in a window of two chunks


@pytest.mark.parametrize("kept", [False, True])
def test_workers_hear_of_the_next_epoch(loader, kept: bool) -> None:
    batches = SoftLabelBatches(loader)
    feed = DataLoader(batches, batch_size=None, num_workers=2, persistent_workers=kept)
    for epoch in (0, 2):
        batches.set_epoch(epoch)
        assert rows_in(feed) == as_defined(loader, epoch, 1, 2)[0]
    next(iter(feed))  # a pass that is broken off leaves no trace
    assert rows_in(feed) == as_defined(loader, 2, 1, 2)[0]


def test_a_copy_in_a_spawned_process_hears_of_the_next_epoch_and_maps_inputs_itself(make_store, tmp_path) -> None:
    numbers = np.arange(64)
    np.save(tmp_path / "inputs.npy", np.repeat(np.float32(numbers), 10_000).reshape(64, 10_000))
    rows = replace(rows_of(numbers), inputs=np.load(tmp_path / "inputs.npy", mmap_mode="r"))
    loader = Loader(rows, make_store(numbers), batch_size=10, seed=0)
    list(loader.epoch(0))
    batches = SoftLabelBatches(loader)
    data = bytes(ForkingPickler.dumps(batches))  # as it goes to such a process
    assert len(data) < 100_000
    there = pickle.loads(data)
    batches.set_epoch(3)
    for ours, theirs in zip(there, loader.epoch(3), strict=True):
        assert ours["row"].tolist() == theirs.rows.tolist() == ours["input"][:, 7].tolist()


@pytest.mark.parametrize("given", [0, 1, 3, 5])
def test_a_state_goes_on_with_the_next_batch(loader, given: int) -> None:
    first = SoftLabelBatches(loader)
    first.set_epoch(4)
    feed = iter(first)
    for _ in range(given):
        next(feed)
    state = pickle.loads(pickle.dumps(first.state_dict()))
    second = SoftLabelBatches(loader)
    second.load_state_dict(state)
    assert second.state_dict() == state
    second.set_epoch(4)  # as a loop over epochs does
    whole = [batch.rows.tolist() for batch in loader.epoch(4)]
    assert rows_in(second) == whole[given:] == rows_in(feed)
    assert second.state_dict() == first.state_dict() == {**state, "epoch": 5, "batch": 0}
    assert rows_in(second) == [batch.rows.tolist() for batch in loader.epoch(5)]


def test_another_epoch_forgets_a_state(loader) -> None:
    batches = SoftLabelBatches(loader)
    next(iter(batches))
    batches.load_state_dict(batches.state_dict())
    batches.set_epoch(7)
    assert rows_in(batches) == [batch.rows.tolist() for batch in loader.epoch(7)]


def test_a_state_of_other_batches_is_refused(loader, make_store, numbers) -> None:
    state = SoftLabelBatches(loader).state_dict()
    other = Loader(rows_of(numbers), make_store(np.sort(numbers)), batch_size=BATCH, seed=1)
    for batches, what in (
        (SoftLabelBatches(other), "order "),
        (SoftLabelBatches(loader, part=Part(0, 2)), "processes 1, not 2"),
    ):
        batches.load_state_dict(state)
        with pytest.raises(SpecMismatch, match=f"of other batches than these: {what}"):
            iter(batches)
    batches = SoftLabelBatches(loader)
    batches.load_state_dict(state)
    with pytest.raises(SpecMismatch, match="workers 1, not 2"):
        next(iter(DataLoader(batches, batch_size=None, num_workers=2)))


def test_a_loader_of_a_part_is_refused(make_store, numbers) -> None:
    part = Loader(rows_of(numbers), make_store(np.sort(numbers)), batch_size=BATCH, seed=0, part=Part(0, 2))
    with pytest.raises(ConfigError, match="gives a part of its batches"):
        SoftLabelBatches(part)


@pytest.fixture
def two_processes(monkeypatch) -> None:
    """What torch.distributed says where it joins two; nothing else is asked of it."""
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)


def test_several_processes_must_say_whose_rows_these_are(loader, request) -> None:
    early = SoftLabelBatches(loader)
    request.getfixturevalue("two_processes")
    for ask in (lambda: SoftLabelBatches(loader), lambda: iter(early), lambda: pickle.dumps(early)):
        with pytest.raises(ConfigError, match="joins 2 processes, and this one's part of the rows is not given"):
            ask()
    assert rows_in(SoftLabelBatches(loader, part=Part())) == [batch.rows.tolist() for batch in loader.epoch(0)]


@pytest.mark.parametrize("size", [1, 4])
def test_batches_are_not_put_into_batches_again(loader, size: int) -> None:
    with pytest.raises(ConfigError, match=r"give DataLoader\(batch_size=None\)"):
        next(iter(DataLoader(SoftLabelBatches(loader), batch_size=size)))


@pytest.fixture
def dataset(make_store, numbers) -> SoftLabelDataset:
    return SoftLabelDataset(rows_of(numbers), make_store(np.sort(numbers)))


def stacked_by_hand(rows) -> dict[str, torch.Tensor]:
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


@pytest.mark.parametrize("collate", [None, stacked_by_hand])
@pytest.mark.parametrize("subset", [False, True])
def test_default_and_own_collate_functions_give_the_same(dataset, numbers, collate, subset: bool) -> None:
    data = Subset(dataset, range(10, 60)) if subset else dataset
    batch = next(iter(DataLoader(data, batch_size=20, collate_fn=collate)))
    check(batch, numbers)
    assert batch["row"].tolist() == list(range(10, 30) if subset else range(20))


def test_rows_one_by_one_are_collated_too(dataset, numbers) -> None:
    batch = torch.utils.data.default_collate([dataset[5], dataset[3]])
    check(batch, numbers)
    assert batch["row"].tolist() == [5, 3]
    rows = dataset.__getitems__([4, 8, 2])
    assert [row["row"].item() for row in rows[1:]] == [8, 2]


def columns(batch: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    yield from ((name, each.tolist() if isinstance(each, torch.Tensor) else each) for name, each in batch.items())


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda batch: pickle.loads(pickle.dumps(batch))])
def test_a_batch_travels_in_one_piece_with_whatever_was_added(dataset, how) -> None:
    batch = next(iter(DataLoader(dataset, batch_size=7)))
    batch["odd"] = torch.tensor([True, False, True])  # three bytes
    batch["none"] = torch.zeros(0, 3)
    batch["turned"] = torch.arange(6.0).view(2, 3).T
    batch["scalar"] = torch.tensor(3)
    batch["grad"] = torch.ones(2, requires_grad=True)
    batch["text"] = "as it is"
    other = how(batch)
    assert dict(columns(other)) == dict(columns(batch))
    assert {n: (v.dtype, v.shape) for n, v in other.items() if n != "text"} == {
        n: (v.dtype, v.shape) for n, v in batch.items() if n != "text"
    }


def test_windows_give_every_row_once_and_each_chunk_is_read_once(make_store, monkeypatch) -> None:
    numbers = np.arange(24 * CHUNK)
    store = make_store(numbers)
    three_windows = 6 * CHUNK * sum(store.columns[name].row_bytes for name in ("logits", "shift"))
    dataset = SoftLabelDataset(rows_of(numbers), store, cache_bytes=three_windows)
    reads = reads_of(store, monkeypatch)
    sampler = dataset.windows(seed=0, block=CHUNK, window=2)
    orders = []
    for _ in range(2):
        reads.clear()
        found = rows_in(DataLoader(dataset, batch_size=20, sampler=sampler))
        orders.append([row for batch in found for row in batch])
        assert sorted(orders[-1]) == numbers.tolist()
        assert sorted(chunk for column, chunk in reads if column == "logits") == list(range(24))
        window = {row // CHUNK for row in orders[-1][: 2 * CHUNK]}
        assert len(window) == 2
        assert orders[-1][:CHUNK] != sorted(orders[-1][:CHUNK])
    assert orders[0] != orders[1]
    assert len(sampler) == len(numbers)
    sampler.set_epoch(0)
    assert list(sampler) == orders[0]
    assert list(dataset.windows(seed=1, block=CHUNK, window=2)) not in orders


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda dataset: pickle.loads(pickle.dumps(dataset))])
def test_a_copy_of_a_dataset_has_the_same_windows(make_store, numbers, how) -> None:
    selection = np.arange(ROWS)[::-2]
    dataset = SoftLabelDataset(rows_of(numbers), make_store(np.sort(numbers)), selection=selection)
    assert list(how(dataset).windows(seed=3)) == list(dataset.windows(seed=3))
    assert list(how(dataset).windows(seed=3, block=4, window=2)) == list(dataset.windows(seed=3, block=4, window=2))


def test_a_place_that_only_workers_know_is_neither_said_nor_taken(loader) -> None:
    batches = SoftLabelBatches(loader)
    state = batches.state_dict()
    feed = DataLoader(batches, batch_size=None, num_workers=1)
    next(iter(feed))
    with pytest.raises(ConfigError, match=r"only they know their positions.*StatefulDataLoader"):
        batches.state_dict()
    batches.load_state_dict(state | {"batch": 2})
    with pytest.raises(ConfigError, match=r"worker processes give its batches.*StatefulDataLoader"):
        next(iter(feed))
    assert rows_in(batches) == [batch.rows.tolist() for batch in loader.epoch(0)][2:]
    assert batches.state_dict() == state | {"epoch": 1}
    batches.set_epoch(2)
    list(feed)
    batches.set_epoch(3)
    assert batches.state_dict() == state | {"epoch": 3}


@pytest.mark.parametrize("change", [{"batch": -1}, {"epoch": -1}, None])
def test_what_is_no_state_is_refused(loader, change) -> None:
    batches = SoftLabelBatches(loader)
    with pytest.raises(ConfigError, match="not a state of SoftLabelBatches; give the result of state_dict"):
        batches.load_state_dict({"epoch": 1, "batch": 1} if change is None else batches.state_dict() | change)


@pytest.mark.parametrize("index", [[1, 2], 2.7, [2.0], slice(1, 3)])
def test_an_example_has_one_whole_number(dataset, index) -> None:
    with pytest.raises(ConfigError, match=r"numbered by integers, not by .*batch_sampler"):
        dataset[index]


def test_no_window_of_nothing(dataset) -> None:
    for options in ({"window": 0}, {"window": -2}, {"block": 0}, {"block": -1}):
        with pytest.raises(ConfigError, match=f"{next(iter(options))} must be at least 1"):
            dataset.windows(seed=0, **options)


def test_tensors_that_are_no_plain_arrays_travel_too(dataset) -> None:
    batch = next(iter(DataLoader(dataset, batch_size=2)))
    batch["sparse"] = torch.eye(3).to_sparse()
    for other in (copy.deepcopy(batch), pickle.loads(pickle.dumps(batch))):
        assert torch.equal(other["sparse"].to_dense(), torch.eye(3))
        assert torch.equal(other["logits"], batch["logits"])


def test_batches_and_rows_are_trees(dataset) -> None:
    for columns_ in (next(iter(DataLoader(dataset, batch_size=2))), dataset[1]):
        doubled = tree_map(lambda values: values * 2, columns_)
        assert type(doubled) is type(columns_)
        assert dict(columns(doubled)) == {name: (values * 2).tolist() for name, values in columns_.items()}


def test_a_batch_that_was_saved_is_read_again(dataset, tmp_path) -> None:
    batch = next(iter(DataLoader(dataset, batch_size=2)))
    torch.save(batch, tmp_path / "batch.pt")
    assert dict(columns(torch.load(tmp_path / "batch.pt"))) == dict(columns(batch))
