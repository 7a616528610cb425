from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from softlabels.store.gather import gather
from tests.stream.samples import CHUNK

COLUMNS = ("logits", "shift")


@pytest.mark.parametrize("threads", [0, 3])
def test_rows_in_any_order_and_number_are_those_of_the_column(make_store, rng, threads: int) -> None:
    store = make_store(np.arange(137))  # the last chunk is short
    for count in (1, 5, 137, 400):
        rows = rng.integers(0, 137, count)
        with ThreadPoolExecutor(max(threads, 1)) as pool:
            block = gather(store, COLUMNS, rows, pool=pool if threads else None)
        for name in COLUMNS:
            assert np.array_equal(block[name], store.column(name)[rows])


def test_as_many_rows_as_a_chunk_holds_need_not_be_all_of_them(make_store) -> None:
    store = make_store(np.arange(3 * CHUNK))
    rows = np.arange(CHUNK, 2 * CHUNK)
    rows[3] = rows[4]
    assert np.array_equal(gather(store, COLUMNS, rows)["shift"], store.column("shift")[rows])


def test_chunks_beyond_65536_are_told_apart(make_store) -> None:
    store = make_store(np.arange(3 * CHUNK))

    class Far:
        columns, rows_per_chunk = store.columns, CHUNK

        def ahead(self, columns, chunks) -> None:
            assert sorted(chunks) == [1, 65537, 65538]

        def read_chunk(self, column: str, chunk: int) -> np.ndarray:
            return store.read_chunk(column, chunk % 65536)

    rows = np.array([CHUNK, 65537 * CHUNK + 3, 65538 * CHUNK, CHUNK + 1, 65537 * CHUNK])
    wanted = store.column("shift")[rows % (65536 * CHUNK)]
    assert np.array_equal(gather(Far(), ("shift",), rows)["shift"], wanted)


def test_rows_stand_behind_the_lead(make_store) -> None:
    store = make_store(np.arange(100))
    one, two = np.array([99, 3, 50]), np.array([7, 98])
    block = gather(store, COLUMNS, two, lead=gather(store, COLUMNS, one))
    for name in COLUMNS:
        assert np.array_equal(block[name], store.column(name)[np.concatenate([one, two])])


def test_no_rows_read_no_chunk(make_store, monkeypatch) -> None:
    store = make_store(np.arange(20))
    monkeypatch.setattr(store, "read_chunk", None)  # calling it would be a TypeError
    assert gather(store, COLUMNS, np.array([], np.int64))["logits"].shape == (0, *store.columns["logits"].shape)
