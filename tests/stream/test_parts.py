"""Several processes read every batch together: the batches of one process, of which each reads a part of the bytes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from blake3 import blake3

from softlabels.errors import ConfigError, DamagedShard, Interrupted, SpecMismatch
from softlabels.jobs.sources import Source
from softlabels.store import Store, open_store
from softlabels.stream import Batch, EmbeddedRows, Loader, Part
from softlabels.system.files import File
from tests.store.places import MemoryPath
from tests.store.samples import Sample, make_spec, sample, write_store
from tests.stream.samples import rows_of
from tests.stream.sequence_samples import token_rows, token_sample
from tests.stream.test_targets import rows_for
from tests.stream.together import together

ROWS, BATCH = 768, 53
OPTIONS: dict[str, Any] = {"batch_size": BATCH, "seed": 5, "block": 16, "window": 4}
ONE_CHUNK: dict[str, Any] = {"rows_per_chunk": 64, "rows_per_shard": 128}  # for several blocks
ACROSS: dict[str, Any] = {"rows_per_chunk": 48, "rows_per_shard": 96}  # blocks


class _Counted:
    """A file that notes how many bytes are read of it."""

    def __init__(self, file: File, read: list[int]) -> None:
        self._file, self._read, self.size = file, read, file.size

    def read_into(self, start: int, out: memoryview) -> int:
        self._read.append(len(out))
        return self._file.read_into(start, out)


def counted(path: MemoryPath) -> tuple[MemoryPath, list[int]]:
    """The same place for one process, and the sizes of what is read there."""
    read: list[int] = []

    class Counted(MemoryPath):
        def file(self, name: str) -> File:  # type: ignore[override]  # what is asked of a file
            return _Counted(super().file(name), read)

    return Counted(path.inside, path._shared), read


def tensors(batch: Batch) -> Iterator[tuple[str, torch.Tensor]]:
    """Everything that a batch carries of its rows, by name."""
    yield "row", torch.from_numpy(batch.rows)
    yield "input", batch.inputs
    if batch.mask is not None:
        yield "mask", batch.mask
    for name, target in batch.targets.items():
        yield f"{name}.label", target.labels
        if target.soft is not None:
            held = {each.name: getattr(target.soft.members, each.name) for each in fields(target.soft.members)}
            held = {name: each for name, each in held.items() if name != "basis"} | held.get(
                "columns", {}
            )  # of all rows
            yield from ((f"{name}.{key}", each) for key, each in held.items() if isinstance(each, torch.Tensor))


def digest(batches: Sequence[Batch]) -> str:
    """Of a batch that lies in parts."""
    found = blake3()
    for each in zip(*map(tensors, batches), strict=True):
        found.update(each[0][0].encode() + torch.cat([values for _, values in each]).numpy().tobytes())
    return found.hexdigest()


class Run:
    """What one process went through: two epochs, and the end of the second again; how much it read in the first."""

    def __init__(self, place: Any, rows: Callable[[Store], Any], part: Part | None, **options: Any) -> None:
        several = place if isinstance(place, list) else [place]
        seen = [counted(each) for each in several]
        [store] = Source(tuple(path for path, _ in seen)).open().values()
        self.loader = loader = Loader(rows(store), store, part=part, **OPTIONS | options)
        for _, read in seen:
            read.clear()
        self.batches = [*loader.epoch(0)]
        self.read = sum(sum(read) for _, read in seen)
        self.batches += [*loader.epoch(1), *loader.epoch(1, start=loader.steps_per_epoch // 2)]


def require_same(place: Any, rows: Callable[[Store], Any], *, worlds: Sequence[int] = (2, 3, 4), **options: Any) -> Run:
    """Every world goes through the batches of one process, each part in its place, and no process reads more than its part of
    the bytes. The run of one process.
    """
    alone = Run(place, rows, None, **options)
    assert all((batch.first, batch.size) == (0, len(batch)) for batch in alone.batches)
    expected = [digest([batch]) for batch in alone.batches]
    for world in worlds:
        runs = together(world, lambda part: Run(place, rows, part, **options))
        assert {run.loader.order_digest for run in runs} == {alone.loader.order_digest}
        found = [*zip(*(run.batches for run in runs), strict=True)]
        assert [digest(batch) for batch in found] == expected
        for batch in found:
            sizes = [len(part) for part in batch]
            assert max(sizes) - min(sizes) <= 1
            assert [part.first for part in batch] == np.cumsum([0, *sizes[:-1]]).tolist()
            assert {part.size for part in batch} == {sum(sizes)}
        assert max(run.read for run in runs) <= 1.2 / world * alone.read
        assert sum(run.read for run in runs) <= 1.01 * alone.read
    return alone


def stored(kind: str, data: Sample, **cut: Any) -> MemoryPath:
    place = MemoryPath()
    write_store(place / "train", data, make_spec(data, kind, **cut), checked=True)  # type: ignore[arg-type]  # a place
    return place


def some(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random(values.shape) < 0.3, np.roll(values, 1), values)


def case(
    rng: np.random.Generator, kind: str, embed: bool, cut: dict[str, Any]
) -> tuple[MemoryPath, Callable[..., Any]]:
    """A store, and the rows that are taught by it: its own, or a student's in another order, some with another label."""
    of_tokens = kind.partition("-")[0] in ("sequence", "ragged", "tokens")
    data = token_sample(rng, kind, ROWS) if of_tokens else sample(rng, ROWS, kind)
    place = stored(kind, data, embed=embed, **cut)
    if embed:
        return place, EmbeddedRows
    if of_tokens:
        return place, lambda _: token_rows(data)
    own = data if data.several else replace(data, labels=some(data.labels, rng))
    return place, lambda _: rows_for(own)


