from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from softlabels.errors import ConfigError, Stalled, UnlabelledRows
from softlabels.labels.soft import SoftLabels
from softlabels.stream import EmbeddedRows, Loader, SoftLabelDataset, watched
from softlabels.system.patience import process
from tests.stream.samples import CHUNK, CLASSES, inputs_of, labels_of, rows_of


def check(batch: dict[str, torch.Tensor], numbers: np.ndarray) -> None:
    """The values of a collated batch are those of its rows, where the store holds `numbers` in ascending order."""
    identity = numbers[batch["row"].numpy()]
    logits, shift = labels_of(np.searchsorted(np.sort(numbers), identity))
    assert np.array_equal(batch["input"].numpy(), inputs_of(identity))
    assert np.array_equal(batch["label"].numpy(), identity % CLASSES)
    assert np.array_equal(batch["logits"].numpy(), logits)
    assert np.array_equal(batch["shift"].numpy(), shift)


@pytest.fixture
def numbers(rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(400)[:150]


@pytest.mark.parametrize(("workers", "start"), [(0, None), (2, "fork"), (1, "spawn")])
def test_a_data_loader_collates_the_right_values(make_store, numbers, workers: int, start: str | None) -> None:
    dataset = SoftLabelDataset(rows_of(numbers), make_store(np.sort(numbers)))
    loader = DataLoader(dataset, batch_size=32, shuffle=True, num_workers=workers, multiprocessing_context=start)
    batches = list(loader)
    for batch in batches:
        check(batch, numbers)
        assert batch["label"].dtype == batch["row"].dtype == torch.int64
    assert sorted(torch.cat([batch["row"] for batch in batches]).tolist()) == list(range(150))


def test_it_agrees_with_the_loader(make_store, numbers) -> None:
    rows, store, weights = rows_of(numbers), make_store(np.sort(numbers)), [1.0, 2.0]
    dataset = SoftLabelDataset(rows, store, weights=weights)
    ours = next(Loader(rows, store, batch_size=150, seed=0, weights=weights, shuffle=False).epoch(0))
    theirs = dataset.soft_labels(next(iter(DataLoader(dataset, batch_size=150))))
    assert isinstance(theirs, SoftLabels)
    assert ours.soft is not None
    assert torch.equal(ours.soft.log_probs(3.0), theirs.log_probs(3.0))


def test_single_items_and_lists(make_store, numbers) -> None:
    dataset = SoftLabelDataset(rows_of(numbers), make_store(np.sort(numbers)), selection=np.array([7, 3, 100]))
    assert len(dataset) == 3
    assert [dataset[i]["row"].item() for i in range(3)] == [7, 3, 100]
    several = dataset.__getitems__([2, 0, 2])
    assert [one["row"].item() for one in several] == [100, 7, 100]
    assert torch.equal(several[1]["logits"], dataset[0]["logits"])
    for index in (3, -1):
        with pytest.raises(IndexError, match="numbered 0 to 2"):
            dataset[index]


def reads_of(store, monkeypatch) -> list[tuple[str, int]]:
    reads: list[tuple[str, int]] = []
    read = store.read_chunk
    monkeypatch.setattr(store, "read_chunk", lambda column, chunk: reads.append((column, chunk)) or read(column, chunk))
    return reads


def test_cached_chunks_are_not_read_again(make_store, monkeypatch) -> None:
    numbers = np.arange(5 * CHUNK)
    store = make_store(numbers)
    dataset = SoftLabelDataset(rows_of(numbers), store)
    reads = reads_of(store, monkeypatch)
    for row in np.random.default_rng(0).permutation(numbers):
        dataset[int(row)]
    assert sorted(reads) == [(column, chunk) for column in ("logits", "shift") for chunk in range(5)]


@pytest.mark.parametrize("embed", [False, True])
def test_the_cache_keeps_to_its_limit_and_to_the_latest_chunks(make_store, monkeypatch, embed: bool) -> None:
    numbers = np.arange(5 * CHUNK)
    store = make_store(numbers, embed=embed)
    kept = ("logits", "shift", "input") if embed else ("logits", "shift")
    two_chunks = 2 * sum(store.columns[name].row_bytes for name in kept) * CHUNK
    rows = EmbeddedRows(store) if embed else rows_of(numbers)
    dataset = SoftLabelDataset(rows, store, cache_bytes=two_chunks)
    reads = reads_of(store, monkeypatch)
    for chunk in (0, 1, 0, 2, 0, 1):
        dataset[chunk * CHUNK]
    assert [chunk for column, chunk in reads if column == "logits"] == [0, 1, 2, 1]


def test_without_a_store(numbers) -> None:
    dataset = SoftLabelDataset(rows_of(numbers), None)
    batch = next(iter(DataLoader(dataset, batch_size=10)))
    assert sorted(batch) == ["input", "label", "row"]
    assert np.array_equal(batch["input"].numpy(), inputs_of(numbers[:10]))
    with pytest.raises(ConfigError, match="holds no soft labels"):
        dataset.soft_labels(batch)


def test_embedded_inputs(make_store) -> None:
    numbers = np.arange(100)
    store = make_store(numbers, embed=True)
    for batch in DataLoader(SoftLabelDataset(EmbeddedRows(store), store), batch_size=16, shuffle=True):
        check(batch, numbers)


def test_rows_without_labels(make_store) -> None:
    store = make_store(np.arange(30))
    with pytest.raises(UnlabelledRows, match="10 of 40"):
        SoftLabelDataset(rows_of(np.arange(40)), store)
    assert len(SoftLabelDataset(rows_of(np.arange(40)), store, missing="skip")) == 30


def test_a_pickle_holds_neither_cached_chunks_nor_mapped_inputs(make_store, tmp_path) -> None:
    numbers = np.arange(64)
    big = np.lib.format.open_memmap(tmp_path / "inputs.npy", "w+", np.float32, (64, 100_000))
    big[:] = numbers[:, None]
    rows = replace(rows_of(numbers), inputs=np.load(tmp_path / "inputs.npy", mmap_mode="r"))
    dataset = SoftLabelDataset(rows, make_store(numbers))
    dataset[5]
    data = pickle.dumps(dataset)
    assert len(data) < 100_000
    item = pickle.loads(data)[63]
    assert item["input"].tolist() == [63.0] * 100_000
    assert item["shift"].tolist() == dataset[63]["shift"].tolist()


def test_without_workers_watched_reads_in_this_thread() -> None:
    """Another one would draw random numbers at the same time as the model, in no order that a seed decides."""
    threads = []

    class Threads(Dataset[int]):
        def __len__(self) -> int:
            return 30

        def __getitem__(self, index: int) -> int:
            threads.append(threading.current_thread())
            return index

    assert torch.cat(list(watched(DataLoader(Threads(), batch_size=10)))).tolist() == list(range(30))
    assert {*threads} == {threading.current_thread()}


class Numbers(Dataset[int]):
    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> int:
        return index


def test_a_worker_that_was_started_for_an_earlier_pass_is_named_and_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTLABELS_PATIENCE", "1")
    batches = DataLoader(Numbers(), batch_size=10, num_workers=2, persistent_workers=True)
    assert len(list(watched(batches))) == 100
    second = watched(batches)
    next(second)
    worker = sorted(multiprocessing.active_children(), key=lambda child: child.pid or 0)[0]
    os.kill(worker.pid or 0, signal.SIGSTOP)
    with pytest.raises(Stalled, match=f"from 2 workers: process {worker.pid} "):
        list(second)
    assert "stopped" not in process(worker.pid or 0)
    for thread in threading.enumerate():  # it ends with the batch of the worker that goes on, and without workers never
        if thread.name == "softlabels-prefetch":
            thread.join(timeout=100)
    batches._iterator._shutdown_workers()  # type: ignore[union-attr]
    assert worker.exitcode is not None
