"""A loader of a store far away: what it asks for before it reads, and in how many requests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from softlabels.store import Store
from softlabels.store.layout import chunk_rows
from softlabels.stream import Loader, order
from softlabels.stream.examples import join_examples
from softlabels.stream.label_map import LABEL_CHUNKS
from softlabels.system import far, kept
from softlabels.system.far import FarFiles
from tests.store.far import Counting, away
from tests.store.samples import sample
from tests.stream.samples import CHUNK, rows_of, write_store
from tests.stream.test_targets import rows_for, store_of

LAYOUTS = ("zarr", "arrow")
ROWS = 128 * CHUNK


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is small, and nothing comes with its neighbours but what touches them, as where chunks have a megabyte."""
    monkeypatch.setattr(far, "SMALL", 64)
    monkeypatch.setattr(kept, "GAP", 48)


def chunks_asked(place: Counting, store: Store, column: str) -> list[int]:
    """The chunks of a column that came, by their numbers; one as often as it came."""
    found, size = [], store.spec.cut.rows_per_shard // store.rows_per_chunk
    for shard in range(store.spec.shards):
        payload = store.payload(shard)
        name = store._reader.layout.path(store.columns[column], shard)
        for number, chunk in enumerate(payload.chunks[column]):
            assert len(chunk_rows(store.spec, shard, number)) == CHUNK
            came = [a for n, a, length in place.asked if n == name and a <= chunk.offset < a + length]
            found += [shard * size + number] * len(came)
    return found


@pytest.mark.usefixtures("tight")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_meet_labels_without_a_request_for_each_chunk(layout: str, tmp_path: Path) -> None:
    numbers = np.arange(ROWS)
    write_store(tmp_path, numbers, layout=layout, chunks_a_shard=32)
    place = away(tmp_path)
    store = Store(FarFiles(place))
    join_examples(rows_of(numbers), store)
    assert chunks_asked(place, store, "content_key") == []
    assert len(set(chunks_asked(place, store, "label"))) == LABEL_CHUNKS
    place.asked.clear()
    join_examples(rows_of(numbers[::-1].copy()), Store(FarFiles(place)))  # in another order the keys are needed
    assert sorted(set(chunks_asked(place, store, "content_key"))) == list(range(128))


@pytest.mark.usefixtures("tight")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_loader_asks_for_each_chunk_once_and_for_neighbours_together(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "GAP", {"zarr": 48, "arrow": 900}[layout])  # what lies between the logits of two chunks
    numbers = np.arange(ROWS)
    here = write_store(tmp_path, numbers, layout=layout, chunks_a_shard=32)
    place, options = away(tmp_path), {"batch_size": 64, "seed": 0, "block": CHUNK, "window": 8}
    store = Store(FarFiles(place))
    loader = Loader(rows_of(numbers), store, **options)
    near = [batch.rows for batch in Loader(rows_of(numbers), here, **options).epoch(0)]
    for start in (0, 3):
        place.asked.clear()
        batches = loader.epoch(0, start)
        found = [next(batches).rows]
        asked = loader._examples.reader.folder._seen.parts
        assert asked._held  # what comes next is on its way
        found += [batch.rows for batch in batches]
        assert all(map(np.array_equal, found, near[start:]))
        came = chunks_asked(place, store, "logits")
        assert len(came) == len(set(came))
        if start == 0:
            assert len(came) == 128
            assert len([name for name, *_ in place.asked if "logits" in name or "data" in name]) < 0.65 * 128
        asked._parts.clear()
        asked._of.clear()


def test_a_store_that_is_near_costs_nothing_to_say_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers, permute, made = np.arange(16 * CHUNK), order.permute, []
    loader = Loader(rows_of(numbers), write_store(tmp_path, numbers), batch_size=64, seed=0, block=CHUNK, window=4)
    windows = loader._epoch(0).windows
    monkeypatch.setattr(order, "permute", lambda values, key: made.append(len(values)) or permute(values, key))
    assert sum(len(batch.rows) for batch in loader.epoch(0)) == len(numbers)
    assert len(made) == windows + 1  # and the spans


def test_labels_that_the_store_knew_are_asked_for_with_the_rest(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, asked, read = sample(rng, 64, "topk-zarr"), set(), set()
    store = store_of(tmp_path / "store", data, "topk-zarr")
    examples = join_examples(rows_for(data), store)
    assert examples.targets[""].keeps_label
    monkeypatch.setattr(store, "ahead", lambda columns, chunks: asked.update(columns))
    examples.ahead(np.arange(8))
    monkeypatch.setattr(store, "ahead", lambda columns, chunks: read.update(columns))
    examples.take(np.arange(8))
    assert read == asked