@pytest.mark.parametrize(
    ("kind", "embed", "cut", "worlds"),
    [
        ("zarr", True, {}, (2, 3, 4)),
        ("topk-zarr", False, {}, (2, 3, 4)),
        ("sequence-zstd", False, {}, (2, 3, 4)),
        ("topk-arrow", True, ONE_CHUNK, (4,)),
        ("arrow", False, ACROSS, (3,)),
        ("several-zarr", False, {}, (2,)),
    ],
)
def test_batches_are_those_of_one_process(
    rng: np.random.Generator, kind: str, embed: bool, cut: dict[str, Any], worlds: Sequence[int]
) -> None:
    alone = require_same(*case(rng, kind, embed, cut), worlds=worlds)
    epoch = alone.batches[: alone.loader.steps_per_epoch]
    assert sorted(np.concatenate([batch.rows for batch in epoch])) == [*range(ROWS)]


@pytest.mark.slow
@pytest.mark.parametrize("cut", [{}, ONE_CHUNK, ACROSS], ids=["blocks", "larger", "across"])
@pytest.mark.parametrize("embed", [False, True])
@pytest.mark.parametrize(
    "kind", ["zarr", "topk-zarr", "tokens-zarr", "ragged-arrow", "ragseveral-arrow", "frames-arrow"]
)
def test_batches_of_every_kind(rng: np.random.Generator, kind: str, embed: bool, cut: dict[str, Any]) -> None:
    require_same(*case(rng, kind, embed, cut))


def test_stores_that_are_read_as_one(rng: np.random.Generator) -> None:
    """Also where their rows stand in another order."""
    data = sample(rng, ROWS)
    order = rng.permutation(ROWS)
    places = [stored("zarr", data), stored("zarr", data.changed(2.0)[order])]
    require_same(places, EmbeddedRows, worlds=(3,))


@pytest.mark.parametrize(
    "options",
    [
        {"shuffle": False},
        {"selection": np.flatnonzero(np.arange(ROWS) % 5 > 1)[::-1].copy(), "batch_size": 64},
        {"batch_size": 2, "window": 1},  # more processes than blocks in a window, and than rows in a batch
        {"batch_size": ROWS - 1},  # one row in the last batch
    ],
    ids=["unshuffled", "selection", "few", "last"],
)
def test_other_orders(rng: np.random.Generator, options: dict[str, Any]) -> None:
    require_same(*case(rng, "zarr", True, {}), worlds=(3,), **options)


