from __future__ import annotations

import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from softlabels.errors import ConfigError, DamagedShard, LabelError, MeanUnavailable, MissingShard, UnlabelledRows
from softlabels.stream import Batch, EmbeddedRows, Loader, SoftLabelDataset
from tests.stream.samples import CHUNK, CLASSES, MEMBERS, inputs_of, labels_of, rows_of


@pytest.fixture(autouse=True)
def one_window_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is read, however small, and into memory that was used before."""
    monkeypatch.setattr("softlabels.stream.loader.READ_ROWS", 1)
    monkeypatch.setattr("softlabels.system.buffers.SMALLEST", 1)


def check_values(batch: Batch, numbers: np.ndarray, stored: np.ndarray) -> None:
    """Every row's input, label and logits are those of its own row."""
    identity = numbers[batch.rows]
    assert np.array_equal(batch.inputs.numpy(), inputs_of(identity))
    assert np.array_equal(batch.labels.numpy(), identity % CLASSES)
    first = {int(number): row for row, number in reversed(list(enumerate(stored)))}
    logits, shift = labels_of(np.array([first[int(one)] for one in identity]))
    assert batch.soft is not None
    assert np.array_equal(batch.soft.members.logits.numpy(), logits)
    assert np.array_equal(batch.soft.members.shift.numpy(), shift)


def same(one: Batch, two: Batch) -> bool:
    tensors = [
        (one.inputs, two.inputs),
        (one.labels, two.labels),
        (torch.from_numpy(one.rows), torch.from_numpy(two.rows)),
    ]
    if one.soft is not None:
        assert two.soft is not None
        tensors += [
            (one.soft.members.logits, two.soft.members.logits),
            (one.soft.members.shift, two.soft.members.shift),
        ]
    return all(torch.equal(a, b) for a, b in tensors)


