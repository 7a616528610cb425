"""Several processes read every batch together: the batches of one process, of which each reads a part of the bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blake3 import blake3

from softlabels.errors import ConfigError, DamagedShard, SpecMismatch
from softlabels.jobs.sources import Source
from softlabels.store import Store
from softlabels.stream import Batch, EmbeddedRows, Loader, Part
from softlabels.system.files import File
from tests.store.places import MemoryPath
from tests.store.samples import Sample, make_spec, sample, write_store
from tests.stream.samples import rows_of
from tests.stream.sequence_samples import token_rows, token_sample
from tests.stream.test_targets import rows_for
from tests.stream.together import parts, together

ROWS, BATCH = 768, 53
OPTIONS: dict[str, Any] = {"batch_size": BATCH, "seed": 5, "block": 16, "window": 4}
KINDS: dict[str, dict[str, Any]] = {  # of the store, and how it is cut
    "zarr": {},
    "topk-zarr": {},
    "arrow": {"rows_per_chunk": 64, "rows_per_shard": 128},  # larger than a block
    "topk-arrow": {"rows_per_chunk": 48, "rows_per_shard": 96},  # across blocks
    "sequence-zstd": {},
    "ragged-arrow": {},
    "tokens-zarr": {},
    "several-zarr": {},
    "ragseveral-arrow": {},
}


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
        self.batches += [*loader.epoch(1), *loader.epoch(1, start=7)]


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


@pytest.mark.parametrize("embed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_those_of_one_process(rng: np.random.Generator, kind: str, embed: bool) -> None:
    of_tokens = kind.partition("-")[0] in ("sequence", "ragged", "tokens")
    data = token_sample(rng, kind, ROWS) if of_tokens else sample(rng, ROWS, kind)
    own = token_rows if of_tokens else rows_for
    alone = require_same(stored(kind, data, embed=embed, **KINDS[kind]), EmbeddedRows if embed else lambda _: own(data))
    assert sorted(np.concatenate([batch.rows for batch in alone.batches[: alone.loader.steps_per_epoch]])) == [
        *range(ROWS)
    ]