def test_rows_that_the_store_lacks_and_rows_of_one_key(rng: np.random.Generator) -> None:
    data = sample(rng, ROWS)
    place = stored("zarr", data[np.arange(ROWS - 90)])
    again = rng.integers(0, ROWS, ROWS)
    run = require_same(place, lambda _: rows_for(data[again]), worlds=(3,), missing="skip")
    assert run.loader.left_out == (again >= ROWS - 90).sum()


def test_the_order_of_earlier_versions(rng: np.random.Generator) -> None:
    place, rows = case(rng, "topk-zarr", True, {})

    def run(part: Part | None) -> list[Batch]:
        store = open_store(place / "train")
        return [*Loader(rows(store), store, part=part, **OPTIONS).by_chunks().epoch(1)]

    expected = [digest([batch]) for batch in run(None)]
    assert [digest(batch) for batch in zip(*together(2, run), strict=True)] == expected


@pytest.mark.parametrize("used", [1, 5])
def test_an_epoch_that_all_leave_at_one_batch_leaves_no_message_behind(
    make_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch, used: int
) -> None:
    """However far each has read ahead: the next epoch is right."""
    monkeypatch.setattr("softlabels.stream.loader.READ_ROWS", 1)
    store, rows = make_store(np.arange(300)), rows_of(np.arange(300))

    def run(part: Part) -> list[Batch]:
        loader = Loader(rows, store, batch_size=12, seed=1, block=16, window=1, part=part)
        found = loader.epoch(0)
        for _ in range(used):
            next(found)
            time.sleep(0.002 * part.rank)  # the first one is ahead
        found.close()  # type: ignore[attr-defined]  # a generator
        assert sum(thread.name == "softlabels-prefetch" for thread in threading.enumerate()) < part.world
        return [*loader.epoch(1)]

    alone = [*Loader(rows, store, batch_size=12, seed=1, block=16, window=1).epoch(1)]
    found = zip(*together(2, run), strict=True)
    assert [digest(batch) for batch in found] == [digest([batch]) for batch in alone]


def test_damage_reaches_who_reads_it_and_the_others_do_not_wait(rng: np.random.Generator) -> None:
    place = stored("zarr", sample(rng, ROWS))
    [name] = [name for name in place.list() if name.startswith("train/logits/c.3")]
    data = bytearray(place.read(name))
    data[5] ^= 1
    (place / name).write_bytes(bytes(data))
    errors = []

    def run(part: Part) -> None:
        store = open_store(place / "train")
        try:
            for _ in Loader(EmbeddedRows(store), store, part=part, **OPTIONS).epoch(0):
                pass
        except Exception as error:
            errors.append(type(error))
            raise

    with pytest.raises((DamagedShard, Interrupted)):
        together(3, run)
    assert errors == [DamagedShard, Interrupted, Interrupted]


def test_a_process_of_other_rows_is_noticed(rng: np.random.Generator) -> None:
    place = stored("zarr", sample(rng, ROWS))

    def run(part: Part) -> None:
        store = open_store(place / "train")
        for _ in Loader(EmbeddedRows(store), store, part=part, **OPTIONS | {"batch_size": 50 + part.rank}).epoch(0):
            pass

    with pytest.raises(SpecMismatch, match=r"process \d sent .* bytes of rows, instead of .* it has other rows"):
        together(2, run)


def test_hard_labels_alone_need_no_exchange() -> None:
    rows, common = rows_of(np.arange(500)), {"batch_size": 33, "seed": 2}
    alone = [*Loader(rows, None, **common).epoch(0)]
    both = [[*Loader(rows, None, part=Part(rank, 2), **common).epoch(0)] for rank in range(2)]
    assert [digest(batch) for batch in zip(*both, strict=True)] == [digest([batch]) for batch in alone]


@pytest.mark.parametrize(("rank", "world"), [(2, 2), (-1, 3), (0, 0)])
def test_ranks_that_are_not_there(rank: int, world: int) -> None:
    with pytest.raises(ConfigError, match=f"rank {rank} of {world} processes"):
        Part(rank, world)


def test_slices_know_their_place() -> None:
    (batch,) = Loader(rows_of(np.arange(20)), None, batch_size=20, seed=0, part=Part(1, 2)).epoch(0)
    inner = batch[3:7][1:3].to("cpu")
    assert (batch.first, batch.size, inner.first, inner.size, len(inner)) == (10, 20, 14, 20, 2)