@settings(max_examples=25)
@given(
    rows=st.integers(1, 300),
    share=st.floats(0.01, 1),
    batch_size=st.integers(1, 90),
    block=st.integers(1, 40),
    window=st.integers(1, 8),
    read_rows=st.integers(1, 300),
    shuffle=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_each_row_comes_once_with_its_own_values_and_any_start_gives_the_same_batches(
    make_store,
    monkeypatch,
    rows: int,
    share: float,
    batch_size: int,
    block: int,
    window: int,
    read_rows: int,
    shuffle: bool,
    seed: int,
) -> None:
    monkeypatch.setattr("softlabels.stream.loader.READ_ROWS", read_rows)
    rng = np.random.default_rng(seed)
    stored = rng.permutation(rows)
    numbers = rng.choice(rows, max(1, int(share * rows)), replace=False)
    selection = rng.choice(len(numbers), rng.integers(1, len(numbers) + 1), replace=False)
    options = {"seed": seed, "block": block, "window": window, "shuffle": shuffle, "selection": selection}
    loader = Loader(rows_of(numbers), make_store(stored), batch_size=batch_size, **options)
    batches = list(loader.epoch(3))
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (loader.steps_per_epoch - 1)
    visited = np.concatenate([batch.rows for batch in batches])
    assert sorted(visited) == sorted(selection)
    if not shuffle:
        assert np.array_equal(visited, selection)
    for batch in batches:
        check_values(batch, numbers, stored)
    start = int(rng.integers(0, loader.steps_per_epoch + 1))
    rest = list(loader.epoch(3, start=start))
    assert len(rest) == len(batches) - start
    assert all(same(one, two) for one, two in zip(rest, batches[start:], strict=True))


def test_epochs_and_seeds_differ_and_a_second_loader_agrees(make_store) -> None:
    numbers = np.arange(200)

    def order(seed: int, epoch: int) -> tuple[int, ...]:
        loader = Loader(rows_of(numbers), make_store(numbers), batch_size=32, seed=seed)
        return tuple(np.concatenate([batch.rows for batch in loader.epoch(epoch)]).tolist())

    assert len({order(0, 0), order(0, 1), order(1, 0)}) == 3
    assert order(1, 5) == order(1, 5)


def test_the_order_of_one_fixed_run_never_changes() -> None:
    loader = Loader(rows_of(np.arange(24)), None, batch_size=24, seed=3)
    (batch,), (as_before,) = loader.epoch(2), loader.by_chunks().epoch(2)
    assert batch.rows.tolist() == [18, 11, 13, 2, 15, 22, 8, 4, 21, 12, 16, 20, 9, 19, 6, 1, 14, 17, 0, 10, 5, 23, 7, 3]
    expected = [9, 1, 21, 12, 0, 14, 17, 10, 18, 7, 20, 11, 22, 6, 19, 23, 2, 3, 4, 13, 8, 15, 5, 16]
    assert as_before.rows.tolist() == expected


def test_dtypes_and_shapes(make_store) -> None:
    batch = next(Loader(rows_of(np.arange(50)), make_store(np.arange(50)), batch_size=8, seed=0).epoch(0))
    assert batch.inputs.shape == (8, 2, 3)
    assert batch.inputs.dtype == torch.float32
    assert batch.labels.dtype == torch.int64
    assert batch.rows.dtype == np.int64
    assert batch.soft is not None
    assert batch.soft.members.logits.shape == (8, MEMBERS, CLASSES)
    assert batch.soft.members.logits.dtype == torch.float16
    assert batch.soft.members.shift.dtype == torch.float32
    assert batch.soft.weights.tolist() == [0.75, 0.25]
    assert torch.equal(batch.to("cpu").soft.log_probs(2.0), batch.soft.log_probs(2.0))


def count_reads(store, monkeypatch) -> list[tuple[str, int]]:
    reads: list[tuple[str, int]] = []
    read = store.read_chunk
    monkeypatch.setattr(store, "read_chunk", lambda column, chunk: reads.append((column, chunk)) or read(column, chunk))
    return reads


@pytest.mark.parametrize(("shuffle", "block"), [(True, 4), (True, 8), (True, CHUNK), (True, 32), (False, None)])
@pytest.mark.parametrize("embed", [False, True])
def test_an_epoch_reads_each_chunk_once(make_store, monkeypatch, shuffle: bool, block: int | None, embed: bool) -> None:
    store = make_store(np.arange(500), embed=embed)
    rows = EmbeddedRows(store) if embed else rows_of(np.arange(500))
    loader = Loader(rows, store, batch_size=50, seed=0, block=block, window=4, shuffle=shuffle)
    reads = count_reads(store, monkeypatch)
    list(loader.epoch(0))
    columns = ("input", "logits", "shift") if embed else ("logits", "shift")
    assert sorted(reads) == [(column, chunk) for column in columns for chunk in range(32)]


def test_a_late_start_reads_only_what_is_left(make_store, monkeypatch) -> None:
    store = make_store(np.arange(320))
    loader = Loader(rows_of(np.arange(320)), store, batch_size=32, seed=0, block=CHUNK, window=2)
    reads = count_reads(store, monkeypatch)
    list(loader.epoch(0, start=9))
    assert len(reads) == 4  # two chunks of two columns: the last window
    reads.clear()
    assert list(loader.epoch(0, start=10)) == []
    assert reads == []


def test_chunks_without_selected_rows_are_not_read(make_store, monkeypatch) -> None:
    store = make_store(np.arange(160))
    loader = Loader(rows_of(np.arange(160)), store, batch_size=4, seed=0, selection=np.array([3, 40, 41]))
    reads = count_reads(store, monkeypatch)
    list(loader.epoch(0))
    assert {chunk for _, chunk in reads} == {0, 2}


def test_hard_labels_come_from_the_students_own_row(make_store) -> None:
    numbers = np.array([4, 4, 2, 4])
    store = make_store(numbers)
    loader = Loader(rows_of(numbers, labels=np.array([3, 2, 1, -1])), store, batch_size=4, seed=0, shuffle=False)
    (batch,) = loader.epoch(0)
    assert batch.labels.tolist() == [3, 2, 1, -1]
    assert batch.soft is not None
    assert batch.soft.members.shift[:, 0].tolist() == [0.0, 0.0, 4.0, 0.0]  # of store rows 0, 0, 2, 0


def test_only_labelled_rows_keep_their_hard_label(make_store) -> None:
    numbers = np.arange(20)
    labelled = np.arange(20) % 3 == 0
    loader = Loader(rows_of(numbers), make_store(numbers), batch_size=6, seed=0, labelled=labelled)
    for batch in loader.epoch(0):
        assert batch.labels.tolist() == [row % CLASSES if row % 3 == 0 else -1 for row in batch.rows]


def test_without_a_store_there_are_hard_labels_only() -> None:
    numbers = np.arange(3000)
    loader = Loader(rows_of(numbers), None, batch_size=64, seed=0, window=2)
    batches = list(loader.epoch(0))
    assert all(batch.soft is None for batch in batches)
    visited = np.concatenate([batch.rows for batch in batches])
    assert sorted(visited) == list(range(3000))
    assert not np.array_equal(visited, np.arange(3000))
    assert np.concatenate([batch.inputs[:, 0, 0].numpy() for batch in batches]).tolist() == visited.tolist()


@pytest.mark.parametrize("limit", [0, 700, 5000])
def test_inputs_are_read_a_bounded_part_at_a_time(make_store, monkeypatch, limit: int) -> None:
    numbers = np.arange(300)
    store = make_store(numbers)
    monkeypatch.setattr("softlabels.stream.loader.INPUT_BYTES", limit)
    visited = []
    for batch in Loader(rows_of(numbers), store, batch_size=20, seed=0).epoch(0):
        check_values(batch, numbers, numbers)
        assert batch.inputs.untyped_storage().nbytes() <= max(limit, 20 * 24)
        visited += batch.rows.tolist()
    assert sorted(visited) == numbers.tolist()


def test_member_weights_can_be_given(make_store) -> None:
    rows, store = rows_of(np.arange(20)), make_store(np.arange(20))
    batch = next(Loader(rows, store, batch_size=4, seed=0, weights=[1, 3]).epoch(0))
    assert batch.soft is not None
    assert batch.soft.weights.tolist() == [0.25, 0.75]
    with pytest.raises(ConfigError, match="2 members need 2 finite weights"):
        Loader(rows, store, batch_size=4, seed=0, weights=[1, 2, 3])


def test_reduced_labels_say_so_and_refuse_other_means(make_store) -> None:
    rows, store = rows_of(np.arange(20)), make_store(np.arange(20), reduce="geometric")
    batch = next(Loader(rows, store, batch_size=20, seed=0, shuffle=False).epoch(0))
    dataset = SoftLabelDataset(rows, store)
    collated = dataset.soft_labels(next(iter(DataLoader(dataset, batch_size=20))))
    for soft in (batch.soft, collated):
        expected = store.log_probs(np.arange(20), temperature=3.0, mean="geometric")
        np.testing.assert_allclose(soft.log_probs(3.0, "geometric").numpy(), expected, rtol=1e-5)
        with pytest.raises(MeanUnavailable, match="cannot give the arithmetic mean"):
            soft.log_probs(3.0)


def test_embedded_rows_need_no_transfer_set(make_store) -> None:
    numbers = np.arange(100)
    store = make_store(numbers, embed=True)
    for batch in Loader(EmbeddedRows(store), store, batch_size=32, seed=0, window=2).epoch(0):
        check_values(batch, numbers, numbers)
    alone = list(Loader(EmbeddedRows(store), None, batch_size=32, seed=0, window=2).epoch(0))
    assert sorted(np.concatenate([batch.rows for batch in alone])) == list(range(100))
    assert all(np.array_equal(batch.inputs[:, 1, 2].numpy(), batch.rows) for batch in alone)
    with pytest.raises(ConfigError, match="holds no inputs"):
        EmbeddedRows(make_store(numbers))


def test_rows_that_are_left_out_are_counted(make_store) -> None:
    store = make_store(np.arange(30))
    with pytest.raises(UnlabelledRows):
        Loader(rows_of(np.arange(40)), store, batch_size=4, seed=0)
    loader = Loader(rows_of(np.arange(40)), store, batch_size=4, seed=0, missing="skip", selection=np.arange(20, 35))
    assert loader.left_out == 5
    assert loader.rows.tolist() == list(range(20, 30))
    assert loader.steps_per_epoch == 3


@pytest.mark.parametrize(("label", "limit"), [(CLASSES, "0 to 4"), (-2, "0 to 4")])
def test_a_hard_label_outside_the_stores_classes(make_store, label: int, limit: str) -> None:
    labels = np.arange(20) % CLASSES
    labels[[11, 13]] = label
    rows = rows_of(np.arange(20), labels=labels)
    with pytest.raises(LabelError, match=rf"row 11 of digits has the hard label {label} \(2 rows .* run from {limit}"):
        Loader(rows, make_store(np.arange(20)), batch_size=4, seed=0)
    Loader(rows, make_store(np.arange(20)), batch_size=4, seed=0, selection=np.arange(11))  # not used, no matter


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"window": 0}, "window must be at least 1, not 0"),
        ({"block": 0}, "block must be at least 1, not 0"),
        ({"selection": np.array([], np.int64)}, "selection is empty"),
        ({"selection": np.array([20])}, "leaves the rows 0 to 19"),
        ({"selection": np.array([-1])}, "leaves the rows 0 to 19"),
        ({"selection": np.array([3, 3])}, "names a row twice"),
        ({"selection": np.ones(20, bool)}, "row numbers, not bool"),
        ({"labelled": np.ones(19, bool)}, r"labelled is a bool array of shape \(19,\), not bool of shape \(20,\)"),
        ({"labelled": np.ones(20, int)}, "labelled is a int64 array"),
    ],
)
def test_arguments_that_do_not_fit(make_store, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Loader(rows_of(np.arange(20)), make_store(np.arange(20)), **({"batch_size": 4, "seed": 0} | options))


def test_a_start_beyond_the_epoch_is_refused_at_once(make_store) -> None:
    loader = Loader(rows_of(np.arange(20)), make_store(np.arange(20)), batch_size=4, seed=0)
    for start in (-1, 6):
        with pytest.raises(ConfigError, match=f"there is no batch {start} to start at"):
            loader.epoch(0, start=start)


def test_the_order_digest_tells_loaders_apart(make_store) -> None:
    def of(rows=20, **options) -> str:
        options = {"batch_size": 4, "seed": 0, "window": 4} | options
        return Loader(rows_of(np.arange(rows)), make_store(np.arange(20)), **options).order_digest

    variants = [{}, {"rows": 19}, {"batch_size": 5}, {"seed": 1}, {"window": 5}, {"shuffle": False}, {"block": 8}]
    assert len({of(**variant) for variant in variants}) == len(variants)
    assert of() == of(selection=np.arange(20)) == of(block=512)
    others = np.r_[np.arange(1, 20), 0]  # the same keys and rows of other numbers lie in other blocks
    assert of(rows=20, selection=others, block=8) != of(rows=20, block=8)


def alive() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("softlabels")]


@pytest.mark.parametrize("how", ["close", "drop", "never started", "to the end"])
def test_no_thread_is_left_behind(make_store, how: str) -> None:
    loader = Loader(rows_of(np.arange(500)), make_store(np.arange(500)), batch_size=16, seed=0, block=16, window=1)
    batches = loader.epoch(0)
    if how == "to the end":
        list(batches)
    elif how != "never started":
        next(batches)
        time.sleep(0.01)  # the producer now waits for room
    if how == "close":
        batches.close()
    del batches
    assert not alive()


@pytest.mark.parametrize(("how", "error"), [("flip", DamagedShard), ("delete", MissingShard)])
def test_damage_reaches_the_consumer_before_one_of_its_rows(make_store, how: str, error: type[Exception]) -> None:
    store = make_store(np.arange(20 * CHUNK))
    file = store.path / "logits" / "c.2.0.0"  # chunks 8 to 11
    if how == "flip":
        data = bytearray(file.read_bytes())
        data[CHUNK * MEMBERS * CLASSES * 2 + 30] ^= 1  # in chunk 9
        file.write_bytes(data)
    else:
        file.unlink()
    gone = range(9, 10) if how == "flip" else range(8, 12)
    batches = Loader(rows_of(np.arange(20 * CHUNK)), store, batch_size=8, seed=0, block=CHUNK, window=2).epoch(0)
    rows: list[int] = []
    with pytest.raises(error, match="shard 2"):
        rows.extend(row for batch in batches for row in batch.rows)
    assert not {row // CHUNK for row in rows} & set(gone)
    assert not alive()


def test_the_two_layouts_give_the_same_batches(make_store) -> None:
    numbers = np.arange(200)
    loaders = [
        Loader(rows_of(numbers), make_store(numbers, layout=layout, chunks_a_shard=cut), batch_size=32, seed=0)
        for layout, cut in (("zarr", 4), ("arrow", 2))
    ]
    pairs = zip(*(loader.epoch(1) for loader in loaders), strict=True)
    assert all(same(one, two) for one, two in pairs)


def test_a_program_may_end_in_the_middle_of_an_epoch(make_store) -> None:
    store = make_store(np.arange(500))
    script = (
        "import sys; import numpy as np; from softlabels.store import open_store; from softlabels.stream import Loader\n"
        "from tests.stream.samples import rows_of\n"
        "rows, store = rows_of(np.arange(500)), open_store(sys.argv[1])\n"
        "batches = Loader(rows, store, batch_size=8, seed=0, block=16, window=1).epoch(0)\n"
        "print(len(next(batches)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, store.path], capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stdout, done.stderr) == (0, "8\n", "")


def test_batches_that_are_kept_keep_their_rows(make_store) -> None:
    numbers = np.arange(9 * CHUNK)
    loader = Loader(rows_of(numbers), make_store(numbers), batch_size=10, seed=0, block=CHUNK, window=2)
    kept = [list(loader.epoch(epoch))[:: 2 + epoch] for epoch in range(3)]
    for batch in (batch for epoch in kept for batch in epoch):
        check_values(batch, numbers, numbers)
